//! Running statistics of batch norm over ranks and over epochs.

use anyhow::Result;
use comm::Communicator;
use tch::{Kind, no_grad};

use crate::batch::Batch;
use crate::model::{Mode, Model};

/// Makes the running statistics the mean over the ranks, weighted by their samples of `batch`. With batch norm across ranks
/// they are equal already.
///
/// # Errors
/// A failure of the transport.
pub fn average_over_ranks(model: &Model, batch: &Batch, ranks: &dyn Communicator) -> Result<()> {
    if ranks.world_size() == 1 || model.statistics.is_empty() || model.across_ranks {
        return Ok(());
    }
    let share = batch.labels.numel() as f64 / batch.global_count as f64;
    let _ = no_grad(|| model.flat_statistics.shallow_clone().g_mul_scalar_(share));
    ranks.start_sum(&model.flat_statistics)?;
    ranks.finish_sums()
}

/// Measures the running statistics anew, as their plain mean over `batches` of natural images (`update_bn` of
/// torch.optim.swa_utils). Returns false if `proceed` said so between two batches.
///
/// # Errors
/// A failure to read images or of the transport.
pub fn measure(
    model: &Model,
    batches: impl Iterator<Item = Result<Batch>>,
    ranks: &dyn Communicator,
    mut proceed: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    if model.statistics.is_empty() {
        return Ok(true);
    }
    let mut statistics = model.flat_statistics.shallow_clone();
    let mut sum = statistics.to_kind(Kind::Double).zeros_like();
    let mut count = 0;
    for batch in batches {
        if !proceed()? {
            return Ok(false);
        }
        let batch = batch?;
        // From zero, a pass leaves the batch's own statistics times the momentum.
        let _ = no_grad(|| statistics.zero_());
        let _ = no_grad(|| model.logits(&batch.images, Mode::Train));
        average_over_ranks(model, &batch, ranks)?;
        sum += statistics.to_kind(Kind::Double) / Model::STATISTICS_MOMENTUM;
        count += 1;
    }
    no_grad(|| statistics.copy_(&(sum / f64::from(count.max(1)))));
    Ok(true)
}
