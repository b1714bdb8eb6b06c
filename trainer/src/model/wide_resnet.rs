//! WideResNet (Zagoruyko and Komodakis 2016; layers and names of TRADES' models/wideresnet.py, without its unused
//! `sub_block1`).

use tch::Tensor;

use crate::config::Activation;
use crate::model::Mode;
use crate::model::batch_norm::BatchNorm;
use crate::model::blocks::PreActivationBlock;
use crate::model::builder::Builder;
use crate::model::layers::{Convolution, Linear};
use crate::model::network::Network;

/// Stem, three groups of pre-activation blocks at 16, 32 and 64 times the width, batch norm, average, linear classifier.
pub(super) struct WideResNet {
    conv1: Convolution,
    blocks: Vec<PreActivationBlock>,
    bn1: BatchNorm,
    fc: Linear,
}

impl WideResNet {
    pub(super) fn new(layers: &mut Builder, channels: i64, classes: i64, depth: i64, width: i64) -> Self {
        let conv1 = layers.normal_convolution("conv1", channels, 16, 3, 1);
        let mut inputs = 16;
        let mut blocks = vec![];
        for (group, stride) in [1, 2, 2].into_iter().enumerate() {
            let outputs = (16 << group) * width;
            for block in 0..(depth - 4) / 6 {
                let name = format!("block{}.layer.{block}", group + 1);
                blocks.push(self::block(layers, &name, inputs, outputs, if block == 0 { stride } else { 1 }));
                inputs = outputs;
            }
        }
        let bn1 = layers.batch_norm("bn1", inputs);
        Self { conv1, blocks, bn1, fc: layers.linear_zero_bias("fc", inputs, classes) }
    }
}

impl Network for WideResNet {
    fn logits(&self, images: &Tensor, mode: Mode) -> Tensor {
        let map = self.blocks.iter().fold(self.conv1.forward(images), |map, block| block.forward(&map, mode));
        let map = self.bn1.forward_relu(&map, mode);
        self.fc.forward(&map.mean_dim([2i64, 3].as_slice(), false, None))
    }
}

fn block(layers: &mut Builder, name: &str, inputs: i64, outputs: i64, stride: i64) -> PreActivationBlock {
    PreActivationBlock {
        bn1: layers.batch_norm(&format!("{name}.bn1"), inputs),
        conv1: layers.normal_convolution(&format!("{name}.conv1"), inputs, outputs, 3, stride),
        bn2: layers.batch_norm(&format!("{name}.bn2"), outputs),
        conv2: layers.normal_convolution(&format!("{name}.conv2"), outputs, outputs, 3, 1),
        shortcut: (inputs != outputs)
            .then(|| layers.normal_convolution(&format!("{name}.convShortcut"), inputs, outputs, 1, stride)),
        raw_shortcut: false,
        activation: Activation::Relu,
    }
}
