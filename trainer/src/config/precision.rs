//! Number formats and the layout of images.

use serde::{Deserialize, Serialize};
use tch::Kind;

/// `[precision]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Precision {
    /// The numbers that training computes with.
    pub dtype: Dtype,
    /// Whether images and maps lie in memory pixel by pixel (all channels of one together) instead of channel by channel.
    pub channels_last: bool,
    /// Whether a GPU replays steps that are recorded once, instead of being given each operation by the host.
    pub cuda_graphs: bool,
}

/// Number formats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// Single precision.
    #[default]
    Float32,
    /// Single precision whose products GPUs may round to TF32.
    Tf32,
    /// Forward passes in bfloat16 where that is safe; parameters, losses and everything else in single precision.
    Bfloat16,
    /// Double precision, for comparisons.
    Float64,
}

impl Dtype {
    /// The type of parameters, their gradients, images and losses.
    pub fn kind(self) -> Kind {
        match self {
            Dtype::Float32 | Dtype::Tf32 | Dtype::Bfloat16 => Kind::Float,
            Dtype::Float64 => Kind::Double,
        }
    }

    /// What networks trained in it are measured with: never less than full single precision.
    pub fn of_evaluation(self) -> Dtype {
        match self {
            Dtype::Float32 | Dtype::Tf32 | Dtype::Bfloat16 => Dtype::Float32,
            Dtype::Float64 => Dtype::Float64,
        }
    }
}
