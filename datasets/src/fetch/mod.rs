//! Downloading the published archives.
//!
//! It may use `ground`. An import reads the downloaded files.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::fetch::official::{OFFICIAL, OfficialFile};
use crate::fetch::options::{Fetch, Progress};
use crate::ground::error::UserError;

mod download;
pub(crate) mod official;
pub(crate) mod options;

/// Downloads the published files of `dataset` and compares them with their checksums; those that are there already are
/// only compared. Returns what [`import`](crate::import) reads them from. Proxies are taken from `ALL_PROXY`,
/// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
///
/// # Errors
/// A [`UserError`] for an unknown data set and for contents other than the published ones; other errors when nothing comes
/// in spite of all tries. Received bytes are kept, and the next call resumes the download.
pub fn fetch(dataset: &str, how: &Fetch, progress: &mut dyn FnMut(&Progress)) -> Result<PathBuf> {
    fetch_of(&OFFICIAL, dataset, how, progress)
}

/// The same for the files of another table.
fn fetch_of(
    table: &[OfficialFile],
    dataset: &str,
    how: &Fetch,
    progress: &mut dyn FnMut(&Progress),
) -> Result<PathBuf> {
    let files: Vec<_> = table.iter().filter(|file| file.dataset == dataset).collect();
    if files.is_empty() {
        let mut known: Vec<_> = table.iter().map(|file| file.dataset).collect();
        known.dedup();
        let hint = "other data sets are imported from files: `iad-launch data import NAME --from PATH --to FILE.h5`";
        let error = UserError::expected(known.join(", ")).key("the data set").value(dataset).hint(hint);
        return Err(error.did_you_mean(dataset, known).into());
    }
    let folder = how.cache.join(dataset);
    fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let mut paths = Vec::new();
    for file in &files {
        paths.push(download::whole(file, &address(file, how.mirror.as_deref())?, &folder, how, progress)?);
    }
    // One file is an archive; several are read from their folder.
    Ok(if let [path] = &paths[..] { path.clone() } else { folder })
}

fn address(file: &OfficialFile, mirror: Option<&str>) -> Result<String, UserError> {
    let Some(mirror) = mirror else { return Ok(file.url.to_owned()) };
    if !mirror.starts_with("http://") && !mirror.starts_with("https://") {
        let hint = "files on a disk need no download: `iad-launch data import NAME --from PATH --to FILE.h5`";
        let expected = "an address that begins with http:// or https://";
        return Err(UserError::expected(expected).key("--mirror").value(mirror).hint(hint));
    }
    Ok(format!("{}/{}", mirror.trim_end_matches('/'), file.name()))
}

/// The default folder for downloads: `downloads` in `$IAD_CACHE`, or in `~/.cache/iad`.
///
/// # Errors
/// Neither variable is set.
pub fn default_cache() -> Result<PathBuf, UserError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("IAD_CACHE").or_else(|| Some(set("HOME")?.join(".cache/iad")));
    let cache = cache.ok_or_else(|| {
        UserError::expected("a folder for downloads")
            .key("HOME and IAD_CACHE")
            .value("not set")
            .hint("name the folder with --cache FOLDER, or set IAD_CACHE")
    })?;
    Ok(cache.join("downloads"))
}

#[cfg(test)]
mod tests;
