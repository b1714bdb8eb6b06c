//! The residual block that several networks share.

use super::Mode;
use super::batch_norm::BatchNorm;
use super::layers::{Convolution, activate};
use crate::config::Activation;
use tch::Tensor;

/// A residual block that normalises and activates before each of its two convolutions (He et al. 2016, identity mappings).
pub struct PreActivationBlock {
    /// Batch norm before the first convolution.
    pub bn1: BatchNorm,
    /// The first convolution, with the block's stride.
    pub conv1: Convolution,
    /// Batch norm before the second convolution.
    pub bn2: BatchNorm,
    /// The second convolution.
    pub conv2: Convolution,
    /// The shortcut's convolution, if the shape changes.
    pub shortcut: Option<Convolution>,
    /// Whether the shortcut takes the raw input of the block; else it takes the normalised and activated input.
    pub raw_shortcut: bool,
    /// The activation after each batch norm.
    pub activation: Activation,
}

impl PreActivationBlock {
    /// `[N, inputs, H, W]` to `[N, outputs, H / stride, W / stride]`.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Tensor {
        let relu = self.activation == Activation::Relu;
        let activated = match relu {
            true => self.bn1.forward_relu(images, mode),
            false => activate(&self.bn1.forward(images, mode), self.activation),
        };
        let inner = match relu {
            true => self.bn2.after_relu(&self.conv1, &activated, None, mode),
            false => activate(&self.bn2.after(&self.conv1, &activated, mode), self.activation),
        };
        let inner = self.conv2.forward(&inner);
        match &self.shortcut {
            Some(shortcut) if self.raw_shortcut => inner + shortcut.forward(images),
            Some(shortcut) => inner + shortcut.forward(&activated),
            None => inner + images,
        }
    }
}
