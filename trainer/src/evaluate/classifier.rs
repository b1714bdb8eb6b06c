//! What an evaluation needs of a network, whatever the network is made of.

use tch::{Device, Kind, Tensor};

use crate::model::{Mode, Model};
use crate::weights::script::ScriptedNetwork;

/// A network under attack, in evaluation mode. Attacks take gradients of its logits with respect to the images.
pub trait Classifier {
    /// The number of its outputs.
    fn classes(&self) -> usize;

    /// The type of its images and logits.
    fn kind(&self) -> Kind;

    /// Where it computes.
    fn device(&self) -> Device;

    /// Images `[N, C, H, W]` in [0, 1] to logits `[N, classes]`.
    fn logits(&self, images: &Tensor) -> Tensor;

    /// Logits `[N, classes]` of a network that is near this one and has gradients that lead somewhere, where this one has a
    /// layer without (thresholds, rounding); `None` where its own gradients serve.
    fn stand_in(&self, _images: &Tensor) -> Option<Tensor> {
        None
    }
}

impl Classifier for Model {
    fn classes(&self) -> usize {
        self.form.classes
    }

    fn kind(&self) -> Kind {
        Model::kind(self)
    }

    fn device(&self) -> Device {
        Model::device(self)
    }

    fn logits(&self, images: &Tensor) -> Tensor {
        Model::logits(self, images, Mode::Eval)
    }
}

impl Classifier for ScriptedNetwork {
    fn classes(&self) -> usize {
        self.outputs()
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn device(&self) -> Device {
        self.device
    }

    fn logits(&self, images: &Tensor) -> Tensor {
        ScriptedNetwork::logits(self, images)
    }

    fn stand_in(&self, images: &Tensor) -> Option<Tensor> {
        ScriptedNetwork::stand_in(self, images)
    }
}
