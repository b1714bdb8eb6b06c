//! The journal of an evaluation: every decided batch is on the disk, so that a kill loses nothing else.
//!
//! Its first line names the evaluation, every other line is a [`RoundStep`] with its checksum.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datasets::UserError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::evaluate::{Outcomes, RoundStep};
use crate::system::files::{read_regular, write_atomically};

/// The open journal of the leader.
pub struct Journal {
    path: PathBuf,
    file: File,
}

#[derive(Serialize, Deserialize)]
struct Heading {
    evaluation: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    sha256: String,
    step: RoundStep,
}

/// SHA-256 of a value's JSON, in hexadecimal.
///
/// # Errors
/// A value that is no JSON.
pub fn digest(value: &impl Serialize) -> Result<String> {
    Ok(base16ct::lower::encode_string(&Sha256::digest(serde_json::to_string(value)?)))
}

impl Journal {
    /// Opens or begins the journal of `evaluation` (a hash of everything its results depend on) at `path`. Returns the steps
    /// in it that fit `fresh`, and what was wrong with the others.
    ///
    /// # Errors
    /// A second process that writes it; errors of the file system.
    pub fn open(path: &Path, evaluation: &str, fresh: &Outcomes) -> Result<(Self, Vec<RoundStep>, Vec<String>)> {
        let context = || format!("writing {}", path.display());
        let text = read_regular(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.split_terminator('\n');
        let heading = serde_json::to_string(&Heading { evaluation: evaluation.to_string() })?;
        let (mut steps, mut good, mut bad) = (vec![], heading.clone() + "\n", 0);
        if lines.next() == Some(&heading) {
            let mut known = fresh.clone();
            for line in lines {
                match step(line).filter(|step| known.apply(step).is_ok()) {
                    Some(step) => {
                        good += &format!("{line}\n");
                        steps.push(step);
                    }
                    None => bad += 1,
                }
            }
        } else if !text.is_empty() {
            bad += text.lines().count();
        }
        if good != text {
            // The next line must not join a broken one.
            write_atomically(path, good.as_bytes())?;
        }
        let file = File::options().append(true).open(path).with_context(context)?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(UserError::expected("an evaluation that no other process is doing")
                .file(path)
                .hint("wait for the other one to end")
                .into());
        }
        let problem =
            format!("{}: {bad} damaged line(s) are left out, and their images attacked again", path.display());
        let problems = if bad > 0 { vec![problem] } else { vec![] };
        Ok((Self { path: path.to_path_buf(), file }, steps, problems))
    }

    /// Adds a step, and waits until it is on the disk.
    ///
    /// # Errors
    /// Anything the file system says.
    pub fn add(&mut self, step: &RoundStep) -> Result<()> {
        let line = serde_json::to_string(&Line { sha256: digest(step)?, step: step.clone() })? + "\n";
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.with_context(|| format!("writing {}", self.path.display()))
    }

    /// Removes it after its results are written.
    pub fn remove(self) {
        // A journal that stays costs space, not correctness.
        let _ = fs::remove_file(&self.path);
    }
}

fn step(line: &str) -> Option<RoundStep> {
    let Line { sha256, step } = serde_json::from_str(line).ok()?;
    (digest(&step).ok()? == sha256).then_some(step)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Protocol, Suite};

    fn outcomes() -> Outcomes {
        let suite = Suite::named(["natural", "pgd20"]).unwrap();
        let rounds = suite.rounds(&Protocol::default(), 10);
        Outcomes::new(&suite, rounds, 8)
    }

    fn step(round: usize, samples: &[usize]) -> RoundStep {
        let fallen = samples.iter().map(|sample| if sample % 2 == 0 { '0' } else { '1' }).collect();
        let predictions = vec![3; samples.len()];
        let batch = crate::evaluate::Decided { samples: samples.to_vec(), fallen, predictions, ..Default::default() };
        RoundStep { round, seconds: 0.1 + 0.2, batches: vec![batch] }
    }

    #[test]
    fn what_was_written_is_found_whatever_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.journal");
        let steps = [step(0, &[0, 1, 2]), step(0, &[3]), step(1, &[4, 5])];
        let (mut journal, found, problems) = Journal::open(&path, "a", &outcomes()).unwrap();
        assert!(found.is_empty() && problems.is_empty());
        let mut ends = vec![fs::metadata(&path).unwrap().len() as usize];
        for step in &steps {
            journal.add(step).unwrap();
            ends.push(fs::metadata(&path).unwrap().len() as usize);
        }
        drop(journal);
        let whole = fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (mut journal, found, problems) = Journal::open(&path, "a", &outcomes()).unwrap();
            // The line feed itself may be missing.
            let kept = ends[1..].iter().filter(|&&end| end <= length + 1).count();
            assert_eq!(found, steps[..kept], "cut to {length} bytes");
            let torn = length > 0 && !ends.iter().any(|&end| end == length || end == length + 1);
            assert_eq!(!problems.is_empty(), torn, "cut to {length} bytes: {problems:?}");
            journal.add(&step(1, &[7])).unwrap();
            drop(journal);
            assert_eq!(Journal::open(&path, "a", &outcomes()).unwrap().1.len(), kept + 1);
        }
    }

    #[test]
    fn damaged_lines_and_other_evaluations_count_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.journal");
        let mut journal = Journal::open(&path, "a", &outcomes()).unwrap().0;
        for step in [step(0, &[0, 1]), step(0, &[2, 3]), step(0, &[4, 5])] {
            journal.add(&step).unwrap();
        }
        drop(journal);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("[2,3]", "[2,6]", 1)).unwrap();
        let (journal, found, problems) = Journal::open(&path, "a", &outcomes()).unwrap();
        assert_eq!(found, [step(0, &[0, 1]), step(0, &[4, 5])]);
        assert!(problems[0].contains("1 damaged line"), "{problems:?}");
        assert!(Journal::open(&path, "a", &outcomes()).is_err(), "it is locked");
        drop(journal);
        let (_, found, problems) = Journal::open(&path, "b", &outcomes()).unwrap();
        assert!(found.is_empty() && problems.len() == 1);
    }
}
