//! `[comm]`: how gradients travel between ranks. None of it changes what is computed but for rounding.

use comm::Communicator;
use datasets::UserError;
use serde::{Deserialize, Serialize};
use tch::Kind;

use super::check::must;

/// `[comm]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Comm {
    /// The transport of gradients and of batch norm's sums.
    pub backend: Backend,
    /// The size of a bucket of gradients, in MiB. A bucket's sum starts when backward has filled it.
    pub bucket_mib: f64,
    /// The type in which gradients travel.
    pub gradient_dtype: GradientDtype,
    /// For tests of the program alone: several NCCL ranks may share a GPU, through sockets and slowly.
    pub share_gpus: bool,
}

impl Default for Comm {
    fn default() -> Self {
        Self { backend: Backend::Auto, bucket_mib: 8.0, gradient_dtype: GradientDtype::Parameters, share_gpus: false }
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
    /// MPI; GPUs' tensors travel through the memory of the host.
    Mpi,
}

impl From<Backend> for comm::Backend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Auto => Self::Auto,
            Backend::Nccl => Self::Nccl,
            Backend::Mpi => Self::Mpi,
        }
    }
}

/// The type of gradients on their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientDtype {
    /// That of the parameters.
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
    /// Whether the transport between `ranks` can do what is asked of it.
    ///
    /// # Errors
    /// Gradients in a type that it does not add up.
    pub fn check_transport(&self, ranks: &dyn Communicator) -> Result<(), UserError> {
        let travels = self.gradient_dtype == GradientDtype::Parameters || ranks.sums(Kind::BFloat16);
        must(travels, "comm.gradient_dtype", "bfloat16", "\"parameters\": MPI has no sum of bfloat16, NCCL has")
            .map_err(|error| error.hint("leave comm.gradient_dtype out, or run on GPUs with comm.backend = \"nccl\""))
    }

    /// The number of values of type `kind` that fill a bucket, at least one.
    pub(crate) fn bucket_values(&self, kind: Kind) -> usize {
        let bytes = self.bucket_mib * f64::from(1 << 20);
        (bytes as usize / kind.elt_size_in_bytes()).max(1)
    }

    /// The type in which gradients of type `kind` travel between `ranks`, where it is another one.
    pub(crate) fn travelling(&self, kind: Kind, ranks: &dyn Communicator) -> Option<Kind> {
        let narrow = self.gradient_dtype == GradientDtype::Bfloat16 && ranks.world_size() > 1;
        (narrow && kind != Kind::BFloat16).then_some(Kind::BFloat16)
    }
}
