//! Attacked images for people to look at: the natural image, the adversarial one and their amplified difference as PNG pictures.

use std::path::Path;

use anyhow::{Result, ensure};

use super::Canvas;
use crate::ground::source::Source;
use crate::hdf5::adversarial::read_first;

/// An image before and after an attack.
#[derive(Debug, Clone, PartialEq)]
pub struct AttackedImage {
    /// Its number in the data set.
    pub sample: usize,
    /// Its label.
    pub label: i64,
    /// The network's prediction for the adversarial image.
    pub prediction: i64,
    /// The attack that made it; none where no attack changed the prediction.
    pub attack: Option<String>,
    /// The largest change of a pixel, of the range from 0 to 1.
    pub largest: f32,
    /// The natural image as a PNG picture.
    pub natural: Vec<u8>,
    /// The adversarial image.
    pub adversarial: Vec<u8>,
    /// The change, amplified so that the largest one is black or white; grey is none.
    pub change: Vec<u8>,
}

/// At most `most` images of the file of adversarial images `file`, of which `source` holds the natural ones: those that an
/// attack changed come first.
///
/// # Errors
/// A file of another kind or of other images.
pub fn attacked_images(file: &Path, source: &dyn Source, most: usize) -> Result<Vec<AttackedImage>> {
    let shape @ [channels, height, width] = source.shape();
    ensure!(channels == 1 || channels == 3, "images of {channels} channels cannot be drawn");
    let found = read_first(file, shape, most)?;
    let picture = |pixel: &dyn Fn(usize) -> u8| {
        let mut canvas = Canvas::new(width, height);
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            let place = |channel: usize| channel.min(channels - 1) * height * width + y * width + x;
            canvas.set(x, y, [0, 1, 2].map(|channel| pixel(place(channel))));
        }
        canvas.encoded()
    };
    let mut natural = vec![0; channels * height * width];
    let mut images = vec![];
    for one in found {
        ensure!(
            one.sample < source.len() && source.label(one.sample) == one.label,
            "the images are those of another set"
        );
        source.read(one.sample, &mut natural)?;
        let changes: Vec<f32> =
            one.pixels.iter().zip(&natural).map(|(now, before)| now - f32::from(*before) / 255.0).collect();
        let largest = changes.iter().fold(0f32, |most, change| most.max(change.abs()));
        let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        images.push(AttackedImage {
            sample: one.sample,
            label: one.label,
            prediction: one.prediction,
            attack: one.attack,
            largest,
            natural: picture(&|place| natural[place])?,
            adversarial: picture(&|place| (255.0 * one.pixels[place]).round() as u8)?,
            change: picture(&|place| (128.0 + scale * changes[place]).round() as u8)?,
        });
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::memory::numbered;
    use crate::hdf5::adversarial::AdversarialFile;

    #[test]
    fn changed_images_come_first_and_their_changes_are_amplified() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("found.h5");
        let source = numbered(4, [1, 8, 8]);
        let file = AdversarialFile::create(&path, &source, &["natural".into(), "pgd20".into()], "x")?;
        // The pixels of sample 2 are 2 of 255.
        let mut pixels = vec![2.0 / 255.0; 64];
        (pixels[0], pixels[1]) = (10.0 / 255.0, 0.0);
        file.put(2, &pixels, 3, 1)?;
        file.put_prediction(0, 0)?;
        let images = attacked_images(&path, &source, 2)?;
        let seen: Vec<_> = images.iter().map(|one| (one.sample, one.prediction, one.attack.as_deref())).collect();
        assert_eq!(seen, [(2, 3, Some("pgd20")), (0, 0, None)]);
        assert!((images[0].largest - 8.0 / 255.0).abs() < 1e-6 && images[1].largest == 0.0);
        let change = decode(&images[0].change)?;
        assert_eq!([change[0], change[1], change[2]], [255, 96, 128]);
        assert_eq!((decode(&images[0].natural)?[0], decode(&images[0].adversarial)?[0]), (2, 10));
        assert!(attacked_images(&path, &numbered(4, [1, 4, 4]), 2).is_err());
        Ok(())
    }

    fn decode(png: &[u8]) -> Result<Vec<u8>> {
        let mut planes = vec![0; 3 * 64];
        crate::formats::picture::decode(png, [3, 8, 8], &mut planes)?;
        Ok(planes)
    }
}
