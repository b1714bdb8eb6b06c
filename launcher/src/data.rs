//! `iad-launch data`: making and inspecting image containers.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use datasets::{Container, Summary};

use crate::command::Data;

/// Does what the command says and prints the container's summary.
///
/// # Errors
/// Those of the importer or the container.
pub(crate) fn run(data: &Data) -> Result<()> {
    match data {
        Data::Import { dataset, from, to } => {
            if let Some(folder) = to.parent() {
                std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
            }
            print(&datasets::import(dataset, from, to)?, "written")
        }
        Data::Info { file } => {
            let summary = datasets::summarise(file)?;
            for part in &summary.splits {
                Container::open(file, part.split)?.verify()?;
            }
            print(&summary, "checksums good")
        }
    }
}

fn print(summary: &Summary, remark: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{summary}; {remark}")?;
    writeln!(out, "classes: {}", summary.class_names.join(", "))?;
    writeln!(out, "source: {}", summary.source)?;
    for part in &summary.splits {
        let name = part.split.name();
        writeln!(out, "{name} images sha256 {}\n{name} labels sha256 {}", part.images_sha256, part.labels_sha256)?;
    }
    Ok(())
}
