//! The architectures and their names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Normalize;

/// An architecture, by its name in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Architecture {
    /// `resnet18`, `resnet34` or `resnet50`: ResNet with the CIFAR stem.
    ResNet {
        /// The number of layers.
        depth: u32,
    },
    /// `torchvision-resnet18`, `-34` or `-50`: ResNet with the ImageNet stem, under torchvision's names.
    TorchvisionResNet {
        /// The number of layers.
        depth: u32,
    },
    /// `preact-resnet18`: ResNet-18 with pre-activation blocks. The endings of the name select two variants.
    PreActResNet18 {
        /// The input of the shortcuts where shapes change: the raw input of the block (`-raw`), or the normalised and
        /// activated one.
        raw_shortcut: bool,
        /// Whether batch norm and ReLU precede the final average; `-no-last-norm` leaves them out.
        last_norm: bool,
    },
    /// `mobilenet-v2`: MobileNetV2 with strides for CIFAR.
    MobileNetV2,
    /// `resnet8`: three residual blocks of 16, 32 and 64 channels behind a stem of stride 2; for runs on CPUs.
    ResNet8,
    /// `convnet`: four convolutions without batch norm; for trials and tests.
    ConvNet,
    /// `wrn-DEPTH-WIDTH`, for instance `wrn-34-10`: WideResNet.
    WideResNet {
        /// Number of layers, 6 n + 4.
        depth: u32,
        /// Multiple of 16 channels.
        width: u32,
    },
    /// `dm-wrn-DEPTH-WIDTH`, for instance `dm-wrn-28-10`: WideResNet in DeepMind's form, with SiLU, or with ReLU
    /// (`-relu`).
    DeepMindWideResNet {
        /// Number of layers, 6 n + 4.
        depth: u32,
        /// Multiple of 16 channels.
        width: u32,
        /// The activation after each batch norm.
        activation: Activation,
    },
    /// `dm-preact-resnet18`: PreActResNet-18 in DeepMind's form, with SiLU, or with ReLU (`-relu`).
    DeepMindPreActResNet18 {
        /// The activation after each batch norm.
        activation: Activation,
    },
}

/// The activation after a batch norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x times its logistic function, also called Swish.
    Silu,
}

/// The depths of named ResNets.
pub const RESNET_DEPTHS: [u32; 3] = [18, 34, 50];

impl Architecture {
    /// The spellings, for messages.
    pub const NAMES: &'static str = "resnet18, resnet34, resnet50, torchvision-resnet18 (34, 50), preact-resnet18 \
                                     (-raw, -no-last-norm), mobilenet-v2, resnet8, convnet, wrn-DEPTH-WIDTH (as in \
                                     wrn-34-10), dm-wrn-DEPTH-WIDTH or dm-preact-resnet18 (-relu)";

    /// One name of each kind, for suggestions to mistyped names.
    pub const EXAMPLES: [&'static str; 13] = [
        "resnet18",
        "resnet34",
        "resnet50",
        "torchvision-resnet18",
        "preact-resnet18",
        "mobilenet-v2",
        "resnet8",
        "convnet",
        "wrn-34-10",
        "wrn-28-10",
        "dm-wrn-28-10",
        "dm-wrn-34-20",
        "dm-preact-resnet18",
    ];

    /// The smallest height and width of images whose last map is not empty.
    pub fn smallest_image(self) -> usize {
        match self {
            Architecture::WideResNet { .. } | Architecture::DeepMindWideResNet { .. } => 4,
            _ => 8,
        }
    }

    /// The default normalisation of the architecture.
    pub fn usual_normalize(self) -> Normalize {
        match self {
            Architecture::PreActResNet18 { raw_shortcut: false, last_norm: true } => Normalize::TINY_IMAGENET,
            _ => Normalize::None,
        }
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let unknown = || format!("unknown network {name:?}; expected {}", Self::NAMES);
        let resnet_depth =
            |text: &str| text.parse().ok().filter(|depth| RESNET_DEPTHS.contains(depth)).ok_or_else(unknown);
        match name {
            "mobilenet-v2" => return Ok(Architecture::MobileNetV2),
            "resnet8" => return Ok(Architecture::ResNet8),
            "convnet" => return Ok(Architecture::ConvNet),
            _ => {}
        }
        if let Some(depth) = name.strip_prefix("resnet") {
            return Ok(Architecture::ResNet { depth: resnet_depth(depth)? });
        }
        if let Some(depth) = name.strip_prefix("torchvision-resnet") {
            return Ok(Architecture::TorchvisionResNet { depth: resnet_depth(depth)? });
        }
        if let Some(rest) = name.strip_prefix("preact-resnet18") {
            let (raw_shortcut, last_norm) = match rest {
                "" => (false, true),
                "-raw" => (true, true),
                "-no-last-norm" => (false, false),
                "-raw-no-last-norm" => (true, false),
                _ => return Err(unknown()),
            };
            return Ok(Architecture::PreActResNet18 { raw_shortcut, last_norm });
        }
        let Some(deepmind) = name.strip_prefix("dm-") else {
            let (depth, width) = depth_and_width(name, name)?;
            return Ok(Architecture::WideResNet { depth, width });
        };
        let (deepmind, activation) = match deepmind.strip_suffix("-relu") {
            Some(rest) => (rest, Activation::Relu),
            None => (deepmind, Activation::Silu),
        };
        if deepmind == "preact-resnet18" {
            return Ok(Architecture::DeepMindPreActResNet18 { activation });
        }
        let (depth, width) = depth_and_width(deepmind, name)?;
        Ok(Architecture::DeepMindWideResNet { depth, width, activation })
    }
}

/// Depth and width in `wrn-DEPTH-WIDTH`, the whole or the end of the user's name.
fn depth_and_width(wide: &str, name: &str) -> Result<(u32, u32), String> {
    let unknown = || format!("unknown network {name:?}; expected {}", Architecture::NAMES);
    let (depth, width) = wide.strip_prefix("wrn-").and_then(|rest| rest.split_once('-')).ok_or_else(unknown)?;
    let (depth, width): (u32, u32) = depth.parse().ok().zip(width.parse().ok()).ok_or_else(unknown)?;
    if depth < 10 || (depth - 4) % 6 != 0 || depth > 1000 || !(1..=64).contains(&width) {
        return Err(format!("{name:?}: a WideResNet has 6 n + 4 layers (10, 16, .. 34, ..) and width 1 to 64"));
    }
    Ok((depth, width))
}

impl fmt::Display for Architecture {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relu = |activation: &Activation| if *activation == Activation::Relu { "-relu" } else { "" };
        match self {
            Architecture::ResNet { depth } => write!(out, "resnet{depth}"),
            Architecture::TorchvisionResNet { depth } => write!(out, "torchvision-resnet{depth}"),
            Architecture::PreActResNet18 { raw_shortcut, last_norm } => {
                let raw = if *raw_shortcut { "-raw" } else { "" };
                let last = if *last_norm { "" } else { "-no-last-norm" };
                write!(out, "preact-resnet18{raw}{last}")
            }
            Architecture::MobileNetV2 => write!(out, "mobilenet-v2"),
            Architecture::ResNet8 => write!(out, "resnet8"),
            Architecture::ConvNet => write!(out, "convnet"),
            Architecture::WideResNet { depth, width } => write!(out, "wrn-{depth}-{width}"),
            Architecture::DeepMindWideResNet { depth, width, activation } => {
                write!(out, "dm-wrn-{depth}-{width}{}", relu(activation))
            }
            Architecture::DeepMindPreActResNet18 { activation } => {
                write!(out, "dm-preact-resnet18{}", relu(activation))
            }
        }
    }
}

impl TryFrom<String> for Architecture {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<Architecture> for String {
    fn from(architecture: Architecture) -> String {
        architecture.to_string()
    }
}
