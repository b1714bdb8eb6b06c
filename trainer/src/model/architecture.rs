//! The names of networks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The networks there are, by their names in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Architecture {
    /// `resnet18`: ResNet-18 with the CIFAR stem.
    ResNet18,
    /// `preact-resnet18`: ResNet-18 with pre-activation blocks, its input normalised inside.
    PreActResNet18,
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
}

impl Architecture {
    /// The spellings, for messages.
    pub const NAMES: &'static str =
        "resnet18, preact-resnet18, mobilenet-v2, resnet8, convnet or wrn-DEPTH-WIDTH (as in wrn-34-10)";

    /// The smallest height and width of images that leave something to pool.
    pub fn smallest_image(self) -> usize {
        match self {
            Architecture::WideResNet { .. } => 4,
            _ => 8,
        }
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let unknown = || format!("unknown network {name:?}; expected {}", Self::NAMES);
        match name {
            "resnet18" => Ok(Architecture::ResNet18),
            "preact-resnet18" => Ok(Architecture::PreActResNet18),
            "mobilenet-v2" => Ok(Architecture::MobileNetV2),
            "resnet8" => Ok(Architecture::ResNet8),
            "convnet" => Ok(Architecture::ConvNet),
            _ => {
                let (depth, width) =
                    name.strip_prefix("wrn-").and_then(|rest| rest.split_once('-')).ok_or_else(unknown)?;
                let (depth, width): (u32, u32) = depth.parse().ok().zip(width.parse().ok()).ok_or_else(unknown)?;
                if depth < 10 || (depth - 4) % 6 != 0 || depth > 1000 || !(1..=64).contains(&width) {
                    return Err(format!(
                        "{name:?}: a WideResNet has 6 n + 4 layers (10, 16, .. 34, ..) and width 1 to 64"
                    ));
                }
                Ok(Architecture::WideResNet { depth, width })
            }
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Architecture::ResNet18 => write!(out, "resnet18"),
            Architecture::PreActResNet18 => write!(out, "preact-resnet18"),
            Architecture::MobileNetV2 => write!(out, "mobilenet-v2"),
            Architecture::ResNet8 => write!(out, "resnet8"),
            Architecture::ConvNet => write!(out, "convnet"),
            Architecture::WideResNet { depth, width } => write!(out, "wrn-{depth}-{width}"),
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
