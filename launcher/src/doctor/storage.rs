//! The file system of the run folders: write access, locks and free space.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use super::finding::{Finding, error, ok, warning};
use crate::console::bytes;
use crate::machine::free_space;

/// A run of a large network with its checkpoints fits in this.
const ENOUGH: f64 = 5e9;

/// The findings at `runs`, or where it would be made: the nearest folder above it that there is.
pub(super) fn findings(runs: &Path) -> Vec<Finding> {
    let place = runs.ancestors().find(|place| place.symlink_metadata().is_ok()).unwrap_or(Path::new("."));
    tried(runs, place).into_iter().chain(space(place)).collect()
}

fn tried(runs: &Path, place: &Path) -> Vec<Finding> {
    let trial = place.join(format!(".doctor-{}-{}", comm::host_name(), std::process::id()));
    let shown = runs.display();
    let written = fs::write(&trial, "a trial of iad-launch doctor");
    let found = match &written {
        Err(problem) => vec![error(
            "run folder",
            format!("{shown} cannot be written: {problem}"),
            "choose another folder with --runs here, and with --run for runs, or see its permissions and quota",
        )],
        Ok(()) => vec![ok("run folder", format!("{shown} can be written")), locking(&trial)],
    };
    let _ = fs::remove_file(&trial);
    found
}

/// Two handles of one file: the second lock must be refused.
fn locking(file: &Path) -> Finding {
    let open = || File::options().write(true).open(file);
    let (Ok(first), Ok(second)) = (open(), open()) else {
        return warning("locking", "the trial could not be made", "look at the file system");
    };
    match (first.try_lock(), second.try_lock()) {
        (Ok(()), Err(TryLockError::WouldBlock)) => ok("locking", "a second start in a run folder is refused"),
        (Ok(()), Ok(())) => warning(
            "locking",
            "the file system grants every lock",
            "start each run once: two starts in one folder are not noticed here",
        ),
        _ => warning(
            "locking",
            "the file system has no locks",
            "start each run once: two starts in one folder are not noticed here",
        ),
    }
}

fn space(runs: &Path) -> Option<Finding> {
    let free = free_space(runs)?;
    let text = format!("{} free", bytes(free));
    Some(if free < ENOUGH {
        warning("disk", text, "`iad-launch plan CONFIG` tells what a run needs; checkpoint.keep_last = 1 keeps fewer")
    } else {
        ok("disk", text)
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let found = findings(&runs);
        assert!(found.iter().any(|found| found.subject == "locking" && found.level == Level::Ok), "{found:?}");
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(findings(&file.join("runs"))[0].level, Level::Error);
    }
}
