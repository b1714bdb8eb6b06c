//! A contact sheet: the first images of every class under their names, as a PNG picture for people to look at.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::container::read::Container;
use crate::container::write::refuse_existing;
use crate::ground::error::UserError;
use crate::ground::source::Source;
use crate::schema::about::Split;

pub(crate) mod attacked;
mod font;

/// Classes on a sheet at most, and images of each.
const CLASSES: usize = 20;
const IMAGES: usize = 10;
/// Images smaller than this are enlarged by whole factors.
const CELL: usize = 64;
const GAP: usize = 4;
/// The characters of a name drawn beside its row.
const NAME: usize = 20;
const PAPER: u8 = 255;

/// A picture in the making, three bytes a pixel.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![PAPER; 3 * width * height] }
    }

    fn set(&mut self, x: usize, y: usize, color: [u8; 3]) {
        if x < self.width && y < self.height {
            let at = 3 * (y * self.width + x);
            self.pixels[at..at + 3].copy_from_slice(&color);
        }
    }

    /// Draws the bytes of an image of `shape` (1 or 3 channels, height, width), each pixel a square of `scale`.
    fn draw(&mut self, [channels, height, width]: [usize; 3], bytes: &[u8], (left, top): (usize, usize), scale: usize) {
        for (x, y) in (0..height * scale).flat_map(|y| (0..width * scale).map(move |x| (x, y))) {
            let place = |channel: usize| channel.min(channels - 1) * height * width + y / scale * width + x / scale;
            self.set(left + x, top + y, [0, 1, 2].map(|channel| bytes[place(channel)]));
        }
    }

    /// Letters of 5x7 points, each point a square of 2 pixels.
    fn write(&mut self, text: &str, x: usize, y: usize) {
        for (number, letter) in text.chars().enumerate() {
            for (column, points) in font::columns(letter).into_iter().enumerate() {
                for row in (0..7).filter(|row| points >> row & 1 == 1) {
                    for (dx, dy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        self.set(x + 2 * (number * 6 + column) + dx, y + 2 * row + dy, [0; 3]);
                    }
                }
            }
        }
    }

    fn save(&self, path: &Path) -> Result<()> {
        self.encode(BufWriter::new(File::create_new(path)?))
    }

    /// The picture as the bytes of a file.
    fn encoded(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![];
        self.encode(&mut bytes)?;
        Ok(bytes)
    }

    fn encode(&self, output: impl Write) -> Result<()> {
        let mut encoder = png::Encoder::new(output, self.width.try_into()?, self.height.try_into()?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        Ok(writer.finish()?)
    }
}

/// Writes a sheet of `split` of the data set file `data` to the new PNG file `to`: a row for each of the first twenty
/// classes, with its name and first ten images.
///
/// # Errors
/// A [`UserError`] if `data` is no data set file with that split, or `to` is there already.
pub fn write_sheet(data: &Path, split: Split, to: &Path) -> Result<()> {
    refuse_existing(to)?;
    let images = Container::open(data, split)?;
    let [channels, height, width] = images.shape();
    if channels != 1 && channels != 3 {
        let error = UserError::expected("1 or 3, to draw them").file(data).key("the number of channels");
        return Err(error.value(channels).into());
    }
    let scale = (CELL / height.max(width)).max(1);
    let names = images.class_names();
    let rows = names.len().min(CLASSES);
    let (step_x, step_y) = (width * scale + GAP, (height * scale).max(14) + GAP);
    let left = 2 * 6 * NAME + 2 * GAP;
    let mut canvas = Canvas::new(left + IMAGES * step_x, GAP + rows * step_y);
    let mut chosen = vec![Vec::new(); rows];
    for sample in 0..images.len() {
        if let Some(row) = chosen.get_mut(images.label(sample) as usize).filter(|row| row.len() < IMAGES) {
            row.push(sample);
        }
    }
    let mut pixels = vec![0; channels * height * width];
    for (class, samples) in chosen.into_iter().enumerate() {
        let top = GAP + class * step_y;
        canvas.write(&short_name(&names[class]), GAP, top + (step_y - GAP - 14) / 2);
        for (place, sample) in samples.into_iter().enumerate() {
            images.read(sample, &mut pixels)?;
            canvas.draw([channels, height, width], &pixels, (left + place * step_x, top), scale);
        }
    }
    canvas.save(to).with_context(|| format!("writing {}", to.display())).inspect_err(|_| {
        // Half a picture is none.
        let _ = std::fs::remove_file(to);
    })
}

/// A class name as it fits beside a row of a sheet: the first of several, cut where it is too long.
pub fn short_name(name: &str) -> String {
    let first = name.split(',').next().unwrap_or(name).trim();
    if first.chars().count() <= NAME { first.to_owned() } else { first.chars().take(NAME - 1).chain(['.']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::memory::numbered;

    #[test]
    fn a_sheet_shows_images_beside_their_names() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (data, sheet) = (folder.path().join("set.h5"), folder.path().join("sheet.png"));
        let memory = numbered(40, [1, 16, 16]);
        crate::write(&data, "numbers", "counting", memory.class_names(), &[(Split::Train, &memory)])?;
        write_sheet(&data, Split::Train, &sheet)?;
        let bytes = std::fs::read(&sheet)?;
        let (left, step) = (2 * 6 * NAME + 2 * GAP, 64 + GAP);
        let (height, width) = (GAP + 10 * step, left + 10 * step);
        let mut planes = vec![0; 3 * height * width];
        crate::formats::picture::decode(&bytes, [3, height, width], &mut planes)?;
        // Class 7 has the samples 7, 17, 27 and 37, whose pixels are their numbers, and paper after them.
        let pixel = |x: usize, y: usize| planes[y * width + x];
        let row = GAP + 7 * step;
        let seen = [0, 1, 2, 3, 4].map(|place| pixel(left + place * step + 63, row + 63));
        assert_eq!(seen, [7, 17, 27, 37, PAPER]);
        let ink = |top: usize| (0..step * left).filter(|at| pixel(at % left, top + at / left) == 0).count();
        assert!(ink(row) > 100 && ink(row) != ink(GAP), "names are drawn, each its own");
        assert!(write_sheet(&data, Split::Train, &sheet).is_err_and(|error| error.is::<UserError>()));
        Ok(())
    }

    #[test]
    fn names_are_cut_to_what_fits() {
        assert_eq!(short_name("goldfish, Carassius auratus"), "goldfish");
        assert_eq!(short_name("American lobster of the north"), "American lobster of.");
    }
}
