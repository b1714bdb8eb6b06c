//! ResNet (He et al. 2016): with the CIFAR stem under the names of the reference's models/resnet.py, and with the ImageNet
//! stem under torchvision's.

use tch::Tensor;

use crate::model::Mode;
use crate::model::batch_norm::BatchNorm;
use crate::model::builder::Builder;
use crate::model::layers::{Convolution, Linear};
use crate::model::network::Network;

/// Stem, groups of residual blocks, average over the map, linear classifier.
pub(super) struct ResNet {
    conv1: Convolution,
    bn1: BatchNorm,
    /// Whether the stem ends in a 3x3 max pooling of stride 2.
    pools: bool,
    blocks: Vec<Block>,
    linear: Linear,
}

/// Convolutions with their batch norms, with ReLU between them and after the sum.
struct Block {
    layers: Vec<(Convolution, BatchNorm)>,
    shortcut: Option<(Convolution, BatchNorm)>,
}

/// The differences between ResNets.
struct Shape {
    /// Kernel and stride of the first convolution.
    stem: (i64, i64),
    pools: bool,
    /// Channels, stride and number of blocks.
    groups: Vec<(i64, i64, usize)>,
    /// Whether blocks are 1x1, 3x3 and 1x1 convolutions, the last four times as wide; else two 3x3 convolutions.
    bottleneck: bool,
    shortcut: &'static str,
    classifier: &'static str,
}

const CIFAR: Shape =
    Shape { stem: (3, 1), pools: false, groups: vec![], bottleneck: false, shortcut: "shortcut", classifier: "linear" };

/// The groups of ResNet-18, -34 and -50, and whether their blocks are bottlenecks.
fn groups(depth: u32) -> (Vec<(i64, i64, usize)>, bool) {
    let counts = if depth == 18 { [2, 2, 2, 2] } else { [3, 4, 6, 3] };
    let channels = [(64, 1), (128, 2), (256, 2), (512, 2)].into_iter();
    (channels.zip(counts).map(|((channels, stride), count)| (channels, stride, count)).collect(), depth == 50)
}

impl ResNet {
    /// ResNet-18, -34 or -50 for CIFAR: 64, 128, 256 and 512 channels at strides 1, 2, 2, 2.
    pub(super) fn cifar(layers: &mut Builder, channels: i64, classes: i64, depth: u32) -> Self {
        let (groups, bottleneck) = groups(depth);
        Self::new(layers, channels, classes, &Shape { groups, bottleneck, ..CIFAR })
    }

    /// ResNet-18, -34 or -50 for ImageNet: a 7x7 stem of stride 2 and a 3x3 max pooling.
    pub(super) fn torchvision(layers: &mut Builder, channels: i64, classes: i64, depth: u32) -> Self {
        let (groups, bottleneck) = groups(depth);
        let names = Shape { shortcut: "downsample", classifier: "fc", ..CIFAR };
        Self::new(layers, channels, classes, &Shape { stem: (7, 2), pools: true, groups, bottleneck, ..names })
    }

    /// ResNet-8: one block each of 16, 32 and 64 channels, with a stem of stride 2; 2.5 million multiplications per
    /// 28x28 image.
    pub(super) fn eight(layers: &mut Builder, channels: i64, classes: i64) -> Self {
        let groups = vec![(16, 1, 1), (32, 2, 1), (64, 2, 1)];
        Self::new(layers, channels, classes, &Shape { stem: (3, 2), groups, ..CIFAR })
    }

    fn new(layers: &mut Builder, channels: i64, classes: i64, shape: &Shape) -> Self {
        let mut inputs = shape.groups[0].0;
        let conv1 = layers.convolution("conv1", channels, inputs, shape.stem.0, shape.stem.1);
        let bn1 = layers.batch_norm("bn1", inputs);
        let mut blocks = vec![];
        for (group, &(width, stride, count)) in shape.groups.iter().enumerate() {
            for block in 0..count {
                let stride = if block == 0 { stride } else { 1 };
                let name = format!("layer{}.{block}", group + 1);
                let (block, outputs) = Block::new(layers, &name, (inputs, width), stride, shape);
                blocks.push(block);
                inputs = outputs;
            }
        }
        let linear = layers.linear(shape.classifier, inputs, classes);
        Self { conv1, bn1, pools: shape.pools, blocks, linear }
    }
}

impl Network for ResNet {
    fn logits(&self, images: &Tensor, mode: Mode) -> Tensor {
        let stem = self.bn1.after_relu(&self.conv1, images, None, mode);
        let stem = if self.pools { stem.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false) } else { stem };
        let map = self.blocks.iter().fold(stem, |map, block| block.forward(&map, mode));
        // The reference pools 4x4, the whole map at 32x32. The mean of the map also fits other sizes.
        self.linear.forward(&map.mean_dim([2i64, 3].as_slice(), false, None))
    }
}

impl Block {
    /// A block, and the number of its output channels.
    fn new(layers: &mut Builder, name: &str, (inputs, width): (i64, i64), stride: i64, shape: &Shape) -> (Self, i64) {
        // Inputs, outputs, kernel and stride of each convolution.
        let convolutions = if shape.bottleneck {
            vec![(inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        } else {
            vec![(inputs, width, 3, stride), (width, width, 3, 1)]
        };
        let outputs = if shape.bottleneck { 4 * width } else { width };
        let mut inner = vec![];
        for (number, (inputs, outputs, kernel, stride)) in (1..).zip(convolutions) {
            let convolution = layers.convolution(&format!("{name}.conv{number}"), inputs, outputs, kernel, stride);
            inner.push((convolution, layers.batch_norm(&format!("{name}.bn{number}"), outputs)));
        }
        let shortcut = (stride != 1 || inputs != outputs).then(|| {
            let name = format!("{name}.{}", shape.shortcut);
            let convolution = layers.convolution(&format!("{name}.0"), inputs, outputs, 1, stride);
            (convolution, layers.batch_norm(&format!("{name}.1"), outputs))
        });
        (Self { layers: inner, shortcut }, outputs)
    }

    fn forward(&self, images: &Tensor, mode: Mode) -> Tensor {
        let shortcut = match &self.shortcut {
            Some((convolution, batch_norm)) => batch_norm.after(convolution, images, mode),
            None => images.shallow_clone(),
        };
        let mut inner = images.shallow_clone();
        for (number, (convolution, batch_norm)) in (1..).zip(&self.layers) {
            let addend = (number == self.layers.len()).then_some(&shortcut);
            inner = batch_norm.after_relu(convolution, &inner, addend, mode);
        }
        inner
    }
}
