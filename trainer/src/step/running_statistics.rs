//! The running statistics of batch norm: their mean over ranks, and their measurement after training.

use std::sync::Arc;

use anyhow::Result;
use comm::Communicator;
use tch::{Kind, Tensor, no_grad};

use crate::model::{Mode, Model};
use crate::step::batch::Batch;
use crate::system::summing;

/// The running statistics of a network and the number of their passes at some moment.
pub struct Statistics {
    values: Tensor,
    passes: Tensor,
}

impl Statistics {
    /// Those of `model` now.
    pub fn of(model: &Model) -> Self {
        Self { values: model.flat_statistics.copy(), passes: model.batches_tracked.copy() }
    }

    /// Gives them back to `model`.
    pub fn restore(&self, model: &Model) {
        no_grad(|| model.flat_statistics.shallow_clone().copy_(&self.values));
        no_grad(|| model.batches_tracked.shallow_clone().copy_(&self.passes));
    }

    /// Gives them back to `model` unless the step `moves` (bool scalar).
    pub fn keep(&self, model: &Model, moves: &Tensor) {
        let Model { flat_statistics: values, batches_tracked: passes, .. } = model;
        no_grad(|| {
            values.shallow_clone().copy_(&values.where_self(moves, &self.values));
            passes.shallow_clone().copy_(&passes.where_self(moves, &self.passes));
        });
    }
}

/// Replaces the running statistics by their mean over the ranks, weighted by the samples of `batch` on each.
/// Synchronised batch norm keeps them equal anyway.
///
/// # Errors
/// A failure of the transport.
pub fn average_over_ranks(model: &Model, batch: &Batch, ranks: &Arc<dyn Communicator>) -> Result<()> {
    if ranks.world_size() == 1 || model.statistics.is_empty() || model.across_ranks {
        return Ok(());
    }
    let share = batch.samples.len() as f64 / batch.global_count as f64;
    let _ = no_grad(|| model.flat_statistics.shallow_clone().g_mul_scalar_(share));
    summing::at_once(ranks, &model.flat_statistics)
}

/// Measures the running statistics again, as their plain mean over `batches` of natural images (`update_bn` of
/// torch.optim.swa_utils). Returns false if `proceed` returned false between two batches.
///
/// # Errors
/// A failure to read images or of the transport.
pub fn measure(
    model: &Model,
    batches: impl Iterator<Item = Result<Batch>>,
    ranks: &Arc<dyn Communicator>,
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
        // After one pass from zero, the statistics are the batch's own times the momentum.
        let _ = no_grad(|| statistics.zero_());
        let _ = no_grad(|| model.logits(&batch.images, Mode::Train));
        average_over_ranks(model, &batch, ranks)?;
        sum += statistics.to_kind(Kind::Double) / Model::STATISTICS_MOMENTUM;
        count += 1;
    }
    no_grad(|| statistics.copy_(&(sum / f64::from(count.max(1)))));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use comm::Single;
    use tch::Device;

    use super::*;
    use crate::model::ModelSpec;

    fn model() -> Model {
        let form = ModelSpec::new("resnet8".parse().unwrap(), [3, 16, 16], 5);
        Model::build(form, 1, Kind::Double, Device::Cpu, None)
    }

    fn single() -> Arc<dyn Communicator> {
        Arc::new(Single)
    }

    fn batch(number: i64) -> Batch {
        let values = Tensor::arange(4 * 3 * 16 * 16, (Kind::Double, Device::Cpu)) * (number + 1);
        let images = values.sin().abs().view([4, 3, 16, 16]);
        let labels = Tensor::zeros([4], (Kind::Int64, Device::Cpu));
        Batch { images, labels, samples: vec![0, 1, 2, 3], global_count: 4 }
    }

    #[test]
    fn they_are_the_mean_of_each_batchs_mean_and_unbiased_variance() {
        let model = model();
        let before = model.parameters.iter().map(|named| named.tensor.copy()).collect::<Vec<_>>();
        assert!(measure(&model, (0..3).map(|number| Ok(batch(number))), &single(), || Ok(true)).unwrap());
        let of = |name: &str| &model.tensors().find(|named| named.name == name).unwrap().tensor;
        let (mut mean, mut variance) =
            (Tensor::zeros([16], tch::kind::DOUBLE_CPU), Tensor::zeros([16], tch::kind::DOUBLE_CPU));
        for number in 0..3 {
            // The input of the first batch norm.
            let weight = of("conv1.weight").detach();
            let maps = batch(number).images.conv2d(&weight, None::<Tensor>, 2, 1, 1, 1);
            mean += maps.mean_dim([0i64, 2, 3].as_slice(), false, None) / 3.0;
            variance += maps.var_dim([0i64, 2, 3].as_slice(), true, false) / 3.0;
        }
        assert!(of("bn1.running_mean").allclose(&mean, 1e-12, 1e-12, false));
        assert!(of("bn1.running_var").allclose(&variance, 1e-12, 1e-12, false));
        assert!(before.iter().zip(&model.parameters).all(|(before, named)| before.equal(&named.tensor)));
    }

    #[test]
    fn it_ends_when_told_to() {
        let mut asked = 0;
        let proceed = || {
            asked += 1;
            Ok(asked < 3)
        };
        assert!(!measure(&model(), (0..9).map(|number| Ok(batch(number))), &single(), proceed).unwrap());
        assert_eq!(asked, 3);
    }
}
