//! Arrays of NumPy in one `.npz` file: training images and labels, and optional test images and labels.
//!
//! Images stay in the file and are read one by one, so that a file of millions takes little memory. Labels are in memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};

use super::imported::{Imported, wrong_archive};
use super::left_out::LeftOut;
use super::npy::{self, Images};
use crate::formats::recognise::ZIP;
use crate::formats::zip::{Member, Zip};
use crate::ground::error::UserError;
use crate::ground::regular::open_regular;
use crate::ground::source::Source;

/// The bytes of all labels at most.
const LABELS: u64 = 1 << 30;
/// The bytes of a header at most.
const HEADER: u64 = 1 << 16;
/// Names of training images and labels; the first pair in the file is taken. Files of generated images use the last pair.
const TRAIN: [(&str, &str); 3] = [("x_train", "y_train"), ("images", "labels"), ("image", "label")];
const TEST: (&str, &str) = ("x_test", "y_test");
const HINT: &str = "write it as numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...), images as uint8 of \
                    shape [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3; image=... and label=... will do for \
                    training images alone";

/// An archive of arrays.
type Archive = Arc<Zip<Arc<File>>>;

/// The images of one array, read as they are asked for.
struct Arrays {
    zip: Archive,
    member: Member,
    images: Images,
    labels: Vec<i64>,
    class_names: Vec<String>,
    /// A compressed array is unpacked in order: the next image, and what follows it.
    unpacked: Mutex<Option<(usize, Box<dyn Read + Send>)>>,
}

impl Arrays {
    /// Reads the bytes of an image as they lie in the array.
    fn fetch(&self, sample: usize, bytes: &mut [u8]) -> Result<()> {
        let start = |sample: usize| self.images.start + (sample * bytes.len()) as u64;
        if !self.member.deflated {
            return self.zip.fill(&self.member, bytes, start(sample));
        }
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, mut rest) = match unpacked.take().filter(|(next, _)| *next <= sample) {
            Some((next, rest)) => ((start(next)), rest),
            None => (0, self.zip.unpack(&self.member)?),
        };
        std::io::copy(&mut (&mut rest).take(start(sample) - next), &mut std::io::sink())?;
        rest.read_exact(bytes)?;
        *unpacked = Some((sample + 1, rest));
        Ok(())
    }
}

impl Source for Arrays {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.images.shape
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, sample: usize) -> i64 {
        self.labels[sample]
    }

    fn read(&self, sample: usize, image: &mut [u8]) -> Result<()> {
        let [channels, height, width] = self.images.shape;
        ensure!(image.len() == channels * height * width, "{} bytes to hold an image", image.len());
        ensure!(sample < self.labels.len(), "there is no sample {sample}");
        if !self.images.interleaved {
            return self.fetch(sample, image);
        }
        let mut pixels = vec![0; image.len()];
        self.fetch(sample, &mut pixels)?;
        for (channel, plane) in image.chunks_exact_mut(height * width).enumerate() {
            for (value, &pixel) in plane.iter_mut().zip(pixels[channel..].iter().step_by(channels)) {
                *value = pixel;
            }
        }
        Ok(())
    }
}

/// Opens the arrays of the file `from`.
pub(super) fn read(from: &Path) -> Result<Imported> {
    let zip = open_regular(from).map_err(anyhow::Error::from).and_then(|file| Zip::open(Arc::new(file)));
    let zip = zip.map_err(|error| wrong_archive(from, ZIP, &error, "an .npz file with images and labels", HINT))?;
    let zip: Archive = Arc::new(zip);
    let has = |name: &str| zip.find(&format!("{name}.npy")).is_some();
    let train = TRAIN.into_iter().find(|(images, labels)| has(images) || has(labels)).unwrap_or(TRAIN[0]);
    let mut parts = vec![open(&zip, from, train)?];
    // Only test data may be left out.
    if has(TEST.0) || has(TEST.1) {
        parts.push(open(&zip, from, TEST)?);
    }
    if let [train, test] = &parts[..]
        && train.images.shape != test.images.shape
    {
        let error = anyhow!("images of {:?}, and those to train on of {:?}", test.images.shape, train.images.shape);
        return Err(inside(from, TEST.0, &error).into());
    }
    let classes = parts.iter().flat_map(|part| &part.labels).max().map_or(0, |&most| most as usize + 1);
    let class_names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
    parts.iter_mut().for_each(|part| part.class_names.clone_from(&class_names));

    let taken = [train.0, train.1, TEST.0, TEST.1].map(|name| format!("{name}.npy"));
    let mut left_out = LeftOut::default();
    let others = zip.members.iter().map(|member| &member.name).filter(|name| !taken.contains(name));
    others.chain(&zip.not_utf8).for_each(|name| left_out.add("an array of another name", name));
    let in_order = parts.iter().any(|part| part.member.deflated);
    let source = format!("the arrays of {}", from.file_name().unwrap_or_default().to_string_lossy());
    let mut parts = parts.into_iter();
    let train = parts.next().context("no training images")?;
    let test = parts.next().map(|test| Box::new(test) as _);
    Ok(Imported { left_out, in_order, test, ..Imported::new(source, "", Box::new(train)) })
}

/// Opens the arrays `images` and `labels` and compares all their bytes with their checksums.
fn open(zip: &Archive, from: &Path, (images, labels): (&str, &str)) -> Result<Arrays, UserError> {
    let member = |name: &str| zip.find(&format!("{name}.npy")).cloned();
    let (Some(image_member), Some(label_member)) = (member(images), member(labels)) else {
        return Err(inside(from, &format!("{images} or {labels}"), &anyhow!("missing")));
    };
    let found = || -> Result<Images> {
        zip.check(&image_member)?;
        let mut header = Vec::new();
        zip.unpack(&image_member)?.take(HEADER).read_to_end(&mut header)?;
        npy::images(&npy::header(&header, image_member.size)?)
    };
    let found = found().map_err(|error| inside(from, images, &error))?;
    let values = zip.read(&label_member, LABELS).and_then(|bytes| npy::labels(&bytes));
    let values = values.map_err(|error| inside(from, labels, &error))?;
    if values.len() != found.count {
        return Err(inside(from, labels, &anyhow!("{} labels for {} images", values.len(), found.count)));
    }
    let (zip, unpacked) = (Arc::clone(zip), Mutex::new(None));
    Ok(Arrays { zip, member: image_member, images: found, labels: values, class_names: vec![], unpacked })
}

fn inside(from: &Path, name: &str, error: &anyhow::Error) -> UserError {
    UserError::expected("an array as the next step has it").file(from).key(name).value(format!("{error:#}")).hint(HINT)
}

#[cfg(test)]
pub(super) mod tests;
