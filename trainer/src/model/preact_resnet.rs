//! ResNet-18 with pre-activation blocks: the reference's models/preresnet.py (used for Tiny-ImageNet), and the variants
//! of published robust networks (Rice et al. 2020, Wong et al. 2020; classes and names of RobustBench's preact_resnet).

use tch::Tensor;

use crate::config::Activation;
use crate::model::Mode;
use crate::model::batch_norm::BatchNorm;
use crate::model::blocks::PreActivationBlock;
use crate::model::builder::Builder;
use crate::model::layers::{Convolution, Linear};
use crate::model::network::Network;

/// Stem, groups of pre-activation blocks, batch norm, average over the map, linear classifier.
pub(super) struct PreActResNet {
    conv1: Convolution,
    blocks: Vec<PreActivationBlock>,
    bn: Option<BatchNorm>,
    linear: Linear,
}

impl PreActResNet {
    /// PreActResNet-18: two blocks each of 64, 128, 256 and 512 channels at strides 1, 2, 2, 2.
    pub(super) fn eighteen(
        layers: &mut Builder,
        channels: i64,
        classes: i64,
        raw_shortcut: bool,
        last_norm: bool,
    ) -> Self {
        let conv1 = layers.convolution("conv1", channels, 64, 3, 1);
        let mut inputs = 64;
        let mut blocks = vec![];
        for (group, (outputs, stride)) in [(64, 1), (128, 2), (256, 2), (512, 2)].into_iter().enumerate() {
            for (block, stride) in [stride, 1].into_iter().enumerate() {
                let name = format!("layer{}.{block}", group + 1);
                let block = self::block(layers, &name, inputs, outputs, stride);
                blocks.push(PreActivationBlock { raw_shortcut, ..block });
                inputs = outputs;
            }
        }
        let bn = last_norm.then(|| layers.batch_norm("bn", inputs));
        Self { conv1, blocks, bn, linear: layers.linear("linear", inputs, classes) }
    }
}

impl Network for PreActResNet {
    fn logits(&self, images: &Tensor, mode: Mode) -> Tensor {
        let map = self.blocks.iter().fold(self.conv1.forward(images), |map, block| block.forward(&map, mode));
        let map = self.bn.as_ref().map_or(map.shallow_clone(), |bn| bn.forward_relu(&map, mode));
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
        raw_shortcut: false,
        activation: Activation::Relu,
    }
}
