//! Number formats and the layout of images.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// `[precision]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Precision {
    /// What the other keys are unless they are stated, and whether float32 convolutions may use TF32.
    #[serde(skip_serializing_if = "Named::is_default")]
    pub name: Named,
    /// The number format of training.
    pub dtype: Dtype,
    /// Whether images and maps are channels-last in memory.
    pub channels_last: bool,
    /// Whether a GPU replays captured steps as CUDA graphs.
    pub cuda_graphs: bool,
    /// Whether a GPU computes with this program's fused kernels where they fit.
    #[serde(skip_serializing_if = "Fused::is_default")]
    pub fused: Fused,
}

/// Whether fused kernels are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "true, false or \"auto\"")]
pub enum Fused {
    /// As stated.
    Stated(bool),
    /// As measurements advise.
    Named(Auto),
}

/// The word for what measurements advise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// No kernel has been measured on a GPU yet (docs/gpu), so none is used.
    Auto,
}

impl Default for Fused {
    fn default() -> Self {
        Self::Named(Auto::Auto)
    }
}

impl Fused {
    /// Whether it is the default, which a resolved configuration does not write.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether kernels are used.
    pub fn is_on(self) -> bool {
        self == Self::Stated(true)
    }
}

/// Precisions by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// What PyTorch does by default: float32, and on GPUs TF32 in convolutions, but not in products of matrices.
    #[default]
    Reference,
    /// Float32 throughout, on every device.
    Strict,
    /// On GPUs bfloat16, channels last and CUDA graphs; on CPUs float32, channels last.
    Fast,
}

impl Named {
    /// Whether it is the default, which a resolved configuration does not write.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn word(self) -> &'static str {
        match self {
            Named::Reference => "reference",
            Named::Strict => "strict",
            Named::Fast => "fast",
        }
    }

    /// The keys that the name stands for.
    fn keys(self) -> Precision {
        let fast = self == Named::Fast;
        let dtype = if fast { Dtype::Auto } else { Dtype::Float32 };
        Precision { name: self, dtype, channels_last: fast, cuda_graphs: fast, fused: Fused::default() }
    }
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
    /// `bfloat16` on a GPU, `float32` on a CPU.
    Auto,
}

impl Precision {
    /// The precision on a GPU or a CPU: with a type that is not `auto`. On a CPU `auto` asks for no graphs.
    pub fn on(self, gpu: bool) -> Self {
        match (self.dtype, gpu) {
            (Dtype::Auto, true) => Self { dtype: Dtype::Bfloat16, ..self },
            (Dtype::Auto, false) => Self { dtype: Dtype::Float32, cuda_graphs: false, ..self },
            _ => self,
        }
    }

    /// Whether GPUs may round the factors of float32 convolutions to TF32.
    pub fn rounds_convolutions(self) -> bool {
        self.rounds_matrices() || self.dtype == Dtype::Float32 && self.name != Named::Strict
    }

    /// Whether GPUs may round the factors of other float32 products to TF32.
    pub fn rounds_matrices(self) -> bool {
        self.dtype == Dtype::Tf32
    }

    /// What is computed in on a GPU or a CPU, as in `reference: float32, convolutions in TF32`. Keys that are no name's stand
    /// alone.
    pub fn in_words(self, gpu: bool) -> String {
        let on = self.on(gpu);
        let dtype = match on.dtype {
            Dtype::Float32 if gpu && on.rounds_convolutions() => "float32, convolutions in TF32",
            Dtype::Tf32 if gpu => "float32, products in TF32",
            Dtype::Float32 | Dtype::Tf32 | Dtype::Auto => "float32",
            Dtype::Bfloat16 => "bfloat16",
            Dtype::Float64 => "float64",
        };
        let fused = (on.fused.is_on() && gpu, ", fused kernels");
        let also = [(on.channels_last, ", channels last"), (on.cuda_graphs, ", CUDA graphs"), fused];
        let also: String = also.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        let name = if self == self.name.keys() { format!("{}: ", self.name.word()) } else { String::new() };
        format!("{name}{dtype}{also}")
    }
}

/// Makes a table of `precision = "NAME"`.
pub(super) fn spell_out_name(table: &mut Table) {
    if let Some(name @ Value::String(_)) = table.get("precision").cloned() {
        table.insert("precision".into(), Table::from_iter([("name".to_string(), name)]).into());
    }
}

/// Sets the keys that `precision.name` stands for and that are not stated.
pub(super) fn insert_keys(table: &mut Table) {
    let Some(precision) = table.get_mut("precision").and_then(Value::as_table_mut) else { return };
    if precision.get("name").and_then(Value::as_str) == Some(Named::Fast.word()) {
        let Precision { dtype, channels_last, cuda_graphs, .. } = Named::Fast.keys();
        precision.entry("dtype").or_insert(dtype.name().into());
        precision.entry("channels_last").or_insert(channels_last.into());
        precision.entry("cuda_graphs").or_insert(cuda_graphs.into());
    }
}

impl Dtype {
    /// Whether it is single precision.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The format of an evaluation that asks for `precision`, of a network trained in this one.
    pub fn evaluated_in(self, precision: Dtype) -> Dtype {
        if precision.is_default() { self.of_evaluation() } else { precision }
    }

    /// The format in which networks trained in this one are evaluated: at least full single precision.
    pub fn of_evaluation(self) -> Dtype {
        match self {
            Dtype::Float32 | Dtype::Tf32 | Dtype::Bfloat16 | Dtype::Auto => Dtype::Float32,
            Dtype::Float64 => Dtype::Float64,
        }
    }

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Float32 => "float32",
            Dtype::Tf32 => "tf32",
            Dtype::Bfloat16 => "bfloat16",
            Dtype::Float64 => "float64",
            Dtype::Auto => "auto",
        }
    }
}

#[cfg(test)]
mod tests;
