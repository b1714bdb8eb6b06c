//! A source of tests that counts its reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use crate::ground::source::Source;

/// So many images of 10x10 pixels, and the number of images that were read of all with the same counter.
pub(super) struct Counting {
    pub(super) images: usize,
    pub(super) reads: Arc<AtomicUsize>,
}

impl Source for Counting {
    fn len(&self) -> usize {
        self.images
    }

    fn shape(&self) -> [usize; 3] {
        [1, 10, 10]
    }

    fn class_names(&self) -> &[String] {
        &[]
    }

    fn label(&self, _: usize) -> i64 {
        0
    }

    fn read(&self, _: usize, _: &mut [u8]) -> Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
