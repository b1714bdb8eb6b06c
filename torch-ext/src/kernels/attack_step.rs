//! One step of projected gradient ascent in L-infinity (`kernels/attack_step.py`).

use tch::{Kind, Tensor, no_grad};

use super::{Argument, Kernels, laid_out_like, parts};

impl Kernels {
    /// `candidate` moved by `step` along the sign of `gradient`, and projected to at most `eps` from `images` and to [0, 1]. All
    /// are `[N, C, H, W]`, float32; the bits are those of libtorch's operations.
    ///
    /// None where the kernel takes no such tensors: other types, gaps between the values, or a number of values that is no
    /// multiple of 16.
    pub fn attack_step(
        &self,
        candidate: &Tensor,
        gradient: &Tensor,
        images: &Tensor,
        step: f64,
        eps: f64,
    ) -> Option<Tensor> {
        no_grad(|| {
            let all = [candidate, gradient, images];
            let count = candidate.numel() as i64;
            let whole = candidate.is_contiguous() && count % 16 == 0;
            if !whole || all.iter().any(|tensor| tensor.kind() != Kind::Float || tensor.size() != candidate.size()) {
                return None;
            }
            let (gradient, images) = (laid_out_like(gradient, candidate), laid_out_like(images, candidate));
            if !self.reach(&[candidate, &gradient, &images]) {
                return None;
            }
            let moved = candidate.empty_like();
            let values = [candidate, &gradient, &images, &moved].map(Argument::Values);
            let numbers = [Argument::I64(count), Argument::F32(step as f32), Argument::F32(eps as f32)];
            let programs = parts(count, self.block("attack_step")[0]);
            self.launch("attack_step", [programs, 1], &[&values[..], &numbers].concat());
            Some(moved)
        })
    }
}
