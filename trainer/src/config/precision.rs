//! Number formats and the layout of images.

use serde::{Deserialize, Serialize};

/// `[precision]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Precision {
    /// The number format of training.
    pub dtype: Dtype,
    /// Whether images and maps are channels-last in memory.
    pub channels_last: bool,
    /// Whether a GPU replays captured steps as CUDA graphs.
    pub cuda_graphs: bool,
}

/// Number formats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// Single precision.
    #[default]
    Float32,
    /// Single precision; GPUs may round factors of products to TF32.
    Tf32,
    /// Forward passes in bfloat16 where that is safe; parameters, losses and everything else in single precision.
    Bfloat16,
    /// Double precision, for comparisons.
    Float64,
}

impl Dtype {
    /// Whether it is single precision.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Float32 => "float32",
            Dtype::Tf32 => "tf32",
            Dtype::Bfloat16 => "bfloat16",
            Dtype::Float64 => "float64",
        }
    }

    /// The format of an evaluation that asks for `precision`, of a network trained in this one.
    pub fn evaluated_in(self, precision: Dtype) -> Dtype {
        if precision.is_default() { self.of_evaluation() } else { precision }
    }

    /// The format in which networks trained in this one are evaluated: at least full single precision.
    pub fn of_evaluation(self) -> Dtype {
        match self {
            Dtype::Float32 | Dtype::Tf32 | Dtype::Bfloat16 => Dtype::Float32,
            Dtype::Float64 => Dtype::Float64,
        }
    }
}
