//! Writing a data set file: complete and verified under its name, or not at all.

use std::fs;
use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, anyhow, ensure};

use super::{Split, verify};
use crate::blocks::cores;
use crate::{Memory, Source, UserError, hdf5};

/// What a data set file is to say of itself.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The name of the data set.
    pub name: String,
    /// Where its images came from, in words.
    pub source: String,
    /// Where they can be had; empty if nowhere.
    pub url: String,
    /// The names of its classes.
    pub class_names: Vec<String>,
    /// The coarser classes that these belong to.
    pub coarse: Option<Coarse>,
}

/// Coarser classes above those of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coarse {
    /// Their names.
    pub names: Vec<String>,
    /// To which of them each class belongs.
    pub of_class: Vec<i64>,
}

/// How images lie in a data set file, and how many threads read them for it. By default in one piece, which ranks map.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layout {
    /// Images in a chunk; none for one piece.
    pub chunk: Option<usize>,
    /// The level of deflate, 1 to 9; makes chunks.
    pub compress: Option<u8>,
    /// Threads; none for as many as there are cores. The file does not depend on it.
    pub threads: Option<usize>,
}

impl Layout {
    /// Images in a chunk, or none: about 1 MiB of them where the number was left open.
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

/// Writes a data set file of images in memory, in one piece; see [`write_from`].
pub fn write(path: &Path, name: &str, source: &str, class_names: &[String], splits: &[(Split, &Memory)]) -> Result<()> {
    let about =
        About { name: name.into(), source: source.into(), class_names: class_names.to_vec(), ..About::default() };
    let splits: Vec<_> = splits.iter().map(|&(split, part)| (split, part as &dyn Source)).collect();
    write_from(path, &about, &splits, &Layout::default())
}

/// Writes a data set file with `splits`, whose class names must be those of `about`.
///
/// The file appears complete and verified, or not at all; one that exists already is left alone (a [`UserError`]).
/// However large the splits are, only some blocks of images are in memory.
pub fn write_from(path: &Path, about: &About, splits: &[(Split, &dyn Source)], layout: &Layout) -> Result<()> {
    ensure!(!splits.is_empty(), "a data set file needs a split");
    let proper = |part: &dyn Source| !part.is_empty() && part.class_names() == about.class_names;
    let names = &about.class_names;
    ensure!(splits.iter().all(|(_, part)| proper(*part)), "a split is empty or has other classes than {names:?}");
    refuse_existing(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let hint = format!("mkdir -p '{}'", folder.display());
        return Err(UserError::expected("an existing folder to write to").file(folder).hint(hint).into());
    }
    let file_name = path.file_name().ok_or_else(|| anyhow!("{} names no file", path.display()))?;
    let unfinished = folder.join(format!(".{}.unfinished-{}", file_name.to_string_lossy(), process::id()));
    let unfinished = Unfinished::claim(unfinished)?;

    hdf5::fill(&unfinished.0, about, splits, layout).with_context(|| format!("writing {}", path.display()))?;
    verify(&unfinished.0).context("reading back what was written")?;
    fs::File::open(&unfinished.0)?.sync_all()?;
    refuse_existing(path)?;
    fs::rename(&unfinished.0, path).with_context(|| format!("renaming to {}", path.display()))?;
    // Without this the new name may be lost with the power.
    fs::File::open(folder)?.sync_all().with_context(|| format!("syncing {}", folder.display()))
}

/// Refuses a target that is already there.
pub fn refuse_existing(path: &Path) -> Result<(), UserError> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let hint = format!("choose another name, or remove it first: rm '{}'", path.display());
    Err(UserError::expected("a file that does not exist yet").file(path).hint(hint))
}

/// A file under a provisional name, removed unless it was renamed.
struct Unfinished(PathBuf);

impl Unfinished {
    fn claim(path: PathBuf) -> Result<Self> {
        match fs::File::create_new(&path) {
            Ok(_) => Ok(Self(path)),
            Err(error) if [PermissionDenied, ReadOnlyFilesystem].contains(&error.kind()) => {
                let folder = path.parent().unwrap_or(&path).to_owned();
                let hint = "choose a folder of your own, or change its permissions";
                Err(UserError::expected("a folder that can be written to").file(folder).value(error).hint(hint).into())
            }
            Err(error) => Err(anyhow!(error).context(format!("creating {}", path.display()))),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already when all went well.
        let _ = fs::remove_file(&self.0);
    }
}
