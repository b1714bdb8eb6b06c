//! SGD over flat buffers (`kernels/sgd.py`).

use tch::{Kind, Tensor, no_grad};

use super::{Argument, Kernels, parts};
use crate::update::Sgd;

/// What `sgd_judge` finds, on the device.
pub struct Judged {
    /// The largest absolute gradient, velocity and value, float32 `[3]`; not a number where one is none.
    pub largest: Tensor,
    /// The first place of a gradient that is not finite, int64 scalar; the number of gradients if all are.
    pub place: Tensor,
}

impl Kernels {
    /// Programs that fill a GPU of some 150 processors, each with several at a time.
    const PROGRAMS: i64 = 1024;

    /// What decides whether an update can be made, in one pass over the flat buffers. None where they are not float32.
    pub fn sgd_judge(&self, values: &Tensor, gradients: &Tensor, velocity: &Tensor) -> Option<Judged> {
        if !self.take(&[values, gradients, velocity]) {
            return None;
        }
        no_grad(|| {
            let (count, block) = (values.numel() as i64, self.block("sgd_judge")[0]);
            let share = parts(parts(count, Self::PROGRAMS), block) * block;
            let programs = parts(count, share);
            let largest = Tensor::empty([3, programs], (Kind::Float, values.device()));
            let places = Tensor::empty([programs], (Kind::Int64, values.device()));
            let buffers = [values, gradients, velocity, &largest, &places].map(Argument::Values);
            let numbers = [Argument::I64(count), Argument::I64(share)];
            self.launch("sgd_judge", [programs, 1], &[&buffers[..], &numbers].concat());
            Some(Judged { largest: largest.amax(1i64, false), place: places.min() })
        })
    }

    /// PyTorch's SGD without dampening, in place, if `moves` (a bool scalar on the device) is true; else everything keeps its
    /// values. The rate is `rate`, a float32 scalar on the device, and `numbers.rate` is not read. True if the kernel took the
    /// buffers, which are float32.
    pub fn sgd_update(
        &self,
        [values, gradients, velocity]: [&Tensor; 3],
        moves: &Tensor,
        rate: &Tensor,
        numbers: Sgd,
    ) -> bool {
        if !self.take(&[values, gradients, velocity]) || !self.reach(&[moves, rate]) {
            return false;
        }
        let Sgd { momentum, nesterov, weight_decay, .. } = numbers;
        let count = values.numel() as i64;
        let buffers = [values, gradients, velocity, moves, rate].map(Argument::Values);
        let numbers = [
            Argument::I64(count),
            Argument::F32(momentum as f32),
            Argument::F32(weight_decay as f32),
            Argument::I32(i32::from(nesterov)),
        ];
        self.launch("sgd_update", [parts(count, self.block("sgd_update")[0]), 1], &[&buffers[..], &numbers].concat());
        true
    }

    /// Whether these are flat float32 buffers of one size.
    fn take(&self, buffers: &[&Tensor]) -> bool {
        let flat = |tensor: &&Tensor| {
            tensor.kind() == Kind::Float && tensor.is_contiguous() && tensor.numel() == buffers[0].numel()
        };
        buffers.iter().all(flat) && self.reach(buffers)
    }
}
