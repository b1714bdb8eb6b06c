//! What every data set is to the rest of the framework: numbered images with labels.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;

use crate::{Draws, Purpose};

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
}

/// Chosen samples of another source: its sample `i` is sample `samples[i]` of the inner one.
pub struct Subset {
    inner: Arc<dyn Source>,
    samples: Vec<usize>,
}

impl Subset {
    /// The `samples` of `inner`, in the order given.
    ///
    /// # Panics
    /// When a sample is not below `inner.len()`.
    pub fn new(inner: Arc<dyn Source>, samples: Vec<usize>) -> Self {
        let count = inner.len();
        assert!(
            samples.iter().all(|&sample| sample < count),
            "a subset names a sample beyond the {count} of its source"
        );
        Self { inner, samples }
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.inner.shape()
    }

    fn class_names(&self) -> &[String] {
        self.inner.class_names()
    }

    fn label(&self, sample: usize) -> i64 {
        self.inner.label(self.samples[sample])
    }

    fn read(&self, sample: usize, image: &mut [u8]) -> Result<()> {
        let count = self.len();
        let inner = *self.samples.get(sample).ok_or_else(|| anyhow::anyhow!("sample {sample} of {count}"))?;
        self.inner.read(inner, image)
    }
}

/// Splits `0..len` at random into samples kept and samples held out, both ascending.
///
/// The same `seed` gives the same split. `len * fraction` samples, rounded, are held out, and at least one; with
/// fewer than two samples to divide, the kept part can be empty.
pub fn hold_out(len: usize, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let count = ((len as f64 * fraction).round() as usize).clamp(len.min(1), len);
    let chosen: BTreeSet<usize> =
        Draws::new(seed, Purpose::HoldOut, 0).permutation(len).into_iter().take(count).collect();
    let kept = (0..len).filter(|sample| !chosen.contains(sample)).collect();
    (kept, chosen.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Memory, numbered};

    #[test]
    fn holding_out_divides_the_samples() {
        for (len, fraction, expected) in [(1000, 0.02, 20), (10, 0.01, 1), (3, 0.5, 2), (1, 0.1, 1), (0, 0.5, 0)] {
            let (kept, held_out) = hold_out(len, fraction, 7);
            assert_eq!(held_out.len(), expected);
            assert!(kept.is_sorted() && held_out.is_sorted());
            let mut all = [kept, held_out].concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..len));
        }
        assert_eq!(hold_out(1000, 0.02, 7), hold_out(1000, 0.02, 7));
        assert_ne!(hold_out(1000, 0.02, 7), hold_out(1000, 0.02, 8));
    }

    #[test]
    fn a_subset_renumbers_its_samples() -> Result<()> {
        let inner = Arc::new(numbered(10, [1, 2, 2]));
        let subset = Subset::new(inner.clone(), vec![7, 2]);
        assert_eq!((subset.len(), subset.shape(), subset.class_names()), (2, [1, 2, 2], inner.class_names()));
        assert_eq!([subset.label(0), subset.label(1)], [inner.label(7), inner.label(2)]);
        let mut image = [0; 4];
        subset.read(0, &mut image)?;
        assert_eq!(image[0], 7);
        assert!(subset.read(2, &mut image).is_err());
        Ok(())
    }

    #[test]
    #[should_panic(expected = "beyond the 3 of its source")]
    fn a_subset_of_missing_samples_is_refused() {
        let inner: Memory = numbered(3, [1, 1, 1]);
        Subset::new(Arc::new(inner), vec![3]);
    }
}
