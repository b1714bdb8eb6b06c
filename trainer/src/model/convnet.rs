//! A small convolutional network without batch norm: an image's logits do not depend on other images.

use tch::Tensor;

use crate::model::Mode;
use crate::model::builder::Builder;
use crate::model::layers::{Convolution, Linear};
use crate::model::network::Network;

/// Four convolutions, three of them strided, with ReLU, average over the map, linear classifier.
pub(super) struct ConvNet {
    convolutions: Vec<Convolution>,
    linear: Linear,
}

impl ConvNet {
    pub(super) fn new(layers: &mut Builder, channels: i64, classes: i64) -> Self {
        let widths = [(channels, 16, 2), (16, 32, 1), (32, 32, 2), (32, 64, 2)];
        let convolutions = widths
            .into_iter()
            .enumerate()
            .map(|(number, (inputs, outputs, stride))| {
                layers.convolution(&format!("conv{}", number + 1), inputs, outputs, 3, stride)
            })
            .collect();
        Self { convolutions, linear: layers.linear("linear", 64, classes) }
    }
}

impl Network for ConvNet {
    fn logits(&self, images: &Tensor, _mode: Mode) -> Tensor {
        let map =
            self.convolutions.iter().fold(images.shallow_clone(), |map, convolution| convolution.forward(&map).relu());
        self.linear.forward(&map.mean_dim([2i64, 3].as_slice(), false, None))
    }
}
