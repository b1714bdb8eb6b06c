//! What every data set is to the rest of the framework: numbered images with labels.

use anyhow::{Context, Result};

/// A split of a data set: `u8` images of shape `[channels, height, width]` and their labels.
pub trait Source: Send + Sync {
    /// How many samples there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels, height and width of every image.
    fn shape(&self) -> [usize; 3];

    /// The names of the classes; as many as there are classes.
    fn class_names(&self) -> &[String];

    /// The class of `sample`, in `0..class_names().len()`. `sample` must be below `len()`.
    fn label(&self, sample: usize) -> i64;

    /// Copies the pixels of `sample` (channels x height x width bytes, channel by channel, row by row) into `image`.
    ///
    /// Fails when there is no such sample, when `image` has another length, or when its pixels cannot be read.
    fn read(&self, sample: usize, image: &mut [u8]) -> Result<()>;

    /// Reads many samples, each into the slice beside its number, in whatever order is fastest.
    ///
    /// Fails as `read` does, with some of the images read.
    fn read_all(&self, wanted: &mut [(usize, &mut [u8])]) -> Result<()> {
        wanted.iter_mut().try_for_each(|(sample, image)| {
            self.read(*sample, image).with_context(|| format!("reading sample {sample}"))
        })
    }
}
