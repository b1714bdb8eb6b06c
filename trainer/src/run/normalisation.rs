//! Refuses batches whose normalisation is undefined: batch norm needs two values of each channel for a variance.

use anyhow::Result;
use datasets::UserError;
use tch::{Device, Kind, Tensor, no_grad};

use crate::config::{AcrossRanks, BatchSize};
use crate::model::{Mode, Model, ModelSpec};
use crate::run::context::RunContext;

/// Refuses a batch size with which a batch norm would see one value of each channel.
///
/// # Errors
/// A [`UserError`] that names the batch size.
pub(super) fn check(context: &RunContext) -> Result<()> {
    let (config, ranks) = (context.config, context.ranks().world_size());
    let global = context.global_batch();
    // Images of another container fill every batch up.
    let images = if context.prepared.extra.is_some() { global } else { context.prepared.train.len() };
    let apart = if config.batch_norm.across_ranks == AcrossRanks::Local { ranks } else { 1 };
    if smallest(images, global, &config.batch, apart) > 1 || is_defined_for_one_image(context.prepared.form) {
        return Ok(());
    }
    let last = if images.is_multiple_of(global) { global } else { images % global };
    let shared = match (config.batch.accumulate, apart) {
        (1, 1) => String::new(),
        (parts, 1) => format!(", in {parts} parts"),
        (1, ranks) => format!(", on {ranks} ranks apart"),
        (parts, ranks) => format!(", in {parts} parts on {ranks} ranks apart"),
    };
    Err(UserError::expected("batches that give batch norm two values of each channel or more; one has no variance")
        .file(&config.data.train)
        .key("batch.size")
        .value(format!("{}: {images} training images end with a batch of {last}{shared}", config.batch.size))
        .hint("choose a batch.size that leaves a larger last batch, or fewer parts (batch.accumulate)")
        .into())
}

/// The least images that any batch norm of an epoch sees at once, where the shares of `apart` ranks are normalised apart.
fn smallest(images: usize, global: usize, batch: &BatchSize, apart: usize) -> usize {
    let last = images % global;
    let sizes = [Some(global).filter(|_| images >= global), Some(last).filter(|last| *last > 0)];
    let share = |size: usize| size / batch.accumulate.min(size).max(1) / apart;
    // A rank whose share is empty normalises nothing, but then another one has a single image.
    sizes.into_iter().flatten().map(|size| share(size).max(1)).min().unwrap_or(1)
}

/// Whether the batch norms of a network see more than one value of each channel in a single image.
fn is_defined_for_one_image(form: ModelSpec) -> bool {
    let model = Model::build(form, 0, Kind::Float, Device::Cpu, None);
    if model.statistics.is_empty() {
        return true;
    }
    let [channels, height, width] = form.image.map(|size| size as i64);
    let image = Tensor::zeros([1, channels, height, width], tch::kind::FLOAT_CPU);
    let _ = no_grad(|| model.logits(&image, Mode::Train));
    // The variance of one value is a division by zero.
    bool::try_from(model.flat_statistics.isfinite().all()).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Per;

    #[test]
    fn the_smallest_share_is_that_of_the_last_batch_or_of_a_part() {
        let batch = |accumulate| BatchSize { size: 16, per: Per::Global, accumulate };
        for (images, parts, apart, expected) in [
            (32, 1, 1, 16),
            (33, 1, 1, 1),
            (34, 1, 1, 2),
            (34, 1, 3, 1),
            (38, 1, 3, 2),
            (36, 3, 1, 1),
            (5, 1, 1, 5),
            (32, 8, 2, 1),
        ] {
            assert_eq!(
                smallest(images, 16, &batch(parts), apart),
                expected,
                "{images} images, {parts} parts, {apart} ranks"
            );
        }
    }

    #[test]
    fn small_images_alone_are_undefined_and_networks_without_batch_norm_are_not() {
        let defined = |name: &str, size: usize| {
            is_defined_for_one_image(ModelSpec::new(name.parse().unwrap(), [3, size, size], 4))
        };
        assert!(!defined("resnet18", 8) && defined("resnet18", 16) && defined("convnet", 16));
    }
}
