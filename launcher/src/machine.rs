//! What this machine has left: memory and disk.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Bytes of memory that a new process can have without swapping.
pub(crate) fn available_memory() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// Bytes that can be written at `path`, or at the nearest folder above it that exists.
pub(crate) fn free_space(path: &Path) -> Option<f64> {
    let path = std::path::absolute(path).ok()?;
    let existing = path.ancestors().find(|folder| folder.exists())?;
    let found = statvfs(existing).ok()?;
    Some(found.blocks_available() as f64 * found.fragment_size() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_memory_and_a_disk() {
        assert!(available_memory().unwrap() > 1e6);
        let here = free_space(Path::new(".")).unwrap();
        assert!(here > 0.0 && free_space(Path::new("no/such/folder")).is_some());
    }
}
