//! Images of a second source in every batch: how many, which ones, and at which places.

use std::sync::Arc;

use anyhow::Result;

use crate::ground::random::{Draws, Purpose};
use crate::ground::source::Source;

/// A second source that gives a share of every batch.
#[derive(Clone)]
pub struct Extra {
    /// Its images. A label means the same class as in the training set.
    pub source: Arc<dyn Source>,
    /// The share, between 0 and 1.
    pub fraction: f64,
}

impl Extra {
    /// How many images of a batch of `global_batch` are a share of `fraction`, rounded to the nearest number.
    pub fn count(fraction: f64, global_batch: usize) -> usize {
        (global_batch as f64 * fraction).round() as usize
    }

    /// The images of all batches of `epoch`, each of exactly `global_batch`, one after the other. Numbers below
    /// `order.len()` are images of the training set, and `order.len() + image` is an image of this source.
    ///
    /// There are as many batches as the training set alone would fill. Each takes the next images of `order`; the others
    /// are drawn with replacement, and where `order` ends within a batch they fill it up. All is decided by seed, epoch
    /// and place, so that nothing depends on the number of ranks or on where a run is resumed.
    pub(super) fn mix(&self, order: &[usize], global_batch: usize, seed: u64, epoch: u64) -> Vec<usize> {
        let originals = global_batch.saturating_sub(Self::count(self.fraction, global_batch)).max(1);
        let [images, places] =
            [Purpose::ExtraImage, Purpose::ExtraPlace].map(|purpose| Draws::new(seed, purpose, epoch));
        let batches = order.len().div_ceil(global_batch);
        let mut mixed = Vec::with_capacity(batches * global_batch);
        let mut by_key: Vec<(u64, usize)> = vec![];
        for (batch, originals) in order.chunks(originals).take(batches).enumerate() {
            let slot = |place: usize| (batch * global_batch + place) as u64;
            // Both kinds are spread at random: ranks and parts of a batch get their share of each.
            by_key.clear();
            by_key.extend((0..global_batch).map(|place| (places.key(slot(place)), place)));
            by_key.sort_unstable();
            let first = mixed.len();
            mixed.extend((0..global_batch).map(|place| order.len() + images.index(slot(place), self.source.len())));
            let mut taken: Vec<usize> = by_key[..originals.len()].iter().map(|(_, place)| *place).collect();
            taken.sort_unstable();
            taken.into_iter().zip(originals).for_each(|(place, &original)| mixed[first + place] = original);
        }
        mixed
    }
}

/// The images of one source and, numbered after them, those of another. The classes are those of the first.
pub(super) struct Joined {
    pub(super) first: Arc<dyn Source>,
    pub(super) second: Arc<dyn Source>,
}

impl Source for Joined {
    fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.first.shape()
    }

    fn class_names(&self) -> &[String] {
        self.first.class_names()
    }

    fn label(&self, sample: usize) -> i64 {
        match sample.checked_sub(self.first.len()) {
            None => self.first.label(sample),
            Some(sample) => self.second.label(sample),
        }
    }

    fn read(&self, sample: usize, image: &mut [u8]) -> Result<()> {
        match sample.checked_sub(self.first.len()) {
            None => self.first.read(sample, image),
            Some(sample) => self.second.read(sample, image),
        }
    }

    fn read_all(&self, wanted: &mut [(usize, &mut [u8])]) -> Result<()> {
        let (mut of_first, mut of_second) = (vec![], vec![]);
        for (sample, image) in wanted {
            match sample.checked_sub(self.first.len()) {
                None => of_first.push((*sample, &mut **image)),
                Some(sample) => of_second.push((sample, &mut **image)),
            }
        }
        self.first.read_all(&mut of_first)?;
        self.second.read_all(&mut of_second)
    }
}

#[cfg(test)]
mod tests;
