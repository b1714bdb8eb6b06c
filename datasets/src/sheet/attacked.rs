//! Attacked images for people to look at: the natural image, the adversarial one and their amplified difference as PNG pictures.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{CELL, Canvas, GAP};
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
    /// What it looks like.
    pub pictures: AttackPictures,
}

/// The pictures of an image before and after an attack.
#[derive(Debug, Clone, PartialEq)]
pub struct AttackPictures {
    /// The largest change of a pixel, of the range from 0 to 1.
    pub largest: f32,
    /// The natural image as a PNG picture.
    pub natural: Vec<u8>,
    /// The adversarial image.
    pub adversarial: Vec<u8>,
    /// The change, amplified so that the largest one is black or white; grey is none.
    pub change: Vec<u8>,
}

/// A row of a sheet of attacked images.
#[derive(Debug, Clone)]
pub struct AttackRow<'a> {
    /// The natural image, by channel, row and column.
    pub natural: &'a [u8],
    /// The adversarial image, from 0 to 1.
    pub adversarial: &'a [f32],
    /// What stands beside them.
    pub lines: Vec<String>,
}

/// An image of one or three channels, natural, adversarial and its amplified change, as values of pixels.
struct Attacked {
    largest: f32,
    planes: [Vec<u8>; 3],
}

impl Attacked {
    fn new(shape: [usize; 3], natural: &[u8], adversarial: &[f32]) -> Result<Self> {
        let values = shape.iter().product::<usize>();
        ensure!(shape[0] == 1 || shape[0] == 3, "images of {} channels cannot be drawn", shape[0]);
        ensure!(values > 0 && natural.len() == values && adversarial.len() == values, "images of another size");
        let changes: Vec<f32> =
            adversarial.iter().zip(natural).map(|(now, before)| now - f32::from(*before) / 255.0).collect();
        let largest = changes.iter().fold(0f32, |most, change| most.max(change.abs()));
        let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let planes = [
            natural.to_vec(),
            adversarial.iter().map(|value| (255.0 * value).round() as u8).collect(),
            changes.iter().map(|change| (128.0 + scale * change).round() as u8).collect(),
        ];
        Ok(Self { largest, planes })
    }
}

impl AttackPictures {
    /// The pictures of an image of `shape` (channels, height, width): `natural` bytes, `adversarial` values from 0 to 1.
    ///
    /// # Errors
    /// An image of another size, or of a number of channels that cannot be drawn.
    pub fn new(shape: [usize; 3], natural: &[u8], adversarial: &[f32]) -> Result<Self> {
        let attacked = Attacked::new(shape, natural, adversarial)?;
        let picture = |plane: usize| {
            let mut canvas = Canvas::new(shape[2], shape[1]);
            canvas.draw(shape, &attacked.planes[plane], (0, 0), 1);
            canvas.encoded()
        };
        Ok(Self { largest: attacked.largest, natural: picture(0)?, adversarial: picture(1)?, change: picture(2)? })
    }
}

/// One PNG picture of attacked images of `shape`: in each row the natural image, the adversarial one, the amplified change,
/// and the row's lines.
///
/// # Errors
/// As [`AttackPictures::new`].
pub fn attack_sheet(shape: [usize; 3], rows: &[AttackRow]) -> Result<Vec<u8>> {
    let [_, height, width] = shape;
    let scale = (CELL / height.max(width).max(1)).max(1);
    let (letters, line) = (12, 18);
    let lines = rows.iter().map(|row| row.lines.len()).max().unwrap_or(0);
    let longest = rows.iter().flat_map(|row| &row.lines).map(|line| line.chars().count()).max().unwrap_or(0);
    let (step_x, step_y) = (width * scale + GAP, (height * scale).max(lines * line) + GAP);
    let text = GAP + 3 * step_x;
    let mut canvas = Canvas::new(text + longest * letters + GAP, GAP + rows.len() * step_y);
    for (number, row) in rows.iter().enumerate() {
        let attacked = Attacked::new(shape, row.natural, row.adversarial)?;
        let top = GAP + number * step_y;
        for (place, plane) in attacked.planes.iter().enumerate() {
            canvas.draw(shape, plane, (GAP + place * step_x, top), scale);
        }
        for (place, words) in row.lines.iter().enumerate() {
            canvas.write(words, text, top + place * line);
        }
    }
    canvas.encoded()
}

/// At most `most` images of the file of adversarial images `file`, of which `source` holds the natural ones: those that an
/// attack changed come first.
///
/// # Errors
/// A file of another kind or of other images.
pub fn attacked_images(file: &Path, source: &dyn Source, most: usize) -> Result<Vec<AttackedImage>> {
    let shape = source.shape();
    let mut natural = vec![0; shape.iter().product()];
    let mut images = vec![];
    for one in read_first(file, shape, most)? {
        ensure!(
            one.sample < source.len() && source.label(one.sample) == one.label,
            "the images are those of another set"
        );
        source.read(one.sample, &mut natural)?;
        images.push(AttackedImage {
            sample: one.sample,
            label: one.label,
            prediction: one.prediction,
            attack: one.attack,
            pictures: AttackPictures::new(shape, &natural, &one.pixels)?,
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
        let [first, other] = [0, 1].map(|place| &images[place].pictures);
        assert!((first.largest - 8.0 / 255.0).abs() < 1e-6 && other.largest == 0.0);
        let change = decode(&first.change)?;
        assert_eq!([change[0], change[1], change[2]], [255, 96, 128]);
        assert_eq!((decode(&first.natural)?[0], decode(&first.adversarial)?[0]), (2, 10));
        assert!(attacked_images(&path, &numbered(4, [1, 4, 4]), 2).is_err());
        Ok(())
    }

    #[test]
    fn a_sheet_has_three_pictures_and_lines_in_each_row() -> Result<()> {
        let row = |value: u8| AttackRow {
            natural: &[0; 64],
            adversarial: &[0.2; 64],
            lines: vec!["label: 3".into(); value.into()],
        };
        let bytes = attack_sheet([1, 8, 8], &[row(0), row(2)])?;
        let [width, height] = [4 + 3 * 68 + 8 * 12 + 4, 4 + 2 * 68];
        let mut planes = vec![0; 3 * width * height];
        crate::formats::picture::decode(&bytes, [3, height, width], &mut planes)?;
        let pixel = |x: usize, y: usize| planes[y * width + x];
        assert_eq!([4, 72, 140, 68].map(|x| pixel(x, 4 + 68)), [0, 51, 255, 255]);
        let ink = |top: usize| (0..64 * 96).filter(|at| pixel(208 + at % 96, top + at / 96) == 0).count();
        assert!(ink(4) == 0 && ink(72) > 100, "the second row alone has lines");
        assert!(
            attack_sheet([2, 8, 8], &[row(0)]).is_err() && AttackPictures::new([1, 8, 8], &[0; 9], &[0.0; 64]).is_err()
        );
        Ok(())
    }

    fn decode(png: &[u8]) -> Result<Vec<u8>> {
        let mut planes = vec![0; 3 * 64];
        crate::formats::picture::decode(png, [3, 8, 8], &mut planes)?;
        Ok(planes)
    }
}
