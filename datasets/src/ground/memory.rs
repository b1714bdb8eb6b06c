//! A data set held in memory: what importers produce and tests use.

use anyhow::{Context, Result, ensure};

use crate::ground::error::UserError;
use crate::ground::source::Source;

/// Images and labels in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    shape: [usize; 3],
    class_names: Vec<String>,
    images: Vec<u8>,
    labels: Vec<i64>,
}

impl Memory {
    /// A split of `labels.len()` samples; `images` holds theirs one after the other, each of `shape`
    /// (channels, height, width).
    ///
    /// Fails when the lengths do not fit together, and with a [`UserError`] when a label names no class.
    pub fn new(shape: [usize; 3], class_names: Vec<String>, images: Vec<u8>, labels: Vec<i64>) -> Result<Self> {
        let size = image_bytes(shape).and_then(|size| size.checked_mul(labels.len()));
        ensure!(
            size == Some(images.len()) && !shape.contains(&0),
            "{} bytes for {} images of {shape:?}",
            images.len(),
            labels.len()
        );
        check_labels(&labels, class_names.len(), "labels")?;
        Ok(Self { shape, class_names, images, labels })
    }

    /// All pixels, sample by sample.
    pub fn images(&self) -> &[u8] {
        &self.images
    }

    /// All labels.
    pub fn labels(&self) -> &[i64] {
        &self.labels
    }
}

impl Source for Memory {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, sample: usize) -> i64 {
        self.labels[sample]
    }

    fn read(&self, sample: usize, image: &mut [u8]) -> Result<()> {
        copy_image(&self.images, self.shape, sample, image)
    }
}

/// The bytes of one image, or `None` when the number does not fit.
pub(crate) fn image_bytes(shape: [usize; 3]) -> Option<usize> {
    shape.into_iter().try_fold(1usize, usize::checked_mul)
}

/// Copies one of many `images` of `shape`.
pub(crate) fn copy_image(images: &[u8], shape: [usize; 3], sample: usize, image: &mut [u8]) -> Result<()> {
    let size = shape.iter().product::<usize>();
    ensure!(image.len() == size, "{} bytes to hold an image of {shape:?}", image.len());
    let pixels = sample.checked_mul(size).and_then(|start| images.get(start..)?.get(..size));
    image.copy_from_slice(pixels.with_context(|| format!("there is no sample {sample}"))?);
    Ok(())
}

/// Refuses labels that name none of `classes` classes; `key` is what the labels are called.
pub(crate) fn check_labels(labels: &[i64], classes: usize, key: &str) -> Result<(), UserError> {
    match labels.iter().position(|&label| usize::try_from(label).map_or(true, |label| label >= classes)) {
        None => Ok(()),
        Some(at) => Err(UserError::expected(format!("0..={}", classes.saturating_sub(1)))
            .key(format!("{key}[{at}]"))
            .value(labels[at])),
    }
}

/// `count` images whose every pixel is the sample's number, in ten classes.
#[cfg(test)]
pub(crate) fn numbered(count: usize, shape: [usize; 3]) -> Memory {
    let images = (0..count).flat_map(|sample| vec![sample as u8; shape.iter().product()]).collect();
    let class_names = (0..10).map(|class| format!("class {class}")).collect();
    let labels = (0..count).map(|sample| sample as i64 % 10).collect();
    Memory::new(shape, class_names, images, labels).expect("the parts fit together")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_by_number() -> Result<()> {
        let memory = numbered(12, [3, 2, 2]);
        let mut image = [0; 12];
        memory.read(11, &mut image)?;
        assert_eq!((image, memory.label(11)), ([11; 12], 1));
        assert!(memory.read(12, &mut image).is_err());
        assert!(memory.read(usize::MAX, &mut image).is_err());
        assert!(memory.read(0, &mut image[1..]).is_err());
        Ok(())
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let names = vec!["one".to_owned()];
        assert!(Memory::new([1, 2, 2], names.clone(), vec![0; 7], vec![0, 0]).is_err());
        assert!(Memory::new([0, 2, 2], names.clone(), vec![], vec![0]).is_err());
        assert!(Memory::new([usize::MAX, 2, 2], names.clone(), vec![], vec![0]).is_err());
        for label in [-1, 1] {
            let error = Memory::new([1, 1, 1], names.clone(), vec![0; 2], vec![0, label]).expect_err("no such class");
            assert_eq!(error.to_string(), format!("labels[1] is {label}; expected 0..=0"));
        }
    }
}
