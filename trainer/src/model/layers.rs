//! The layers of all networks, and the list of their tensors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tch::Tensor;

use crate::config::Activation;

/// A tensor with its name in PyTorch's state_dict.
pub struct Named {
    /// The name, for instance `layer1.0.conv1.weight`.
    pub name: String,
    /// The tensor.
    pub tensor: Tensor,
}

/// The multiply-adds of a layer's forward passes so far.
pub type Counter = Arc<AtomicU64>;

/// Each value of `output` sums as many products as an output of `weight` has inputs.
fn count(counter: &Counter, weight: &Tensor, output: &Tensor) {
    let products = weight.numel() as u64 / weight.size()[0] as u64;
    counter.fetch_add(products * output.numel() as u64, Ordering::Relaxed);
}

/// A square convolution without bias, padded to keep the size at stride 1.
pub struct Convolution {
    pub(super) weight: Tensor,
    pub(super) stride: i64,
    pub(super) padding: i64,
    /// Whether it pads one row below and one column on the right only, instead of `padding` on all sides.
    pub(super) one_sided: bool,
    pub(super) groups: i64,
    pub(super) counter: Counter,
}

impl Convolution {
    /// `[N, inputs, H, W]` to `[N, outputs, H / stride, W / stride]`.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        self.with(images, &self.weight, None)
    }

    /// The same with another weight and a bias.
    pub(super) fn with(&self, images: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let (images, padding) = match self.one_sided {
            true => (&images.constant_pad_nd([0, 1, 0, 1]), 0),
            false => (images, self.padding),
        };
        let output = images.conv2d(weight, bias, [self.stride; 2], [padding; 2], [1, 1], self.groups);
        count(&self.counter, weight, &output);
        output
    }
}

/// The activation, value by value.
pub(super) fn activate(values: &Tensor, activation: Activation) -> Tensor {
    match activation {
        Activation::Relu => values.relu(),
        Activation::Silu => values.silu(),
    }
}

/// `x W^T + b`.
pub struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) counter: Counter,
}

impl Linear {
    /// `[N, inputs]` to `[N, outputs]`.
    pub fn forward(&self, features: &Tensor) -> Tensor {
        let output = features.linear(&self.weight, Some(&self.bias));
        count(&self.counter, &self.weight, &output);
        output
    }
}
