//! Files of adversarial images for other programs, written image by image in bounded memory.
//!
//! Datasets: `images` (`f32 [N, channels, height, width]`, in [0, 1]), `labels`, `index` (the sample's number),
//! `predictions` and `attack` (all `i64 [N]`). `attack` is an index into the attribute `attacks`, or -1 for none.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ::hdf5::dataset::AllocTime;
use ::hdf5::types::FixedUnicode;
use ::hdf5::{File, Group, H5Type};
use anyhow::{Context, Result, ensure};

use super::write::{NAME, fixed, write_string};
use crate::ground::source::Source;

const SCHEMA: &str = "iad-adversarial";

/// A file of adversarial images under way. The HDF5 library lays it out and leaves; values are then written in place, so that
/// the file is complete HDF5 at every moment, and a killed evaluation can resume.
#[derive(Debug)]
pub struct AdversarialFile {
    path: PathBuf,
    file: fs::File,
    /// The offsets of `images`, `predictions` and `attack`.
    places: [u64; 3],
    image_bytes: usize,
    samples: usize,
}

impl AdversarialFile {
    /// Lays out the file at `path`, replacing what is there, for the samples of `source`: each is as it is in the source, its
    /// prediction and its attack -1. `evaluation` identifies the evaluation that makes them.
    ///
    /// # Errors
    /// Errors of the file system or of the source.
    pub fn create(path: &Path, source: &dyn Source, attacks: &[String], evaluation: &str) -> Result<Self> {
        let context = || format!("writing {}", path.display());
        lay_out(path, source, attacks, evaluation).with_context(context)?;
        let made = Self::open(path, evaluation)?;
        let mut bytes = vec![0; source.shape().iter().product()];
        for sample in 0..source.len() {
            source.read(sample, &mut bytes)?;
            let pixels: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect();
            made.put(sample, &pixels, -1, -1)?;
        }
        made.sync()?;
        Ok(made)
    }

    /// Opens a file that [`create`](Self::create) has laid out for the same `evaluation`.
    ///
    /// # Errors
    /// A file that is missing, damaged, or of another evaluation.
    pub fn open(path: &Path, evaluation: &str) -> Result<Self> {
        let opened = || -> Result<Self> {
            let file = File::with_options().with_fapl(|access| access.file_locking(false)).open(path)?;
            let text = |key: &str| -> Result<String> {
                Ok(file.attr(key)?.read_scalar::<FixedUnicode<NAME>>()?.as_str().to_owned())
            };
            ensure!(text("schema")? == SCHEMA, "not a file of adversarial images");
            ensure!(text("evaluation")? == evaluation, "the images of another evaluation");
            let shape = file.dataset("images")?.shape();
            let [samples, channels, height, width] = *shape.as_slice() else { anyhow::bail!("images of {shape:?}") };
            let place = |name: &str| -> Result<u64> {
                file.dataset(name)?.offset().with_context(|| format!("{name} has no place in the file"))
            };
            let places = [place("images")?, place("predictions")?, place("attack")?];
            file.close()?;
            let file = fs::File::options().write(true).open(path)?;
            let image_bytes = channels * height * width * size_of::<f32>();
            Ok(Self { path: path.to_owned(), file, places, image_bytes, samples })
        };
        opened().with_context(|| path.display().to_string())
    }

    /// Stores the image of `sample`, the network's prediction for it, and the attack that made it.
    ///
    /// # Errors
    /// A sample that is not there, an image of another size, or errors of the file system.
    pub fn put(&self, sample: usize, pixels: &[f32], prediction: i64, attack: i64) -> Result<()> {
        ensure!(sample < self.samples, "sample {sample} of {}", self.samples);
        let bytes: Vec<u8> = pixels.iter().flat_map(|value| value.to_le_bytes()).collect();
        ensure!(bytes.len() == self.image_bytes, "an image of {} bytes, not {}", bytes.len(), self.image_bytes);
        let [images, predictions, attacks] = self.places;
        let write = |bytes: &[u8], place: u64| {
            self.file.write_all_at(bytes, place).with_context(|| format!("writing {}", self.path.display()))
        };
        write(&bytes, images + (sample * self.image_bytes) as u64)?;
        let label = (sample * size_of::<i64>()) as u64;
        write(&prediction.to_le_bytes(), predictions + label)?;
        write(&attack.to_le_bytes(), attacks + label)
    }

    /// Stores the network's prediction for an unchanged image.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn put_prediction(&self, sample: usize, prediction: i64) -> Result<()> {
        ensure!(sample < self.samples, "sample {sample} of {}", self.samples);
        let place = self.places[1] + (sample * size_of::<i64>()) as u64;
        let written = self.file.write_all_at(&prediction.to_le_bytes(), place);
        written.with_context(|| format!("writing {}", self.path.display()))
    }

    /// Waits until all that was stored is on the disk.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().with_context(|| format!("writing {}", self.path.display()))
    }
}

/// An image of a file of adversarial images.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) sample: usize,
    pub(crate) label: i64,
    pub(crate) prediction: i64,
    /// The attack that made it, if one did.
    pub(crate) attack: Option<String>,
    pub(crate) pixels: Vec<f32>,
}

/// At most `most` images of this shape from the file at `path`, those that an attack changed before the others.
///
/// # Errors
/// A file of another kind or with images of another shape; errors of the file system.
pub(crate) fn read_first(path: &Path, shape: [usize; 3], most: usize) -> Result<Vec<Found>> {
    let read = || -> Result<Vec<Found>> {
        let file = File::with_options().with_fapl(|access| access.file_locking(false)).open(path)?;
        let schema = file.attr("schema")?.read_scalar::<FixedUnicode<NAME>>()?;
        ensure!(schema.as_str() == SCHEMA, "not a file of adversarial images");
        let names = file.attr("attacks")?.read_raw::<FixedUnicode<NAME>>()?;
        let images = file.dataset("images")?;
        ensure!(images.shape().get(1..) == Some(&shape[..]), "images of {:?}, not {shape:?}", images.shape());
        let values = |name: &str| -> Result<Vec<i64>> { Ok(file.dataset(name)?.read_raw()?) };
        let [labels, predictions, attacks] = ["labels", "predictions", "attack"].map(values);
        let (labels, predictions, attacks) = (labels?, predictions?, attacks?);
        ensure!(labels.len() == predictions.len() && labels.len() == attacks.len(), "tables of different lengths");
        let place = images.offset().context("the images have no place in the file")?;
        let name = |sample: usize| {
            let name = usize::try_from(attacks[sample]).ok().and_then(|attack| names.get(attack))?;
            Some(name.as_str().to_owned()).filter(|name| name != "natural")
        };
        let decided = (0..labels.len()).filter(|sample| predictions[*sample] >= 0);
        let (changed, others): (Vec<usize>, Vec<usize>) = decided.partition(|sample| name(*sample).is_some());
        let content = fs::File::open(path)?;
        let mut bytes = vec![0; shape.iter().product::<usize>() * size_of::<f32>()];
        let mut found = vec![];
        for sample in changed.into_iter().chain(others).take(most) {
            let at = place + (sample * bytes.len()) as u64;
            content.read_exact_at(&mut bytes, at)?;
            let pixels = bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
            let (label, prediction) = (labels[sample], predictions[sample]);
            found.push(Found { sample, label, prediction, attack: name(sample), pixels });
        }
        Ok(found)
    };
    read().with_context(|| path.display().to_string())
}

fn lay_out(path: &Path, source: &dyn Source, attacks: &[String], evaluation: &str) -> Result<()> {
    let file = File::with_options()
        .with_fapl(|access| access.file_locking(false).libver_v110())
        .with_fcpl(|create| create.obj_track_times(false))
        .create(path)?;
    write_string::<NAME>(&file, "schema", SCHEMA)?;
    write_string::<NAME>(&file, "evaluation", evaluation)?;
    let names = attacks.iter().map(|name| fixed::<NAME>("attacks", name)).collect::<Result<Vec<_>, _>>()?;
    file.new_attr::<FixedUnicode<NAME>>().shape(names.len()).create("attacks")?.write_raw(&names)?;
    let ([channels, height, width], samples) = (source.shape(), source.len());
    let images = file.new_dataset::<f32>().obj_track_times(false).alloc_time(Some(AllocTime::Early));
    images.shape((samples, channels, height, width)).create("images")?;
    let labels: Vec<i64> = (0..samples).map(|sample| source.label(sample)).collect();
    let index: Vec<i64> = (0..samples as i64).collect();
    values(&file, "labels", &labels)?;
    values(&file, "index", &index)?;
    values(&file, "predictions", &vec![-1i64; samples])?;
    values(&file, "attack", &vec![-1i64; samples])?;
    file.flush()?;
    Ok(file.close()?)
}

fn values<T: H5Type>(file: &Group, name: &str, values: &[T]) -> Result<()> {
    let dataset = file.new_dataset::<T>().obj_track_times(false).alloc_time(Some(AllocTime::Early));
    Ok(dataset.shape(values.len()).create(name)?.write_raw(values)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::memory::numbered;

    #[test]
    fn images_are_found_where_they_were_put() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("found.h5");
        let source = numbered(5, [1, 2, 2]);
        let attacks = ["natural".to_string(), "pgd20".to_string()];
        AdversarialFile::create(&path, &source, &attacks, "a hash")?.put(3, &[0.25, 0.5, 0.75, 1.0], 1, 1)?;
        // A second process resumes.
        let again = AdversarialFile::open(&path, "a hash")?;
        again.put_prediction(0, 7)?;
        again.sync()?;
        assert!(again.put(5, &[0.0; 4], 0, 0).is_err() && again.put(0, &[0.0; 3], 0, 0).is_err());
        assert!(AdversarialFile::open(&path, "another").is_err());

        let file = File::open(&path)?;
        let images = file.dataset("images")?.read_raw::<f32>()?;
        let mut natural = [0; 4];
        source.read(1, &mut natural)?;
        assert_eq!(images[4..8], natural.map(|byte| f32::from(byte) / 255.0));
        assert_eq!(images[12..16], [0.25, 0.5, 0.75, 1.0]);
        assert_eq!(file.dataset("predictions")?.read_raw::<i64>()?, [7, -1, -1, 1, -1]);
        assert_eq!(file.dataset("attack")?.read_raw::<i64>()?, [-1, -1, -1, 1, -1]);
        assert_eq!(file.dataset("labels")?.read_raw::<i64>()?[2], source.label(2));
        assert_eq!(file.dataset("index")?.read_raw::<i64>()?, [0, 1, 2, 3, 4]);
        Ok(())
    }
}
