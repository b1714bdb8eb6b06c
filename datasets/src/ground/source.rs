//! The interface of every data set: numbered images with labels.

use anyhow::{Context, Result};

/// A split of a data set: `u8` images of shape `[channels, height, width]` and their labels.
pub trait Source: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether the source has no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels, height and width of every image.
    fn shape(&self) -> [usize; 3];

    /// The name of each class, in the order of the labels.
    fn class_names(&self) -> &[String];

    /// The class of `sample`, in `0..class_names().len()`. `sample` must be below `len()`.
    fn label(&self, sample: usize) -> i64;

    /// Copies the pixels of `sample` (channels x height x width bytes, channel by channel, row by row) into `image`.
    ///
    /// Fails if the sample does not exist, if `image` has another length, or if the pixels cannot be read.
    fn read(&self, sample: usize, image: &mut [u8]) -> Result<()>;

    /// Reads many samples, each into the slice beside its number, in the fastest order.
    ///
    /// Fails as `read` does; some images may have been read by then.
    fn read_all(&self, wanted: &mut [(usize, &mut [u8])]) -> Result<()> {
        wanted.iter_mut().try_for_each(|(sample, image)| {
            self.read(*sample, image).with_context(|| format!("reading sample {sample}"))
        })
    }
}

/// The number of samples of each class.
pub fn per_class(source: &dyn Source) -> Vec<usize> {
    let mut counts = vec![0; source.class_names().len()];
    for sample in 0..source.len() {
        counts[source.label(sample) as usize] += 1;
    }
    counts
}
