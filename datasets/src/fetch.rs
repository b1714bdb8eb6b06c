//! Downloading the published archives: where they are, how large, and their checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::UserError;

mod download;

/// A published file.
#[derive(Debug, Clone, Copy)]
pub struct OfficialFile {
    /// The data set it belongs to.
    pub dataset: &'static str,
    /// Where its authors, or their institute, serve it.
    pub url: &'static str,
    /// Its length.
    pub bytes: u64,
    /// Its MD5, in hex: the sum that its authors publish, or that torchvision and others check.
    pub md5: &'static str,
}

/// Every file that [`fetch`] can get. MD5 tells damage and mix-ups; it is no protection from a forger.
pub const OFFICIAL: [OfficialFile; 7] = [
    OfficialFile {
        dataset: "cifar10",
        url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        bytes: 170_052_171,
        md5: "c32a1d4ab5d03f1284b67883e8d87530",
    },
    OfficialFile {
        dataset: "cifar100",
        url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        bytes: 168_513_733,
        md5: "03b5dce01913d631647c71ecec9e9cb8",
    },
    OfficialFile {
        dataset: "tiny-imagenet",
        url: "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        bytes: 248_100_043,
        md5: "90528d7ca1a48142e341f4ef8d21d0de",
    },
    OfficialFile {
        dataset: "fashion-mnist",
        url: "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/train-images-idx3-ubyte.gz",
        bytes: 26_421_880,
        md5: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    },
    OfficialFile {
        dataset: "fashion-mnist",
        url: "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/train-labels-idx1-ubyte.gz",
        bytes: 29_515,
        md5: "25c81989df183df01b3e8a0aad5dffbe",
    },
    OfficialFile {
        dataset: "fashion-mnist",
        url: "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/t10k-images-idx3-ubyte.gz",
        bytes: 4_422_102,
        md5: "bef4ecab320f06d8554ea6380940ec79",
    },
    OfficialFile {
        dataset: "fashion-mnist",
        url: "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/t10k-labels-idx1-ubyte.gz",
        bytes: 5_148,
        md5: "bb300cfdad3c16e7a12a480ee83cd310",
    },
];

impl OfficialFile {
    /// The last part of its address.
    pub fn name(&self) -> &'static str {
        self.url.rsplit('/').next().unwrap_or(self.url)
    }
}

/// How to download.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// Where to look for the files by their names, instead of their official addresses.
    pub mirror: Option<String>,
    /// The folder in which downloads are kept, each data set in its own.
    pub cache: PathBuf,
    /// How long to wait for a connection, and for every next piece of a file.
    pub patience: Duration,
    /// Tries in a row that bring nothing before giving up.
    pub tries: u32,
    /// The pause after the first such try; each further one is twice as long.
    pub pause: Duration,
}

impl Fetch {
    /// The usual patience, with downloads in `cache`.
    pub fn to(cache: PathBuf) -> Self {
        let (patience, pause) = (Duration::from_secs(30), Duration::from_secs(1));
        Self { mirror: None, cache, patience, tries: 6, pause }
    }
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file.
    pub name: &'a str,
    /// The bytes that are there.
    pub done: u64,
    /// The bytes of the whole file.
    pub total: u64,
    /// What went wrong, where the download tries again.
    pub trouble: Option<String>,
}

/// Downloads the published files of `dataset` and compares them with their checksums; those that are there already are
/// only compared. Returns what [`import`](crate::import) reads them from. Proxies are taken from `ALL_PROXY`,
/// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
///
/// # Errors
/// A [`UserError`] for an unknown data set and for contents other than the published ones; other errors when nothing comes
/// in spite of all tries. What has come is kept: the next call goes on from there.
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
        return Err(UserError::expected(known.join(", ")).key("the data set").value(dataset).hint(hint).into());
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

/// The folder for downloads where none is named: `downloads` in `$IAD_CACHE`, or in `~/.cache/iad`.
pub fn default_cache() -> PathBuf {
    let own = std::env::var_os("IAD_CACHE").map(PathBuf::from);
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/iad");
    own.unwrap_or_else(home).join("downloads")
}

#[cfg(test)]
mod tests;
