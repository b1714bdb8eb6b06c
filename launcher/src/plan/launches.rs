//! What the host gives to each GPU in a step, and how long that takes it at least.

use anyhow::Result;
use serde::Serialize;
use trainer::bench::launches::{Launches, Statistics, StepLaunches};
use trainer::config::{AcrossRanks, Backend, Dtype, RunConfig};

use super::numbers::Numbers;

/// Seconds of the host for a kernel that it launches, for one of a CUDA graph, and for a sum over the ranks with its events: all
/// assumed, none measured.
const CALLED: f64 = 5e-6;
const RECORDED: f64 = 2.5e-6;
const SUM: f64 = 15e-6;

/// The kernels of a step on each GPU in the last epoch, without those of sums: counted operations times the kernels of each.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Kernels {
    pub(super) all: f64,
    /// Of these, in the last backward passes to the parameters.
    pub(super) in_backward: f64,
    /// Where batch norm measures all ranks: without `batch_norm.fused`, and with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_fused_and_fused: Option<[f64; 2]>,
    /// Whether they are in a CUDA graph.
    pub(super) recorded: bool,
}

/// The kernels of steps from each epoch on at which the work of a step changes.
pub(super) struct Counted {
    steps: Vec<StepLaunches>,
    statistics: Statistics,
    recorded: bool,
}

impl Counted {
    /// Those of `config` on so many GPUs.
    ///
    /// # Errors
    /// A step that cannot be counted.
    pub(super) fn of(config: &RunConfig, numbers: &Numbers, ranks: usize) -> Result<Self> {
        let epochs: Vec<u64> = numbers.work.iter().map(|work| work.from_epoch).collect();
        let sync = ranks > 1 && config.batch_norm.across_ranks == AcrossRanks::Sync;
        let statistics = match (sync, config.batch_norm.fused) {
            (false, _) => Statistics::Own,
            (true, false) => Statistics::Exact,
            (true, true) => Statistics::Fused,
        };
        let precision = config.precision.on(true);
        let sums_within = sync || (ranks > 1 && (config.loss.exchanges() || config.awp.is_some()));
        // As the recorder decides: in double precision the update is no part of a graph, nor are sums.
        let fits = match config.comm.in_graphs && precision.dtype != Dtype::Float64 {
            true => config.comm.backend != Backend::Mpi,
            false => !sums_within,
        };
        let recorded = precision.cuda_graphs && fits && config.not_recordable().is_none();
        Ok(Self { steps: StepLaunches::count(config, numbers.form, &epochs)?, statistics, recorded })
    }

    /// Those of the last epoch.
    pub(super) fn last(&self) -> Option<Kernels> {
        let last = self.steps.last()?;
        let all = |statistics| last.of(statistics).all().round();
        let not_fused_and_fused =
            (self.statistics != Statistics::Own).then(|| [Statistics::Exact, Statistics::Fused].map(all));
        let in_backward = last.of(self.statistics).backward.round();
        Some(Kernels { all: all(self.statistics), in_backward, not_fused_and_fused, recorded: self.recorded })
    }

    /// The least seconds of the host before and in the last backward pass of the steps of this place, with so many sums in each.
    pub(super) fn seconds(&self, place: usize, sums: [usize; 2]) -> [f64; 2] {
        let Launches { before, backward } = self.steps[place].of(self.statistics);
        let kernel = if self.recorded { RECORDED } else { CALLED };
        [before * kernel + sums[0] as f64 * SUM, backward * kernel + sums[1] as f64 * SUM]
    }
}

/// What is assumed of the host, in words.
pub(super) fn assumed() -> String {
    format!(
        "the host takes at least {} us for a kernel ({} us in a CUDA graph) and {} us for a sum, assumed",
        1e6 * CALLED,
        1e6 * RECORDED,
        1e6 * SUM
    )
}
