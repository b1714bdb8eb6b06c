//! A disk that fails: a library of ours, preloaded into the program, makes one of its system calls go wrong.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Program;

/// A fault of `disk/disk.c`.
#[derive(Debug, Clone, Copy)]
pub struct DiskFault {
    /// The number of the call that goes wrong, from 1.
    pub call: u64,
    /// `enospc`, `eio`, `short` (a write takes half) or `kill` (the process dies there, and a write has taken half).
    pub kind: &'static str,
    /// Whether all later calls go wrong as well.
    pub lasts: bool,
}

/// A system call that the library saw.
#[derive(Debug)]
pub struct DiskCall {
    /// Its number, from 1.
    pub number: u64,
    /// `open`, `write`, `pwrite`, `fsync`, `truncate`, `rename` or `unlink`.
    pub name: String,
    /// The file, or the new name of a rename.
    pub path: PathBuf,
    /// The fault that happened, or nothing.
    pub fault: String,
}

impl Program {
    /// With system calls on paths that begin with one of `paths` written to `log`, and with this fault.
    pub fn with_disk(self, paths: &[PathBuf], log: &Path, fault: Option<DiskFault>) -> Self {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let program = self.variable("LD_PRELOAD", env!("IAD_DISK_LIBRARY"));
        let program = program.variable("IAD_DISK_PATHS", &paths.join(":"));
        let program = program.variable("IAD_DISK_LOG", &log.display().to_string());
        let Some(DiskFault { call, kind, lasts }) = fault else { return program };
        let program = program.variable("IAD_DISK_CALL", &call.to_string()).variable("IAD_DISK_FAULT", kind);
        if lasts { program.variable("IAD_DISK_LASTS", "1") } else { program }
    }
}

/// The calls in a log of [`Program::with_disk`].
///
/// # Errors
/// A log that is missing or of another form.
pub fn disk_calls(log: &Path) -> Result<Vec<DiskCall>> {
    let text = fs::read_to_string(log).with_context(|| log.display().to_string())?;
    let call = |line: &str| {
        let mut parts = line.split(' ');
        let mut next = || parts.next().with_context(|| line.to_string());
        let (number, name, path) = (next()?.parse()?, next()?.to_string(), PathBuf::from(next()?));
        Ok(DiskCall { number, name, path, fault: next()?.to_string() })
    };
    text.lines().map(call).collect()
}
