//! The computation of a network over its layers.

use tch::Tensor;

use super::Mode;

/// The computation of a network over its layers.
pub trait Network: Send {
    /// Images `[N, C, H, W]` to logits `[N, classes]`.
    fn logits(&self, images: &Tensor, mode: Mode) -> Tensor;
}
