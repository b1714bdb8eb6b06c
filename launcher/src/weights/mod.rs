//! `iad-launch weights`: checkpoints of PyTorch read, written and described.
//!
//! It uses `command` and `evaluate`. Read this file, then `card` and `robustbench`.

mod card;
mod robustbench;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use datasets::refuse_existing;
use trainer::run::folder::RunFolder;
use trainer::system::files::write_atomically;
use trainer::weights::foreign::{ImportRequest, describe, export, import};

use crate::command::{ImportWeights, Weigh, Weights};
use crate::console::Out;
use crate::evaluate::choose_weights;

/// Does what the command says and prints what came of it.
///
/// # Errors
/// Files that cannot be read or written, or hold something else.
pub(crate) fn run(command: &Weigh) -> Result<()> {
    let mut out = Out;
    match command {
        Weigh::Import(command) => {
            let ImportWeights { file, to, .. } = &**command;
            let request = ImportRequest {
                file,
                to,
                architecture: command.architecture,
                image: command.image,
                data: command.data.as_deref(),
                key: command.key.as_deref(),
                prefix: command.prefix.as_deref(),
                normalize: command.normalize,
                id: command.id.as_deref(),
                classes: command.classes.as_deref(),
            };
            let found = import(&request)?;
            writeln!(out, "{}: {}, {} parameters", file.display(), found.form, found.parameters)?;
            for note in &found.notes {
                writeln!(out, "  {note}")?;
            }
            writeln!(out, "written to {}", to.display())?;
        }
        Weigh::Export { from, to, weights, format, robustbench } => {
            let file = file_of(from, *weights)?;
            let card = card::card_file(to);
            refuse_existing(&card).map_err(|error| error.key("the model card"))?;
            let module = robustbench.then(|| robustbench::module_file(to, *format)).transpose()?;
            module.as_deref().map_or(Ok(()), refuse_existing).map_err(|error| error.key("--robustbench"))?;
            let made = export(&file, to, *format)?;
            if let Some(module) = &module {
                write_atomically(module, robustbench::module(&made, to).as_bytes())?;
            }
            let run = from.is_dir().then(|| RunFolder::at(from));
            write_atomically(&card, card::card(&made, to, run.as_ref())?.as_bytes())?;
            let tensors = if made.tensors > 0 { format!(", {} tensors", made.tensors) } else { String::new() };
            writeln!(out, "{}: {}{tensors}", file.display(), made.form)?;
            writeln!(out, "written to {} ({}), with the model card {}", to.display(), made.format, card.display())?;
        }
        Weigh::Info { file } => writeln!(out, "{}", describe(&file_of(file, None)?)?)?,
    }
    Ok(())
}

fn file_of(from: &Path, weights: Option<Weights>) -> Result<PathBuf> {
    if !from.is_dir() {
        return Ok(from.to_path_buf());
    }
    let folder = RunFolder::at(from);
    folder.config()?;
    Ok(choose_weights(&folder, weights)?.1)
}
