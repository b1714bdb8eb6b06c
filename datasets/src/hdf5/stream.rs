//! Reads images on demand from an open file, contiguous or chunked, without the HDF5 library.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::{Decompress, FlushDecompress, Status};

/// Bytes that are read and dropped rather than left out between two images: cheaper than asking the disk once more.
const GAP: usize = 16 << 10;
/// The most bytes of one request to the file.
const REQUEST: usize = 1 << 20;

/// The places of the images.
#[derive(Debug)]
pub(crate) enum Places {
    /// One after the other, from this byte on.
    Contiguous(u64),
    /// In chunks of equally many images.
    Chunked {
        /// The images of a chunk; the last one is filled up.
        images: usize,
        /// The filters of every chunk, in the order of writing.
        filters: Vec<Filter>,
        /// All chunks, in the order of their images.
        chunks: Vec<Chunk>,
    },
}

/// A chunk in its stored form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk {
    /// Its first byte in the file.
    pub at: u64,
    /// Its bytes in the file.
    pub bytes: u32,
    /// A bit for each filter that was left out.
    pub skipped: u32,
}

/// Filters of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Compressed, as zlib does.
    Deflate,
    /// The bytes of each value apart: nothing changes where a value is a byte.
    Shuffle,
    /// Followed by a checksum of four bytes.
    Fletcher32,
}

/// The images of a file that stays open. Nothing is mapped: a file cut short while it is read is an error.
pub(crate) struct Stream {
    path: PathBuf,
    file: File,
    /// Bytes of an image.
    size: usize,
    samples: usize,
    places: Places,
    /// The chunk that was decoded last for a single image: images are often asked for in order.
    last: Mutex<Option<(usize, Vec<u8>)>>,
}

impl Stream {
    /// The `samples` images of `size` bytes at `places` of `file`, which is `path`.
    pub(crate) fn new(path: &Path, file: File, size: usize, samples: usize, places: Places) -> Self {
        Self { path: path.to_owned(), file, size, samples, places, last: Mutex::new(None) }
    }

    /// Copies one image.
    pub(crate) fn read(&self, sample: usize, image: &mut [u8]) -> Result<()> {
        self.check(sample, image)?;
        match &self.places {
            Places::Contiguous(start) => self.fetch(start + (sample * self.size) as u64, image, sample),
            Places::Chunked { images, .. } => {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                let chunk = sample / images;
                if last.as_ref().is_none_or(|(decoded, _)| *decoded != chunk) {
                    let (_, mut bytes) = last.take().unwrap_or_default();
                    self.decode(chunk, &mut bytes, &mut Vec::new())?;
                    *last = Some((chunk, bytes));
                }
                let (_, bytes) = last.as_ref().context("a chunk was just decoded")?;
                image.copy_from_slice(&bytes[sample % images * self.size..][..self.size]);
                Ok(())
            }
        }
    }

    /// Copies many images: in the order of the file, near ones with one request, and each chunk decoded once.
    pub(crate) fn read_all(&self, wanted: &mut [(usize, &mut [u8])]) -> Result<()> {
        for (sample, image) in wanted.iter() {
            self.check(*sample, image)?;
        }
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_unstable_by_key(|&place| wanted[place].0);
        let (size, mut bytes, mut packed) = (self.size, Vec::new(), Vec::new());
        match &self.places {
            Places::Contiguous(start) => {
                let near = |first: usize, before: usize, next: usize| {
                    (next - before).saturating_sub(1) * size <= GAP && (next - first + 1) * size <= REQUEST
                };
                let mut rest = order.as_slice();
                while let Some(&first) = rest.first() {
                    let first = wanted[first].0;
                    let pairs = rest.windows(2).take_while(|pair| near(first, wanted[pair[0]].0, wanted[pair[1]].0));
                    let (run, others) = rest.split_at(1 + pairs.count());
                    rest = others;
                    let from = start + (first * size) as u64;
                    if let [alone] = run {
                        self.fetch(from, wanted[*alone].1, first)?;
                        continue;
                    }
                    let span = (wanted[run[run.len() - 1]].0 - first + 1) * size;
                    bytes.resize(bytes.len().max(span), 0);
                    self.fetch(from, &mut bytes[..span], first)?;
                    for &place in run {
                        let (sample, image) = &mut wanted[place];
                        image.copy_from_slice(&bytes[(*sample - first) * size..][..size]);
                    }
                }
            }
            Places::Chunked { images, .. } => {
                let mut decoded = None;
                for place in order {
                    let (sample, image) = &mut wanted[place];
                    let chunk = *sample / images;
                    if decoded.replace(chunk) != Some(chunk) {
                        self.decode(chunk, &mut bytes, &mut packed)?;
                    }
                    image.copy_from_slice(&bytes[*sample % images * size..][..size]);
                }
            }
        }
        Ok(())
    }

    fn check(&self, sample: usize, image: &[u8]) -> Result<()> {
        ensure!(image.len() == self.size, "{} bytes to hold an image of {}", image.len(), self.size);
        ensure!(sample < self.samples, "there is no sample {sample}");
        Ok(())
    }

    /// Fills `bytes` from the file; `sample` is named in errors.
    fn fetch(&self, from: u64, bytes: &mut [u8], sample: usize) -> Result<()> {
        self.file.read_exact_at(bytes, from).map_err(|error| {
            let path = self.path.display();
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                anyhow!("{path} ends before image {sample}: it was cut short while it was being read")
            } else {
                anyhow!("{path}: reading image {sample}: {error}")
            }
        })
    }

    /// Reads `chunk` into `packed` and undoes its filters into `bytes`.
    fn decode(&self, chunk: usize, bytes: &mut Vec<u8>, packed: &mut Vec<u8>) -> Result<()> {
        let Places::Chunked { images, filters, chunks } = &self.places else { bail!("images in one piece") };
        let stored = chunks.get(chunk).with_context(|| format!("there is no chunk {chunk}"))?;
        packed.resize(stored.bytes as usize, 0);
        self.fetch(stored.at, packed, chunk * images)?;
        let whole = images * self.size;
        let undone = undo(filters, stored.skipped, whole, packed, bytes);
        let damaged = || format!("{}: the chunk of images {}.. is damaged", self.path.display(), chunk * images);
        undone
            .and_then(|()| {
                ensure!(bytes.len() == whole, "{} bytes instead of {whole}", bytes.len());
                Ok(())
            })
            .with_context(damaged)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Stream").field("path", &self.path).field("samples", &self.samples).finish_non_exhaustive()
    }
}

/// Undoes `filters` but those of the bits `skipped`, from `packed` into `bytes`, which get at most `whole` bytes.
fn undo(filters: &[Filter], skipped: u32, whole: usize, packed: &mut Vec<u8>, bytes: &mut Vec<u8>) -> Result<()> {
    let applied = filters.iter().enumerate().filter(|(number, _)| skipped & (1 << number) == 0);
    for (_, filter) in applied.rev() {
        match filter {
            Filter::Shuffle => {}
            Filter::Fletcher32 => {
                let end = packed.len().checked_sub(4).context("there is no checksum")?;
                let stored = u32::from_le_bytes(packed[end..].try_into()?);
                packed.truncate(end);
                let found = fletcher32(packed);
                ensure!(stored == found, "its checksum is {found:08x} instead of {stored:08x}");
            }
            Filter::Deflate => {
                // A checksum of four bytes may follow.
                bytes.clear();
                bytes.reserve_exact(whole + 4);
                let status = Decompress::new(true).decompress_vec(packed, bytes, FlushDecompress::Finish)?;
                ensure!(status == Status::StreamEnd, "its compressed data do not end where they should");
                std::mem::swap(packed, bytes);
            }
        }
    }
    std::mem::swap(packed, bytes);
    Ok(())
}

/// Fletcher's checksum over 16-bit words, most significant byte first, as HDF5 computes it.
fn fletcher32(bytes: &[u8]) -> u32 {
    // Both sums are taken modulo 65,535, and a multiple of it shows as 65,535 unless every word was 0.
    let fold = |sum: u64| if sum == 0 { 0 } else { (sum - 1) % 65_535 + 1 };
    let (mut first, mut second) = (0u64, 0u64);
    // The sums over this many words fit into 64 bits.
    for part in bytes.chunks(1 << 16) {
        let (words, last) = part.as_chunks::<2>();
        for &word in words {
            first += u64::from(u16::from_be_bytes(word));
            second += first;
        }
        if let [high] = last {
            first += u64::from(*high) << 8;
            second += first;
        }
        (first, second) = (fold(first), fold(second));
    }
    (second << 16 | first) as u32
}

#[cfg(test)]
mod tests;
