//! ResNet-18 with pre-activation blocks and the input normalised inside (the reference's models/preresnet.py, used for
//! Tiny-ImageNet).

use tch::Tensor;

use super::batch_norm::BatchNorm;
use super::layers::{Builder, Convolution, Linear, PreActivationBlock};
use super::{Mode, Network};

/// Normalisation, stem, groups of pre-activation blocks, batch norm, average over the map, linear classifier.
pub(super) struct PreActResNet {
    mean: Tensor,
    deviation: Tensor,
    conv1: Convolution,
    blocks: Vec<PreActivationBlock>,
    bn: BatchNorm,
    linear: Linear,
}

impl PreActResNet {
    /// PreActResNet-18: two blocks each of 64, 128, 256 and 512 channels at strides 1, 2, 2, 2. Mean and deviation of the
    /// channels start as those of Tiny-ImageNet; grey images take their average.
    pub(super) fn eighteen(layers: &mut Builder, channels: i64, classes: i64) -> Self {
        let spread = |colours: [f64; 3]| {
            if channels == 3 { colours.to_vec() } else { vec![colours.iter().sum::<f64>() / 3.0; channels as usize] }
        };
        let mean = layers.constant("normalize.mean", &spread([0.4802, 0.4481, 0.3975]));
        let deviation = layers.constant("normalize.std", &spread([0.2302, 0.2265, 0.2262]));
        let conv1 = layers.convolution("conv1", channels, 64, 3, 1);
        let mut inputs = 64;
        let mut blocks = vec![];
        for (group, (outputs, stride)) in [(64, 1), (128, 2), (256, 2), (512, 2)].into_iter().enumerate() {
            for (block, stride) in [stride, 1].into_iter().enumerate() {
                blocks.push(self::block(layers, &format!("layer{}.{block}", group + 1), inputs, outputs, stride));
                inputs = outputs;
            }
        }
        let bn = layers.batch_norm("bn", inputs);
        Self { mean, deviation, conv1, blocks, bn, linear: layers.linear("linear", inputs, classes) }
    }
}

impl Network for PreActResNet {
    fn logits(&self, images: &Tensor, mode: Mode) -> Tensor {
        let over_channels = |values: &Tensor| values.view([1, -1, 1, 1]);
        let normalised = (images - over_channels(&self.mean)) / over_channels(&self.deviation);
        let map = self.blocks.iter().fold(self.conv1.forward(&normalised), |map, block| block.forward(&map, mode));
        let map = self.bn.forward(&map, mode).relu();
        self.linear.forward(&map.mean_dim([2i64, 3].as_slice(), false, None))
    }
}

fn block(layers: &mut Builder, name: &str, inputs: i64, outputs: i64, stride: i64) -> PreActivationBlock {
    PreActivationBlock {
        bn1: layers.batch_norm(&format!("{name}.bn1"), inputs),
        conv1: layers.convolution(&format!("{name}.conv1"), inputs, outputs, 3, stride),
        bn2: layers.batch_norm(&format!("{name}.bn2"), outputs),
        conv2: layers.convolution(&format!("{name}.conv2"), outputs, outputs, 3, 1),
        shortcut: (stride != 1 || inputs != outputs)
            .then(|| layers.convolution(&format!("{name}.shortcut.0"), inputs, outputs, 1, stride)),
    }
}
