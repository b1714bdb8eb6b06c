//! What the attacks of an evaluation share: the network under attack and the search on one batch. Each image is
//! searched separately, so its outcome does not depend on the batch.

use tch::{Kind, Tensor, no_grad};

use crate::method::attack::Noise;

/// Searches adversarial images of finished weights.
pub trait Search: Send + Sync {
    /// Returns for each of `images [N, C, H, W]` (in [0, 1], with `labels [N]`, int64) an image in the ball and in [0,
    /// 1]: one that the subject misclassifies if one is found, else any. The caller judges it by a separate pass.
    /// Random numbers come from `noise` alone. The search may end early once every image is broken.
    fn search(&self, subject: &Subject, images: &Tensor, labels: &Tensor, noise: &Noise) -> Tensor;
}

/// A network under attack, in evaluation mode and without parameter gradients.
pub struct Subject<'a> {
    forward: &'a dyn Fn(&Tensor) -> Tensor,
}

/// The results of one forward and one backward pass on a batch.
pub struct Slope {
    /// `[N, classes]`.
    pub logits: Tensor,
    /// The objective of each image, `[N]`.
    pub values: Tensor,
    /// The gradient of the sum of the values, `[N, C, H, W]`.
    pub gradient: Tensor,
}

impl<'a> Subject<'a> {
    /// A network whose logits `[N, classes]` are given by `forward`.
    pub fn new(forward: &'a dyn Fn(&Tensor) -> Tensor) -> Self {
        Self { forward }
    }

    /// Logits `[N, classes]`, without gradient.
    pub fn logits(&self, images: &Tensor) -> Tensor {
        no_grad(|| (self.forward)(images))
    }

    /// One forward and one backward pass: the `objective [N]` of the logits and its gradient with respect to the
    /// images.
    pub fn slope(&self, images: &Tensor, objective: &dyn Fn(&Tensor) -> Tensor) -> Slope {
        let images = images.detach().set_requires_grad(true);
        let logits = (self.forward)(&images);
        let values = objective(&logits);
        let gradient = Tensor::run_backward(&[values.sum(Kind::Float)], &[&images], false, false).remove(0);
        Slope { logits: logits.detach(), values: values.detach(), gradient }
    }
}

/// The best images so far: an adversarial one for each image, or the image itself.
pub(super) struct Found {
    /// `[N, C, H, W]`.
    pub images: Tensor,
    /// The broken images, `[N]`.
    fallen: Tensor,
    /// The broken images at the last check.
    settled: Tensor,
}

impl Found {
    /// No adversarial image yet.
    pub fn none(images: &Tensor) -> Self {
        let none = Tensor::zeros([images.size()[0]], (Kind::Bool, images.device()));
        Self { images: images.shallow_clone(), fallen: none.shallow_clone(), settled: none }
    }

    /// Takes `candidate` for the images in `which [N]`, in place of earlier ones.
    pub fn keep(&mut self, candidate: &Tensor, which: &Tensor) {
        let which = which.logical_and(&self.settled.logical_not());
        self.images = candidate.where_self(&per_image(&which), &self.images);
        self.fallen = self.fallen.logical_or(&which);
    }

    #[cfg(test)]
    pub fn fallen(&self) -> Vec<bool> {
        Vec::try_from(&self.fallen).unwrap()
    }

    /// Whether every image is broken. The check makes the host wait for the device, so it happens rarely. An image
    /// broken at a check keeps its adversarial image: its result must not depend on how long the search continues for
    /// other images.
    pub fn all(&mut self, iteration: usize) -> bool {
        const INTERVAL: usize = 10;
        if !iteration.is_multiple_of(INTERVAL) {
            return false;
        }
        self.settled = self.fallen.shallow_clone();
        bool::try_from(self.settled.all()).unwrap_or(false)
    }
}

/// One number per image `[N]`, shaped to broadcast over `[N, C, H, W]`.
pub(super) fn per_image(values: &Tensor) -> Tensor {
    values.view([-1, 1, 1, 1])
}
