//! MobileNetV2 for CIFAR (Sandler et al. 2018; layers and names of the reference's models/mobilenetv2.py): ReLU instead of
//! ReLU6, strides for 32x32 images.

use tch::Tensor;

use crate::model::Mode;
use crate::model::batch_norm::BatchNorm;
use crate::model::builder::Builder;
use crate::model::layers::{Convolution, Linear};
use crate::model::network::Network;

/// Stem, seventeen inverted residual blocks, a wide pointwise convolution, average over the map, linear classifier.
pub(super) struct MobileNetV2 {
    conv1: Convolution,
    bn1: BatchNorm,
    blocks: Vec<Block>,
    conv2: Convolution,
    bn2: BatchNorm,
    linear: Linear,
}

/// Widen, filter each channel, narrow. The narrow end has no activation.
struct Block {
    widen: (Convolution, BatchNorm),
    filter: (Convolution, BatchNorm),
    narrow: (Convolution, BatchNorm),
    shortcut: Shortcut,
}

enum Shortcut {
    None,
    Identity,
    Convolution(Convolution, BatchNorm),
}

/// Expansion factor, channels, number of blocks, stride of the first block.
const GROUPS: [(i64, i64, usize, i64); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

impl MobileNetV2 {
    pub(super) fn new(layers: &mut Builder, channels: i64, classes: i64) -> Self {
        let conv1 = layers.convolution("conv1", channels, 32, 3, 1);
        let bn1 = layers.batch_norm("bn1", 32);
        let mut inputs = 32;
        let mut blocks = vec![];
        for (factor, outputs, count, first_stride) in GROUPS {
            for block in 0..count {
                let stride = if block == 0 { first_stride } else { 1 };
                let name = format!("layers.{}", blocks.len());
                blocks.push(Block::new(layers, &name, inputs, inputs * factor, outputs, stride));
                inputs = outputs;
            }
        }
        let conv2 = layers.convolution("conv2", inputs, 1280, 1, 1);
        let bn2 = layers.batch_norm("bn2", 1280);
        Self { conv1, bn1, blocks, conv2, bn2, linear: layers.linear("linear", 1280, classes) }
    }
}

impl Network for MobileNetV2 {
    fn logits(&self, images: &Tensor, mode: Mode) -> Tensor {
        let stem = self.bn1.after_relu(&self.conv1, images, None, mode);
        let map = self.blocks.iter().fold(stem, |map, block| block.forward(&map, mode));
        let map = self.bn2.after_relu(&self.conv2, &map, None, mode);
        self.linear.forward(&map.mean_dim([2i64, 3].as_slice(), false, None))
    }
}

impl Block {
    fn new(layers: &mut Builder, name: &str, inputs: i64, hidden: i64, outputs: i64, stride: i64) -> Self {
        let widen = layers.convolution(&format!("{name}.conv1"), inputs, hidden, 1, 1);
        let widen = (widen, layers.batch_norm(&format!("{name}.bn1"), hidden));
        let filter = layers.depthwise_convolution(&format!("{name}.conv2"), hidden, 3, stride);
        let filter = (filter, layers.batch_norm(&format!("{name}.bn2"), hidden));
        let narrow = layers.convolution(&format!("{name}.conv3"), hidden, outputs, 1, 1);
        let narrow = (narrow, layers.batch_norm(&format!("{name}.bn3"), outputs));
        let shortcut = match stride {
            1 if inputs == outputs => Shortcut::Identity,
            1 => {
                let convolution = layers.convolution(&format!("{name}.shortcut.0"), inputs, outputs, 1, 1);
                Shortcut::Convolution(convolution, layers.batch_norm(&format!("{name}.shortcut.1"), outputs))
            }
            _ => Shortcut::None,
        };
        Self { widen, filter, narrow, shortcut }
    }

    fn forward(&self, images: &Tensor, mode: Mode) -> Tensor {
        let layer = |(convolution, batch_norm): &(Convolution, BatchNorm), images: &Tensor| {
            batch_norm.after_relu(convolution, images, None, mode)
        };
        let (narrow, batch_norm) = &self.narrow;
        let inner = batch_norm.after(narrow, &layer(&self.filter, &layer(&self.widen, images)), mode);
        match &self.shortcut {
            Shortcut::None => inner,
            Shortcut::Identity => inner + images,
            Shortcut::Convolution(convolution, batch_norm) => inner + batch_norm.after(convolution, images, mode),
        }
    }
}
