//! How images lie in a data set file.

use crate::ground::blocks::cores;

/// How images lie in a data set file, and how many threads read them for it. By default in one piece, which ranks map.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layout {
    /// Images in a chunk; none for one piece.
    pub chunk: Option<usize>,
    /// The level of deflate, 1 to 9; makes chunks.
    pub compress: Option<u8>,
    /// Number of reading threads; one for each core by default. The file does not depend on it.
    pub threads: Option<usize>,
}

impl Layout {
    /// Images in a chunk; without a number, about 1 MiB of them.
    pub(crate) fn chunk_of(&self, shape: [usize; 3]) -> Option<usize> {
        self.chunk.or(self.compress.map(|_| a_megabyte_of(shape)))
    }

    /// Images to write at once: whole chunks, so that none is compressed twice.
    pub(crate) fn block_of(&self, shape: [usize; 3]) -> usize {
        let chunk = self.chunk_of(shape).unwrap_or(1);
        chunk * (a_megabyte_of(shape) / chunk).max(1)
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(cores)
    }
}

fn a_megabyte_of(shape: [usize; 3]) -> usize {
    ((1 << 20) / shape.iter().product::<usize>().max(1)).max(1)
}
