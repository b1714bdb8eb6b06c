//! `iad-launch weights`: checkpoints of PyTorch read, written and described.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use trainer::folder::RunFolder;
use trainer::foreign::{Request, describe, export, import};

use crate::command::{Weigh, Weights};
use crate::evaluate::choose_weights;

/// Does what the command says and prints what came of it.
///
/// # Errors
/// Files that cannot be read or written, or hold something else.
pub(crate) fn run(command: &Weigh) -> Result<()> {
    let mut out = std::io::stdout();
    match command {
        Weigh::Import { file, to, architecture, image, data, key } => {
            let (data, key) = (data.as_deref(), key.as_deref());
            let request = Request { file, to, architecture: *architecture, image: *image, data, key };
            let found = import(&request)?;
            writeln!(out, "{}: {}, {} parameters", file.display(), found.form, found.parameters)?;
            for note in &found.notes {
                writeln!(out, "  {note}")?;
            }
            writeln!(out, "written to {}", to.display())?;
        }
        Weigh::Export { from, to, weights } => {
            let file = file_of(from, *weights)?;
            let made = export(&file, to)?;
            writeln!(out, "{}: {}, {} tensors", file.display(), made.form, made.tensors)?;
            writeln!(out, "written to {}", to.display())?;
        }
        Weigh::Info { file } => writeln!(out, "{}", describe(file)?)?,
    }
    Ok(())
}

fn file_of(from: &Path, weights: Option<Weights>) -> Result<PathBuf> {
    if from.is_file() {
        return Ok(from.to_path_buf());
    }
    let folder = RunFolder::at(from);
    folder.config()?;
    Ok(choose_weights(&folder, weights)?.1)
}
