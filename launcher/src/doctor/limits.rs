//! Limits of this process: open files, locked memory, shared memory, memory.

use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::finding::{Finding, ok, warning};
use crate::console::bytes;
use crate::machine::{available_memory, free_space};

/// Files that a rank needs beside those of MPI and its threads.
const FILES: u64 = 1024;
/// Locked memory that InfiniBand wants at least.
const LOCKED: u64 = 64 << 20;
/// Shared memory of each rank of a node.
const SHARED: f64 = 64e6;

/// The findings of this process, one of so many ranks on this host.
pub(super) fn findings(ranks_here: usize) -> Vec<Finding> {
    let mut all = vec![];
    if let Ok((files, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        all.push(open_files(files));
    }
    if let Ok((locked, _)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
        let infiniband = std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut entries| entries.next().is_some());
        all.push(locked_memory(locked, infiniband));
    }
    all.extend(free_space(Path::new("/dev/shm")).map(|free| shared_memory(free, ranks_here)));
    all.extend(available_memory().map(|free| ok("memory", format!("{} are available", bytes(free)))));
    all
}

fn amount(limit: u64) -> String {
    if limit == RLIM_INFINITY { "unlimited".into() } else { bytes(limit as f64) }
}

fn open_files(limit: u64) -> Finding {
    let text = if limit == RLIM_INFINITY { "unlimited".into() } else { limit.to_string() };
    if limit < FILES {
        warning("open files", text, format!("raise the limit: ulimit -n {FILES}"))
    } else {
        ok("open files", text)
    }
}

fn locked_memory(limit: u64, infiniband: bool) -> Finding {
    let text = format!("{} may be locked", amount(limit));
    if infiniband && limit < LOCKED {
        warning("locked memory", text, "InfiniBand needs more: ulimit -l unlimited, in the scheduler's limits too")
    } else {
        ok("locked memory", text)
    }
}

fn shared_memory(free: f64, ranks_here: usize) -> Finding {
    let text = format!("{} free in /dev/shm", bytes(free));
    if free < SHARED * ranks_here as f64 {
        warning(
            "shared memory",
            text,
            "MPI and NCCL talk through it: in a container, start it with --shm-size=1g or --ipc=host",
        )
    } else {
        ok("shared memory", text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn small_limits_are_warned_of() {
        assert_eq!((open_files(256).level, open_files(4096).level), (Level::Warning, Level::Ok));
        assert_eq!(locked_memory(8 << 20, true).level, Level::Warning);
        assert_eq!(locked_memory(8 << 20, false).level, Level::Ok);
        assert_eq!(locked_memory(RLIM_INFINITY, true).text, "unlimited may be locked");
        assert_eq!((shared_memory(64e6, 4).level, shared_memory(1e9, 4).level), (Level::Warning, Level::Ok));
    }
}
