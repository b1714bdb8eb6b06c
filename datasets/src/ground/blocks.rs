//! Samples of a source in order, read by several threads into few buffers.

use std::thread;

use anyhow::{Context as _, Result};
use crossbeam::channel::bounded;

use crate::ground::source::Source;

/// Blocks that a thread may have finished before they are taken.
const AHEAD: usize = 2;

/// Gives all samples of `source` to `take`, in order and in blocks of `samples`, each with the number of its first one.
///
/// `threads` threads read; no more than three blocks of each are in memory. What `take` sees does not depend on their
/// number.
///
/// # Errors
/// That of the first sample that cannot be read, or of `take`.
pub(crate) fn in_order(
    source: &dyn Source,
    samples: usize,
    threads: usize,
    mut take: impl FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let size: usize = source.shape().iter().product();
    let blocks = source.len().div_ceil(samples);
    let threads = threads.clamp(1, blocks.max(1));
    let read = |block: usize| -> Result<Vec<u8>> {
        let range = block * samples..source.len().min((block + 1) * samples);
        let mut bytes = vec![0; range.len() * size];
        for (sample, image) in range.zip(bytes.chunks_exact_mut(size)) {
            source.read(sample, image)?;
        }
        Ok(bytes)
    };
    thread::scope(|scope| {
        // Thread t reads blocks t, t + threads, ..., so the order of threads is known in advance.
        let lanes = (0..threads).map(|first| {
            let (sender, receiver) = bounded(AHEAD);
            let read = &read;
            scope.spawn(move || {
                for block in (first..blocks).step_by(threads) {
                    // The receiver is gone once an earlier block has failed.
                    if sender.send(read(block)).is_err() {
                        break;
                    }
                }
            });
            receiver
        });
        let lanes: Vec<_> = lanes.collect();
        for block in 0..blocks {
            let bytes = lanes[block % threads].recv().context("a reading thread ended early")??;
            take(block * samples, &bytes)?;
        }
        Ok(())
    })
}

/// The number of cores that this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::memory::{Memory, numbered};

    #[test]
    fn any_number_of_threads_gives_the_same_blocks() -> Result<()> {
        let shape = [3, 64, 64];
        let images: Vec<u8> = (0..300 * 3 * 64 * 64).map(|at| (at / 7 % 251) as u8).collect();
        let memory = Memory::new(shape, vec!["one".into()], images, vec![0; 300])?;
        for threads in [1, 2, 3, 8] {
            let mut seen = Vec::new();
            in_order(&memory, 85, threads, |first, bytes| {
                assert_eq!(first * 3 * 64 * 64, seen.len());
                seen.extend_from_slice(bytes);
                Ok(())
            })?;
            assert!(seen == memory.images(), "{threads} threads");
        }
        Ok(())
    }

    /// A source whose samples from `bad` on cannot be read.
    struct Bad(Memory, usize);

    impl Source for Bad {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn shape(&self) -> [usize; 3] {
            self.0.shape()
        }
        fn class_names(&self) -> &[String] {
            self.0.class_names()
        }
        fn label(&self, sample: usize) -> i64 {
            self.0.label(sample)
        }
        fn read(&self, sample: usize, image: &mut [u8]) -> Result<()> {
            anyhow::ensure!(sample < self.1, "sample {sample} is bad");
            self.0.read(sample, image)
        }
    }

    #[test]
    fn the_first_bad_sample_is_the_one_reported() {
        let memory = numbered(100, [1, 512, 512]);
        for threads in [1, 2, 5] {
            let error = in_order(&Bad(memory.clone(), 33), 4, threads, |_, _| Ok(())).expect_err("a bad sample");
            assert_eq!(error.to_string(), "sample 33 is bad");
        }
    }
}
