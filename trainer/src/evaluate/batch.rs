//! Batches of a fixed number of rows.

use anyhow::Result;
use datasets::{HostBatch, Source};
use tch::{Device, Kind};

use crate::step::batch::Batch;

/// Reads `samples` and fills the batch up to `rows` with copies of the first one.
///
/// # Errors
/// Images that cannot be read.
pub fn read_filled(
    source: &dyn Source,
    samples: &[usize],
    rows: usize,
    (kind, device): (Kind, Device),
) -> Result<Batch> {
    let bytes = source.shape().iter().product();
    let mut host = HostBatch { images: vec![0; rows * bytes], global_count: source.len(), ..HostBatch::default() };
    for (row, image) in host.images.chunks_mut(bytes).enumerate() {
        let sample = samples.get(row).copied().unwrap_or(samples[0]);
        source.read(sample, image)?;
        host.labels.push(source.label(sample));
        host.samples.push(sample as u64);
    }
    Ok(Batch::upload(&host, source.shape(), kind, device))
}
