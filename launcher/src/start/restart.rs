//! When to start failed ranks again, and on how many: decisions only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trainer::run::folder::RunFolder;

use crate::exit::STOPPED;

/// The longest pause before a start.
const LONGEST: Duration = Duration::from_secs(30);
/// The number of failures in a row without progress after which restarts end.
const FRUITLESS: u32 = 2;

/// The next action after the ranks have ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// End without a message.
    End,
    /// End, for this reason.
    GiveUp(String),
    /// Start again after a pause.
    Again(Duration),
}

/// The starts of one command.
#[derive(Debug)]
pub(crate) struct Attempts {
    /// How many restarts were asked for.
    pub(crate) allowed: u32,
    /// How many starts have ended.
    pub(crate) made: u32,
    /// How many of the last ones left nothing new behind.
    fruitless: u32,
}

impl Attempts {
    /// None yet.
    pub(crate) fn new(allowed: u32) -> Self {
        Self { allowed, made: 0, fruitless: 0 }
    }

    /// Decides after a start that ended with `code`. A user's mistake (2) would be the same mistake again; a request to stop
    /// is obeyed even where the ranks fail over it.
    pub(crate) fn after(&mut self, code: u8, stop_requested: bool, progressed: bool) -> Next {
        self.made += 1;
        self.fruitless = if progressed { 0 } else { self.fruitless + 1 };
        if [0, 2, STOPPED].contains(&code) || stop_requested || self.allowed == 0 {
            return Next::End;
        }
        if self.made > self.allowed {
            return Next::GiveUp(format!(
                "that was the last of {} attempts (--max-restarts {})",
                self.made, self.allowed
            ));
        }
        if self.fruitless >= FRUITLESS {
            return Next::GiveUp(format!(
                "{FRUITLESS} attempts in a row left no newer checkpoint, so another one would fail as well"
            ));
        }
        Next::Again(LONGEST.min(Duration::from_secs(1 << (self.made - 1).min(10))))
    }
}

/// How many ranks to start where `wanted` were started beside `first` GPUs, and `now` are left: one for each GPU at most.
///
/// # Errors
/// There were GPUs and none is left: a run on the CPU is not the requested run.
pub(crate) fn ranks_left(wanted: usize, first: usize, now: usize) -> Result<usize, String> {
    match (first, now) {
        (0, _) => Ok(wanted),
        (_, 0) => Err(format!("none of the {first} GPUs is left")),
        _ => Ok(wanted.min(now)),
    }
}

/// The saved progress of each run: the newest checkpoint's step, whether the final weights exist, and the length of its
/// evaluation journals. A start that changes it made progress.
pub(crate) fn saved_progress(folders: &[PathBuf]) -> Vec<(u64, bool, u64)> {
    let each = |path: &PathBuf| {
        let folder = RunFolder::at(path);
        let newest = folder.checkpoints().first().map_or(0, |(step, _)| *step);
        (newest, folder.weights("final").is_file(), journals(path))
    };
    folders.iter().map(each).collect()
}

fn journals(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let journals = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "journal"));
    journals.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(next: &Next) -> u64 {
        let Next::Again(pause) = next else { panic!("{next:?}") };
        pause.as_secs()
    }

    #[test]
    fn failures_start_again_after_longer_and_longer_pauses() {
        let mut attempts = Attempts::new(8);
        let pauses: Vec<u64> = (0..8).map(|_| seconds(&attempts.after(1, false, true))).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        let Next::GiveUp(reason) = attempts.after(1, false, true) else { panic!("a ninth restart") };
        assert!(reason.contains("9 attempts") && reason.contains("--max-restarts 8"), "{reason}");
    }

    #[test]
    fn what_is_no_failure_is_left_alone() {
        for code in [0, 2, STOPPED] {
            assert_eq!(Attempts::new(3).after(code, false, false), Next::End);
        }
        assert_eq!(Attempts::new(3).after(1, true, true), Next::End, "after a request to stop");
        assert_eq!(Attempts::new(0).after(1, false, true), Next::End, "nobody asked for restarts");
    }

    #[test]
    fn two_failures_without_progress_in_a_row_are_enough() {
        let mut attempts = Attempts::new(100);
        assert_eq!(seconds(&attempts.after(1, false, false)), 1);
        assert_eq!(seconds(&attempts.after(1, false, true)), 2);
        assert_eq!(seconds(&attempts.after(1, false, false)), 4);
        let Next::GiveUp(reason) = attempts.after(1, false, false) else { panic!("another restart") };
        assert!(reason.contains("no newer checkpoint"), "{reason}");
    }

    #[test]
    fn ranks_follow_the_gpus_that_are_left() {
        assert_eq!(ranks_left(4, 0, 0), Ok(4), "on the CPU");
        assert_eq!(ranks_left(4, 4, 4), Ok(4));
        assert_eq!(ranks_left(4, 4, 3), Ok(3));
        assert_eq!(ranks_left(2, 4, 3), Ok(2), "fewer ranks than GPUs were asked for");
        assert_eq!(ranks_left(4, 4, 8), Ok(4), "never more than were asked for");
        assert!(ranks_left(4, 4, 0).is_err());
    }

    #[test]
    fn checkpoints_final_weights_and_journals_are_progress() {
        let world = tempfile::tempdir().unwrap();
        let folders = vec![world.path().join("run")];
        let mut seen = vec![saved_progress(&folders)];
        fs::create_dir_all(folders[0].join("checkpoints")).unwrap();
        for file in ["checkpoints/step-00000003.safetensors", "checkpoints/final.safetensors", "evaluation.1.journal"] {
            fs::write(folders[0].join(file), "text").unwrap();
            seen.push(saved_progress(&folders));
        }
        assert!(seen.windows(2).all(|two| two[0] != two[1]), "{seen:?}");
    }
}
