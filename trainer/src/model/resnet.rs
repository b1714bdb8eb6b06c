//! ResNet with basic blocks and the CIFAR stem (He et al. 2016; layers and names of the reference's models/resnet.py).

use tch::Tensor;

use super::batch_norm::BatchNorm;
use super::layers::{Builder, Convolution, Linear};
use super::{Mode, Network};

/// Stem, groups of basic blocks, average over the map, linear classifier.
pub(super) struct ResNet {
    conv1: Convolution,
    bn1: BatchNorm,
    blocks: Vec<Block>,
    linear: Linear,
}

struct Block {
    conv1: Convolution,
    bn1: BatchNorm,
    conv2: Convolution,
    bn2: BatchNorm,
    shortcut: Option<(Convolution, BatchNorm)>,
}

impl ResNet {
    /// ResNet-18: two blocks each of 64, 128, 256 and 512 channels at strides 1, 2, 2, 2.
    pub(super) fn eighteen(layers: &mut Builder, channels: i64, classes: i64) -> Self {
        Self::new(layers, channels, classes, 1, 2, &[(64, 1), (128, 2), (256, 2), (512, 2)])
    }

    /// ResNet-8: one block each of 16, 32 and 64 channels, with a stem of stride 2; 2.5 million multiplications per
    /// 28x28 image.
    pub(super) fn eight(layers: &mut Builder, channels: i64, classes: i64) -> Self {
        Self::new(layers, channels, classes, 2, 1, &[(16, 1), (32, 2), (64, 2)])
    }

    fn new(
        layers: &mut Builder,
        channels: i64,
        classes: i64,
        stem_stride: i64,
        depth: usize,
        groups: &[(i64, i64)],
    ) -> Self {
        let conv1 = layers.convolution("conv1", channels, groups[0].0, 3, stem_stride);
        let bn1 = layers.batch_norm("bn1", groups[0].0);
        let mut inputs = groups[0].0;
        let mut blocks = vec![];
        for (group, &(outputs, stride)) in groups.iter().enumerate() {
            for block in 0..depth {
                let stride = if block == 0 { stride } else { 1 };
                blocks.push(Block::new(layers, &format!("layer{}.{block}", group + 1), inputs, outputs, stride));
                inputs = outputs;
            }
        }
        Self { conv1, bn1, blocks, linear: layers.linear("linear", inputs, classes) }
    }
}

impl Network for ResNet {
    fn logits(&self, images: &Tensor, mode: Mode) -> Tensor {
        let stem = self.bn1.after(&self.conv1, images, mode).relu();
        let map = self.blocks.iter().fold(stem, |map, block| block.forward(&map, mode));
        // The reference pools 4x4, which is the whole map at 32x32; the mean of the map serves other sizes too.
        self.linear.forward(&map.mean_dim([2i64, 3].as_slice(), false, None))
    }
}

impl Block {
    fn new(layers: &mut Builder, name: &str, inputs: i64, outputs: i64, stride: i64) -> Self {
        let conv1 = layers.convolution(&format!("{name}.conv1"), inputs, outputs, 3, stride);
        let bn1 = layers.batch_norm(&format!("{name}.bn1"), outputs);
        let conv2 = layers.convolution(&format!("{name}.conv2"), outputs, outputs, 3, 1);
        let bn2 = layers.batch_norm(&format!("{name}.bn2"), outputs);
        let shortcut = (stride != 1 || inputs != outputs).then(|| {
            let convolution = layers.convolution(&format!("{name}.shortcut.0"), inputs, outputs, 1, stride);
            (convolution, layers.batch_norm(&format!("{name}.shortcut.1"), outputs))
        });
        Self { conv1, bn1, conv2, bn2, shortcut }
    }

    fn forward(&self, images: &Tensor, mode: Mode) -> Tensor {
        let inner = self.bn1.after(&self.conv1, images, mode).relu();
        let inner = self.bn2.after(&self.conv2, &inner, mode);
        match &self.shortcut {
            Some((convolution, batch_norm)) => inner + batch_norm.after(convolution, images, mode),
            None => inner + images,
        }
        .relu()
    }
}
