//! Checksums and statistics of images, block by block.

use base16ct::lower::encode_string;
use sha2::{Digest as _, Sha256};

/// Accumulates the SHA-256, mean and standard deviation of images.
pub(crate) struct Digest {
    hash: Sha256,
    plane: usize,
    bytes: u64,
    /// Sum and sum of squares of each channel: whole numbers, so that no order of adding changes them.
    sums: Vec<(u64, u64)>,
}

/// The result of a [`Digest`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Digested {
    /// In hex.
    pub(crate) sha256: String,
    /// Of each channel, with pixels from 0 to 1.
    pub(crate) mean: Vec<f64>,
    /// Of each channel; over all pixels, without Bessel's correction.
    pub(crate) std: Vec<f64>,
}

impl Digest {
    /// For images of `shape`, which are not empty.
    pub(crate) fn new(shape: [usize; 3]) -> Self {
        Self { hash: Sha256::new(), plane: shape[1] * shape[2], bytes: 0, sums: vec![(0, 0); shape[0]] }
    }

    /// Adds whole images.
    pub(crate) fn update(&mut self, images: &[u8]) {
        self.hash.update(images);
        self.bytes += images.len() as u64;
        let channels = self.sums.len();
        for (number, plane) in images.chunks_exact(self.plane).enumerate() {
            let (sum, squares) = &mut self.sums[number % channels];
            for &pixel in plane {
                *sum += u64::from(pixel);
                *squares += u64::from(pixel) * u64::from(pixel);
            }
        }
    }

    pub(crate) fn finish(self) -> Digested {
        let count = self.bytes as f64 / self.sums.len() as f64;
        let moments = self.sums.iter().map(|&(sum, squares)| {
            let mean = sum as f64 / count;
            (mean / 255.0, (squares as f64 / count - mean * mean).max(0.0).sqrt() / 255.0)
        });
        let (mean, std) = moments.unzip();
        Digested { sha256: encode_string(&self.hash.finalize()), mean, std }
    }
}

/// The SHA-256 of `bytes`, in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    encode_string(&Sha256::digest(bytes))
}

/// The SHA-256 of `labels` as little-endian bytes, in hex.
pub(crate) fn labels_sha256(labels: &[i64]) -> String {
    sha256(&labels.iter().flat_map(|label| label.to_le_bytes()).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_all_pixels_of_a_channel() {
        // Two images of two channels of 1x2 pixels.
        let images = [0, 255, 10, 10, 255, 0, 20, 20];
        let mut whole = Digest::new([2, 1, 2]);
        whole.update(&images);
        let mut halves = Digest::new([2, 1, 2]);
        images.chunks(4).for_each(|image| halves.update(image));
        let found = whole.finish();
        assert_eq!(found, halves.finish());
        assert_eq!(found.sha256, sha256(&images));
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        close(found.mean[0], 0.5);
        close(found.std[0], 0.5);
        close(found.mean[1], 15.0 / 255.0);
        close(found.std[1], 5.0 / 255.0);
    }
}
