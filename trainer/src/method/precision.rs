//! The number format and memory layout of a step's forward passes.

use std::sync::Arc;

use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::{Autocast, Casts, Kernels, Tf32};

use crate::config::{Dtype, Precision};
use crate::model::{Mode, Model, Named};

/// This environment variable lets fused kernels work on the host, for tests with a stand-in for the driver.
const TEST: &str = "IAD_TEST_KERNELS";

impl Precision {
    /// The fused kernels that this precision asks for on `device`; none where it asks for none.
    ///
    /// # Errors
    /// Why there are none: a warning for the user, with whom the same is computed without them.
    pub fn kernels(self, device: Device) -> Result<Option<Arc<Kernels>>, String> {
        let loaded = match device {
            _ if !self.fused.is_on() => return Ok(None),
            Device::Cuda(gpu) => Kernels::load(gpu, device),
            _ if std::env::var_os(TEST).is_some() => Kernels::load(0, device),
            _ => Err("only GPUs have them".into()),
        };
        let loaded = loaded.map_err(|reason| format!("precision.fused: no fused kernels are used: {reason}"));
        loaded.map(|kernels| Some(Arc::new(kernels)))
    }

    /// Logits `[N, classes]` of `images [N, C, H, W]` in the type of the network's parameters, whatever type its layers
    /// compute in. So softmax, losses and trust never see bfloat16.
    pub fn logits(self, network: &Model, images: &Tensor, mode: Mode) -> Tensor {
        let images = if self.channels_last { channels_last(images) } else { images.shallow_clone() };
        // Autocast covers this pass only: not the losses, the optimizer or an evaluation.
        let _region = (self.dtype == Dtype::Bfloat16).then(|| Autocast::bfloat16(images.device()));
        network.logits(&images, mode).to_kind(network.kind())
    }

    /// Lays the weights of `network`'s convolutions out like their maps. Otherwise libtorch would reorder them at every
    /// use.
    pub fn lay_out(self, network: &Model) {
        let convolutions = network.parameters.iter().filter(|named| named.tensor.dim() == 4);
        for Named { tensor, .. } in convolutions.filter(|_| self.channels_last) {
            no_grad(|| tensor.shallow_clone().set_data(&channels_last(tensor)));
        }
    }

    /// Freezes `teacher` and makes it cheap: no gradients, batch norm folded into the convolutions, weights cast once.
    /// Autocast would cast frozen weights at every use.
    pub fn freeze(self, teacher: &Model) {
        teacher.freeze();
        if self.dtype != Dtype::Bfloat16 {
            return teacher.fold_batch_norm(teacher.kind());
        }
        teacher.fold_batch_norm(Kind::BFloat16);
        // The first pass folds the full weights; they are rounded afterwards.
        let [channels, height, width] = teacher.form.image.map(|size| size as i64);
        let black = Tensor::zeros([1, channels, height, width], (teacher.kind(), teacher.device()));
        let _ = no_grad(|| self.logits(teacher, &black, Mode::Eval));
        teacher.cast_weights(Kind::BFloat16);
    }

    /// Weights do not change while the returned guard lives, so each is cast once.
    pub fn casts(self) -> Option<Casts> {
        (self.dtype == Dtype::Bfloat16).then(Casts::fresh)
    }

    /// A warning about this choice on `device`, if there is one.
    pub fn warning(self, device: Device) -> Option<&'static str> {
        let dtype = self.on(device.is_cuda()).dtype;
        let slow = dtype == Dtype::Bfloat16 && device == Device::Cpu && !torch_ext::fast_bfloat16();
        slow.then_some(
            "this processor has no instructions for bfloat16 (AVX-512 BF16 or AMX): precision.dtype = \"bfloat16\" is \
             slower than \"float32\" here",
        )
    }

    /// Products are rounded this way while the returned guard lives, backward passes included.
    pub fn products(self) -> Tf32 {
        Tf32::allow(self.rounds_convolutions(), self.rounds_matrices())
    }

    /// What `device` computes in, and the instructions that it does so with: a line for logs and records.
    pub fn at_work(self, device: Device) -> String {
        format!("{}; {}", self.in_words(device.is_cuda()), torch_ext::instructions(device))
    }
}

/// The same images with all channels of a pixel side by side in memory. Convolutions keep this layout for their maps.
fn channels_last(images: &Tensor) -> Tensor {
    let last = images.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    match *images.size() {
        // With one channel both layouts are the same memory; the strides must say which one is meant.
        [count, 1, height, width] => last.as_strided([count, 1, height, width], [height * width, 1, width, 1], None),
        _ => last,
    }
}

impl Dtype {
    /// The type of parameters, their gradients, images and losses.
    pub fn kind(self) -> Kind {
        match self {
            Dtype::Float32 | Dtype::Tf32 | Dtype::Bfloat16 | Dtype::Auto => Kind::Float,
            Dtype::Float64 => Kind::Double,
        }
    }
}

#[cfg(test)]
mod tests;
