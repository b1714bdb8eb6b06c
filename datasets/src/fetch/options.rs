//! Options and progress of downloads.

use std::path::PathBuf;
use std::time::Duration;

/// Options of a download.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// The address to fetch the files from by name, instead of their official addresses.
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

/// Progress of a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file.
    pub name: &'a str,
    /// The bytes received.
    pub done: u64,
    /// The bytes of the whole file.
    pub total: u64,
    /// The error, if the download tries again after one.
    pub trouble: Option<String>,
}
