//! The adaptive check: several starts of Auto-PGD on the margin, with gradients that pass through a stand-in for layers that
//! have none of use (backward pass differentiable approximation, BPDA: Athalye, Carlini and Wagner 2018).
//!
//! A [`Classifier`] says by [`stand_in`](Classifier::stand_in) whether it needs one. What counts is always the network's own
//! answer: the stand-in gives directions, and no image falls for what the stand-in says of it.

use tch::{Tensor, no_grad};

use super::Classifier;

/// The logits of `network`, `[N, classes]`, to the bit. Their gradient is that of its stand-in, or its own if it has none.
pub(super) fn through_stand_in(network: &dyn Classifier, images: &Tensor) -> Tensor {
    match network.stand_in(images) {
        // The difference is 0, and has the gradient.
        Some(smooth) => no_grad(|| network.logits(images)) + (&smooth - smooth.detach()),
        None => network.logits(images),
    }
}

/// The end of a warning: the check by its command. `subject` is the beginning of the command, up to its options.
pub(super) fn advice(subject: &str) -> String {
    format!(
        "`{subject} --suite adaptive` attacks from several starts, through a stand-in where the network has one (docs/evaluation.md)"
    )
}
