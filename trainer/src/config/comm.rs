//! `[comm]`: the transport of gradients between ranks. It changes results by rounding only.

use datasets::UserError;
use serde::{Deserialize, Serialize};

use super::range::must;

/// `[comm]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Comm {
    /// The transport of gradients and of batch norm's sums.
    pub backend: Backend,
    /// The size of a gradient bucket in MiB. A bucket's all-reduce starts when the backward pass has filled it.
    pub bucket_mib: f64,
    /// The type in which gradients are sent.
    pub gradient_dtype: GradientDtype,
    /// For tests of the program only: several NCCL ranks share a GPU, slowly and through sockets.
    pub share_gpus: bool,
    /// Whether `precision.cuda_graphs` records the sums over the ranks with the rest of the step.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_graphs: bool,
    /// Whether small sums in float32 or bfloat16 go through NCCL's symmetric windows, where all ranks can have one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub windows: bool,
}

impl Default for Comm {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            bucket_mib: 8.0,
            gradient_dtype: GradientDtype::Parameters,
            share_gpus: false,
            in_graphs: false,
            windows: false,
        }
    }
}

/// Transports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// NCCL between GPUs, MPI between CPUs.
    #[default]
    Auto,
    /// NCCL; every rank needs a GPU.
    Nccl,
    /// MPI; tensors of GPUs pass through host memory.
    Mpi,
}

/// The type of gradients in transit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientDtype {
    /// The type of the parameters.
    #[default]
    Parameters,
    /// Half the bytes, 8 bits of precision; NCCL only.
    Bfloat16,
}

impl Comm {
    /// Checks the values.
    pub(super) fn check(&self) -> Result<(), UserError> {
        let mib = self.bucket_mib;
        must(mib > 0.0 && mib <= 4096.0, "comm.bucket_mib", mib, "a size above 0 and up to 4,096 MiB")
    }
}
