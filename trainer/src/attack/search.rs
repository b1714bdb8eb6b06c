//! What the attacks of an evaluation share: the network under attack, the ball, and the search of one batch. Each image is
//! searched for itself, so that an outcome does not depend on the batch.

use tch::{Kind, Tensor, no_grad};

use super::Noise;

/// Searches adversarial images of finished weights.
pub trait Search: Send + Sync {
    /// For each of `images [N, C, H, W]` (in [0, 1], with `labels [N]`, int64) an image in the ball, and in [0, 1], that the
    /// subject gets wrong if one is found, else any. The caller judges it by a pass of its own. Random numbers come from
    /// `noise` alone. May end early once every image has fallen.
    fn search(&self, subject: &Subject, images: &Tensor, labels: &Tensor, noise: &Noise) -> Tensor;
}

/// A network under attack: in evaluation mode, its parameters without gradients.
pub struct Subject<'a> {
    forward: &'a dyn Fn(&Tensor) -> Tensor,
}

/// What one forward and one backward pass tell about a batch.
pub struct Slope {
    /// `[N, classes]`.
    pub logits: Tensor,
    /// The objective of each image, `[N]`.
    pub values: Tensor,
    /// The gradient of the sum of the values, `[N, C, H, W]`.
    pub gradient: Tensor,
}

impl<'a> Subject<'a> {
    /// The network whose logits `[N, classes]` `forward` gives.
    pub fn new(forward: &'a dyn Fn(&Tensor) -> Tensor) -> Self {
        Self { forward }
    }

    /// Logits `[N, classes]`, without gradient.
    pub fn logits(&self, images: &Tensor) -> Tensor {
        no_grad(|| (self.forward)(images))
    }

    /// One pass forward and one back: the `objective [N]` of the logits, and its gradient with respect to the images alone.
    pub fn slope(&self, images: &Tensor, objective: &dyn Fn(&Tensor) -> Tensor) -> Slope {
        let images = images.detach().set_requires_grad(true);
        let logits = (self.forward)(&images);
        let values = objective(&logits);
        let gradient = Tensor::run_backward(&[values.sum(Kind::Float)], &[&images], false, false).remove(0);
        Slope { logits: logits.detach(), values: values.detach(), gradient }
    }
}

/// Which distance bounds a perturbation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// The largest change of a pixel.
    Linf,
}

/// The images within `eps` of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ball {
    /// The distance.
    pub norm: Norm,
    /// Its bound, in units of the pixel range [0, 1].
    pub eps: f64,
}

impl Ball {
    /// The point of the ball around `images`, cut to [0, 1], that is nearest to `candidate`.
    pub fn project(&self, images: &Tensor, candidate: &Tensor) -> Tensor {
        match self.norm {
            // Both intervals hold the image itself, so one clamp to their intersection does for both.
            Norm::Linf => candidate
                .clamp_tensor(Some((images - self.eps).clamp_min(0.0)), Some((images + self.eps).clamp_max(1.0))),
        }
    }

    /// The steepest direction of unit length.
    pub fn direction(&self, gradient: &Tensor) -> Tensor {
        match self.norm {
            Norm::Linf => gradient.sign(),
        }
    }

    /// How far each of `candidate` is from its image, `[N]`.
    pub fn distance(&self, images: &Tensor, candidate: &Tensor) -> Tensor {
        match self.norm {
            Norm::Linf => (candidate - images).abs().flatten(1, -1).amax([1i64].as_slice(), false),
        }
    }
}

/// What a search has found so far: for each image an adversarial one, or itself.
pub(super) struct Found {
    /// `[N, C, H, W]`.
    pub images: Tensor,
    /// Which have fallen, `[N]`.
    fallen: Tensor,
    /// Which had fallen when this was last looked at.
    settled: Tensor,
}

impl Found {
    /// Nothing yet.
    pub fn none(images: &Tensor) -> Self {
        let none = Tensor::zeros([images.size()[0]], (Kind::Bool, images.device()));
        Self { images: images.shallow_clone(), fallen: none.shallow_clone(), settled: none }
    }

    /// Takes `candidate` where `which [N]` says that it is adversarial, in place of what was found before.
    pub fn keep(&mut self, candidate: &Tensor, which: &Tensor) {
        let which = which.logical_and(&self.settled.logical_not());
        self.images = candidate.where_self(&per_image(&which), &self.images);
        self.fallen = self.fallen.logical_or(&which);
    }

    #[cfg(test)]
    pub fn fallen(&self) -> Vec<bool> {
        Vec::try_from(&self.fallen).unwrap()
    }

    /// Whether every image has fallen; looks only now and then, since the host has to wait for the device. What has fallen by
    /// then is final: an image's result must not depend on how long the search goes on for its neighbours.
    pub fn all(&mut self, iteration: usize) -> bool {
        const INTERVAL: usize = 10;
        if !iteration.is_multiple_of(INTERVAL) {
            return false;
        }
        self.settled = self.fallen.shallow_clone();
        bool::try_from(self.settled.all()).unwrap_or(false)
    }
}

/// One number per image `[N]`, shaped so that it meets `[N, C, H, W]`.
pub(super) fn per_image(values: &Tensor) -> Tensor {
    values.view([-1, 1, 1, 1])
}
