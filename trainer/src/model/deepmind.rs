//! WideResNet and PreActResNet-18 in DeepMind's form (Gowal et al. 2020, Rebuffi et al. 2021, Wang et al. 2023; names
//! of RobustBench's dm_wide_resnet): SiLU, and 3x3 convolutions of stride 2 that pad only on the right and below, like
//! TensorFlow's "SAME".

use tch::Tensor;

use crate::config::Activation;
use crate::model::Mode;
use crate::model::batch_norm::BatchNorm;
use crate::model::blocks::PreActivationBlock;
use crate::model::builder::Builder;
use crate::model::layers::{Convolution, Linear, activate};
use crate::model::network::Network;

/// Stem, groups of pre-activation blocks, batch norm, average over the map, linear classifier.
pub(super) struct DeepMind {
    stem: Convolution,
    blocks: Vec<PreActivationBlock>,
    batch_norm: BatchNorm,
    logits: Linear,
    activation: Activation,
}

impl DeepMind {
    /// WideResNet: three groups of (depth - 4) / 6 blocks at 16, 32 and 64 times the width; 1x1 shortcuts take the
    /// activated images.
    pub(super) fn wide(
        layers: &mut Builder,
        channels: i64,
        classes: i64,
        (depth, width): (i64, i64),
        activation: Activation,
    ) -> Self {
        let stem = layers.normal_convolution("init_conv", channels, 16, 3, 1);
        let mut inputs = 16;
        let mut blocks = vec![];
        for (group, stride) in [1, 2, 2].into_iter().enumerate() {
            let outputs = (16 << group) * width;
            for block in 0..(depth - 4) / 6 {
                let name = format!("layer.{group}.block.{block}");
                let names = [format!("{name}.conv_0"), format!("{name}.conv_1")];
                let stride = if block == 0 { stride } else { 1 };
                let block = self::block(layers, &name, names, (inputs, outputs), stride);
                let shortcut = (inputs != outputs)
                    .then(|| layers.normal_convolution(&format!("{name}.shortcut"), inputs, outputs, 1, stride));
                blocks.push(PreActivationBlock { shortcut, activation, ..block });
                inputs = outputs;
            }
        }
        Self::finish(layers, stem, blocks, inputs, classes, activation)
    }

    /// PreActResNet-18: two blocks each of 64, 128, 256 and 512 channels; 3x3 shortcuts take the raw images.
    pub(super) fn preact_eighteen(layers: &mut Builder, channels: i64, classes: i64, activation: Activation) -> Self {
        let stem = layers.normal_convolution("conv_2d", channels, 64, 3, 1);
        let mut inputs = 64;
        let mut blocks = vec![];
        for (group, (outputs, stride)) in [(64, 1), (128, 2), (256, 2), (512, 2)].into_iter().enumerate() {
            for (block, stride) in [stride, 1].into_iter().enumerate() {
                let name = format!("layer_{group}.{block}");
                let names = [format!("{name}.conv_2d_1"), format!("{name}.conv_2d_2")];
                let block = self::block(layers, &name, names, (inputs, outputs), stride);
                let shortcut = (inputs != outputs)
                    .then(|| same_padded(layers, &format!("{name}.shortcut"), inputs, outputs, stride));
                blocks.push(PreActivationBlock { shortcut, raw_shortcut: true, activation, ..block });
                inputs = outputs;
            }
        }
        Self::finish(layers, stem, blocks, inputs, classes, activation)
    }

    fn finish(
        layers: &mut Builder,
        stem: Convolution,
        blocks: Vec<PreActivationBlock>,
        inputs: i64,
        classes: i64,
        activation: Activation,
    ) -> Self {
        let batch_norm = layers.batch_norm("batchnorm", inputs);
        let logits = layers.linear_zero_bias("logits", inputs, classes);
        Self { stem, blocks, batch_norm, logits, activation }
    }
}

impl Network for DeepMind {
    fn logits(&self, images: &Tensor, mode: Mode) -> Tensor {
        let map = self.blocks.iter().fold(self.stem.forward(images), |map, block| block.forward(&map, mode));
        let map = activate(&self.batch_norm.forward(&map, mode), self.activation);
        self.logits.forward(&map.mean_dim([2i64, 3].as_slice(), false, None))
    }
}

/// A block without its shortcut, whose tensors come last in PyTorch's order.
fn block(
    layers: &mut Builder,
    name: &str,
    [first, second]: [String; 2],
    (inputs, outputs): (i64, i64),
    stride: i64,
) -> PreActivationBlock {
    PreActivationBlock {
        bn1: layers.batch_norm(&format!("{name}.batchnorm_0"), inputs),
        conv1: same_padded(layers, &first, inputs, outputs, stride),
        bn2: layers.batch_norm(&format!("{name}.batchnorm_1"), outputs),
        conv2: layers.normal_convolution(&second, outputs, outputs, 3, 1),
        shortcut: None,
        raw_shortcut: false,
        activation: Activation::Silu,
    }
}

/// A 3x3 convolution that pads on one side only at stride 2.
fn same_padded(layers: &mut Builder, name: &str, inputs: i64, outputs: i64, stride: i64) -> Convolution {
    let convolution = layers.normal_convolution(name, inputs, outputs, 3, stride);
    Convolution { one_sided: stride == 2, ..convolution }
}
