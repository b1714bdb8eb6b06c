//! How the networks of a step compute: the type and the layout of their forward passes.

use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::{Autocast, Casts, Tf32};

use crate::config::{Dtype, Precision};
use crate::model::{Mode, Model, Named};

impl Precision {
    /// Logits `[N, classes]` of `images [N, C, H, W]`, in the type of the network's parameters, whatever its layers compute
    /// in: softmax, losses and trust see no bfloat16.
    pub fn logits(self, network: &Model, images: &Tensor, mode: Mode) -> Tensor {
        let images = if self.channels_last { channels_last(images) } else { images.shallow_clone() };
        // Around this pass alone: neither losses nor the optimizer nor an evaluation compute within it.
        let _region = (self.dtype == Dtype::Bfloat16).then(|| Autocast::bfloat16(images.device()));
        network.logits(&images, mode).to_kind(network.kind())
    }

    /// Gives the weights of `network`'s convolutions the order in memory of their maps: else they are reordered at every use.
    pub fn lay_out(self, network: &Model) {
        let convolutions = network.parameters.iter().filter(|named| named.tensor.dim() == 4);
        for Named { tensor, .. } in convolutions.filter(|_| self.channels_last) {
            no_grad(|| tensor.shallow_clone().set_data(&channels_last(tensor)));
        }
    }

    /// Makes `teacher` as cheap as a network that never changes can be: without gradients, batch norm in the convolutions, and
    /// weights cast once; autocast would cast frozen ones at every use.
    pub fn freeze(self, teacher: &Model) {
        teacher.freeze();
        if self.dtype != Dtype::Bfloat16 {
            return teacher.fold_batch_norm(teacher.kind());
        }
        teacher.fold_batch_norm(Kind::BFloat16);
        // A pass makes the folded weights, of the full ones: those are rounded afterwards.
        let [channels, height, width] = teacher.form.image.map(|size| size as i64);
        let black = Tensor::zeros([1, channels, height, width], (teacher.kind(), teacher.device()));
        let _ = no_grad(|| self.logits(teacher, &black, Mode::Eval));
        teacher.cast_weights(Kind::BFloat16);
    }

    /// While the answer lives, no weight changes, so that each is cast once.
    pub fn casts(self) -> Option<Casts> {
        (self.dtype == Dtype::Bfloat16).then(Casts::fresh)
    }

    /// What speaks against this choice on `device`.
    pub fn warning(self, device: Device) -> Option<&'static str> {
        let slow = self.dtype == Dtype::Bfloat16 && device == Device::Cpu && !torch_ext::fast_bfloat16();
        slow.then_some(
            "this processor has no instructions for bfloat16 (AVX-512 BF16 or AMX): precision.dtype = \"bfloat16\" is \
             slower than \"float32\" here",
        )
    }

    /// While the answer lives, products are rounded as this says, backward passes included.
    pub fn products(self) -> Tf32 {
        Tf32::allow(self.dtype == Dtype::Tf32)
    }
}

/// The same images, all channels of a pixel together in memory. Convolutions give their maps as they get them.
fn channels_last(images: &Tensor) -> Tensor {
    let last = images.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    match *images.size() {
        // Of a single channel both orders are the same in memory: the strides must say which one is meant.
        [count, 1, height, width] => last.as_strided([count, 1, height, width], [height * width, 1, width, 1], None),
        _ => last,
    }
}

#[cfg(test)]
mod tests;
