//! A network that stops computing when a stop is requested, so that the attack on it ends within one pass.

use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, Tensor};

use super::Classifier;

/// A network under attack. After a request to stop it answers at once, with logits that misclassify every image: attacks then
/// find all images broken and end. The caller drops their results.
pub(super) struct Stoppable<'a> {
    pub(super) network: &'a dyn Classifier,
    /// The labels of the batch under attack, `[N]`.
    pub(super) labels: &'a Tensor,
    /// Raised to stop.
    pub(super) stop: &'a AtomicBool,
}

impl Stoppable<'_> {
    /// Whether an answer may have been another one than the network's.
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Logits `[N, classes]` with the largest one beside the label. They depend on the images, so that they have a gradient.
    fn broken(&self, images: &Tensor) -> Tensor {
        let zeros = images.flatten(1, -1).sum_dim_intlist([1i64].as_slice(), true, None::<Kind>) * 0.0;
        let classes = self.classes() as i64;
        if images.size()[0] != self.labels.size()[0] {
            return zeros.expand([-1, classes], false);
        }
        let other = (self.labels + 1).remainder(classes);
        zeros + other.one_hot(classes).to_kind(self.kind())
    }
}

impl Classifier for Stoppable<'_> {
    fn classes(&self) -> usize {
        self.network.classes()
    }

    fn kind(&self) -> Kind {
        self.network.kind()
    }

    fn device(&self) -> Device {
        self.network.device()
    }

    fn logits(&self, images: &Tensor) -> Tensor {
        if self.stopped() { self.broken(images) } else { self.network.logits(images) }
    }

    fn stand_in(&self, images: &Tensor) -> Option<Tensor> {
        if self.stopped() { None } else { self.network.stand_in(images) }
    }
}
