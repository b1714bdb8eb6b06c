//! Which checkpoint a run resumes from, and which older ones are removed.
//!
//! Two rules keep a run from being lost. What cannot be read ends the start: nothing begins anew because of it. And a
//! checkpoint is removed only for newer ones that this process has read or written itself.

use std::fs;
use std::path::Path;

use anyhow::Result;
use datasets::UserError;

use crate::run::folder::RunFolder;
use crate::system::files::read_regular;
use crate::weights::checkpoint::{self, Header, Tensors};

/// The checkpoint that a run resumes from.
pub struct Newest {
    /// Its header.
    pub header: Header,
    /// Its tensors.
    pub tensors: Tensors,
    /// Why each newer one was not taken, with its file.
    pub refused: Vec<String>,
}

/// The newest whole checkpoint of `folder` that fits `metrics_bytes`, the length of metrics.jsonl; none in a folder without
/// checkpoints.
///
/// # Errors
/// A folder or a file that cannot be read, whatever else is there. A [`UserError`] where no checkpoint can be taken.
pub fn newest(folder: &RunFolder, metrics_bytes: u64) -> Result<Option<Newest>> {
    let mut refused = vec![];
    let mut damaged = vec![];
    let listed = folder.list_checkpoints();
    let listed = listed.map_err(|error| unreadable(folder, &folder.path.join("checkpoints"), &error))?;
    for (_, path) in listed {
        let bytes = read_regular(&path).map_err(|error| unreadable(folder, &path, &error))?;
        match checkpoint::from_bytes(&bytes) {
            Ok((header, _)) if header.metrics_bytes > metrics_bytes => refused.push(format!(
                "{} was saved when metrics.jsonl had {} bytes, and it has only {metrics_bytes} now",
                path.display(),
                header.metrics_bytes
            )),
            Ok((header, tensors)) => return Ok(Some(Newest { header, tensors, refused })),
            Err(error) => {
                refused.push(format!("{} is damaged: {error:#}", path.display()));
                damaged.push(path.display().to_string());
            }
        }
    }
    if refused.is_empty() {
        // No checkpoint was ever saved here.
        return refuse_finished_weights(folder).map(|()| None);
    }
    let hint = if damaged.len() == refused.len() {
        format!("to begin the run anew, delete {}; or choose another folder with --run", damaged.join(" and "))
    } else {
        "put the whole metrics.jsonl back, or choose another folder with --run".to_string()
    };
    Err(UserError::expected("a checkpoint to resume from")
        .file(folder.path.join("checkpoints"))
        .value(refused.join("; "))
        .hint(hint)
        .into())
}

/// A run with final weights and no checkpoint must not begin anew over its own results.
fn refuse_finished_weights(folder: &RunFolder) -> Result<()> {
    let last = folder.weights("final");
    match fs::metadata(&last) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unreadable(folder, &last, &error)),
        Ok(_) => Err(UserError::expected("a checkpoint to resume from")
            .file(folder.path.join("checkpoints"))
            .value("the weights of a trained run alone")
            .hint(format!(
                "evaluate them with `iad-launch eval {}`, or train in another folder with --run",
                folder.path.display()
            ))
            .into()),
    }
}

fn unreadable(folder: &RunFolder, path: &Path, error: &std::io::Error) -> anyhow::Error {
    UserError::expected("a checkpoint that can be read")
        .file(path)
        .value(error)
        .hint(format!(
            "nothing in {} was changed: make the file readable and give the same command again. To resume from an older \
             checkpoint, move this one away",
            folder.path.display()
        ))
        .into()
}

/// Removes the checkpoints before the newest `keep` of `valid`, the steps of checkpoints known to be whole, but for those at
/// multiples of `keep_every` steps, if there are any, and the one after `spared` steps.
pub fn prune(folder: &RunFolder, valid: &mut Vec<u64>, keep: usize, keep_every: Option<u64>, spared: Option<u64>) {
    valid.sort_unstable();
    valid.dedup();
    let Some(first) = valid.len().checked_sub(keep) else { return };
    let oldest = valid[first];
    // A file that cannot be listed or removed costs space, not correctness.
    for (step, path) in folder.checkpoints() {
        if step < oldest && spared != Some(step) && !keep_every.is_some_and(|every| step.is_multiple_of(every)) {
            let _ = fs::remove_file(path);
        }
    }
    valid.drain(..first);
}

#[cfg(test)]
mod tests;
