//! Writing a data set file: complete and verified under its name, or not at all.

use std::fs;
use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, anyhow, ensure};

use crate::container::verify::verify;
use crate::ground::error::UserError;
use crate::ground::memory::Memory;
use crate::ground::regular::in_words;
use crate::ground::source::Source;
use crate::hdf5::write::fill;
use crate::schema::about::{About, Split};
use crate::schema::layout::Layout;

/// Writes a data set file of images in memory, in one piece; see [`write_from`].
pub fn write(path: &Path, name: &str, source: &str, class_names: &[String], splits: &[(Split, &Memory)]) -> Result<()> {
    let about =
        About { name: name.into(), source: source.into(), class_names: class_names.to_vec(), ..About::default() };
    let splits: Vec<_> = splits.iter().map(|&(split, part)| (split, part as &dyn Source)).collect();
    write_from(path, &about, &splits, &Layout::default())
}

/// Writes a data set file with `splits`, whose class names must be those of `about`.
///
/// The file appears complete and verified, or not at all; an existing file is not overwritten (a [`UserError`]).
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

    fill(&unfinished.0, about, splits, layout).with_context(|| format!("writing {}", path.display()))?;
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
                Err(UserError::expected("a folder that can be written to")
                    .file(folder)
                    .value(in_words(&error))
                    .hint(hint)
                    .into())
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
