//! `iad-launch data`: getting, making and inspecting image containers.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use datasets::{Fetch, ImportOptions, Layout, Split, SplitSummary, Summary};

use crate::command::{Data, LayoutOptions};
use crate::console::{Out, ProgressLine, say};

/// Does what the command says and prints the container's summary.
///
/// # Errors
/// Those of the download, the importer or the container.
pub(crate) fn run(data: &Data) -> Result<()> {
    match data {
        Data::Fetch { dataset, to, mirror, cache, layout } => {
            let to = to.clone().unwrap_or_else(|| PathBuf::from(format!("data/{dataset}.h5")));
            let cache = cache.clone().map_or_else(datasets::default_cache, Ok)?;
            let from = fetch(dataset, &Fetch { mirror: mirror.clone(), ..Fetch::to(cache) }, &to)?;
            import(dataset, &from, &to, &ImportOptions { layout: layout.into(), ..ImportOptions::default() })
        }
        Data::Import { dataset, from, to, split_names, allow_empty_classes, layout } => {
            let (split_names, allow_empty_classes) = (split_names.clone(), *allow_empty_classes);
            import(dataset, from, to, &ImportOptions { layout: layout.into(), split_names, allow_empty_classes })
        }
        Data::Info { file, sheet, json } => {
            let summary = datasets::summarise(file)?;
            if *json {
                print_data(&summary)?
            } else {
                print(&summary)?
            }
            let Some(sheet) = sheet else { return Ok(()) };
            let split = summary.splits.first().map_or(Split::Train, |part| part.split);
            make_folder_of(sheet)?;
            datasets::write_sheet(file, split, sheet)?;
            say(&format!("written {}", sheet.display()));
            Ok(())
        }
        Data::Verify { file, json } => {
            let summary = datasets::verify(file)?;
            if *json {
                print_data(&summary)?
            } else {
                print(&summary)?
            }
            say("all checksums are right");
            Ok(())
        }
    }
}

fn fetch(dataset: &str, how: &Fetch, to: &Path) -> Result<PathBuf> {
    // Before hours of downloading, not after.
    if to.symlink_metadata().is_ok() {
        let hint = format!("choose another name, or remove it first: rm '{}'", to.display());
        return Err(datasets::UserError::expected("a file that does not exist yet").file(to).hint(hint).into());
    }
    let mut line = ProgressLine::after_pause();
    let mut last = 0;
    datasets::fetch(dataset, how, &mut |progress| {
        let percent = progress.done * 100 / progress.total.max(1);
        let text =
            format!("{}: {:.1} of {:.1} MB ({percent} %)", progress.name, mega(progress.done), mega(progress.total));
        match &progress.trouble {
            Some(trouble) => line.line(&format!("{text}; {trouble}; trying again")),
            None if progress.done == progress.total && last != progress.total => line.line(&text),
            None => drop(line.transient(&text)),
        }
        last = progress.done;
    })
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

impl From<&LayoutOptions> for Layout {
    fn from(options: &LayoutOptions) -> Self {
        Self {
            chunk: options.chunks.map(|images| images as usize),
            compress: options.compress,
            threads: options.threads.map(usize::from),
        }
    }
}

/// Makes the folder of an output.
fn make_folder_of(file: &Path) -> Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))
}

fn import(dataset: &str, from: &Path, to: &Path, options: &ImportOptions) -> Result<()> {
    make_folder_of(to)?;
    let report = datasets::import(dataset, from, to, options)?;
    print(&report.summary)?;
    if report.left_out.count() > 0 {
        say(&report.left_out.to_string());
    }
    for note in &report.notes {
        say(note);
    }
    say(&format!("written {}, all checksums are right", to.display()));
    Ok(())
}

/// A table of what a container holds.
fn print(summary: &Summary) -> Result<()> {
    let mut out = Out;
    out.write_all(table(summary).as_bytes())?;
    Ok(())
}

/// The same as data.
fn print_data(summary: &Summary) -> Result<()> {
    let split = |part: &SplitSummary| {
        serde_json::json!({
            "split": part.split.name(),
            "images": part.samples,
            "shape": part.shape,
            "stored_bytes": part.stored,
            "chunk": part.chunk,
            "mean": part.mean,
            "std": part.std,
            "images_sha256": part.images_sha256,
            "labels_sha256": part.labels_sha256,
        })
    };
    let data = serde_json::json!({
        "file": summary.file,
        "name": summary.name,
        "source": summary.source,
        "url": summary.url,
        "classes": summary.class_names,
        "coarse_classes": summary.coarse.as_ref().map(|coarse| &coarse.names),
        "splits": summary.splits.iter().map(split).collect::<Vec<_>>(),
    });
    writeln!(Out, "{data:#}")?;
    Ok(())
}

fn table(summary: &Summary) -> String {
    let mut rows = vec![
        ("file", summary.file.display().to_string()),
        ("name", summary.name.clone()),
        ("source", summary.source.clone()),
    ];
    if !summary.url.is_empty() {
        rows.push(("url", summary.url.clone()));
    }
    rows.push(("classes", format!("{}: {}", summary.class_names.len(), listed(&summary.class_names))));
    if let Some(coarse) = &summary.coarse {
        rows.push(("coarse", format!("{}: {}", coarse.names.len(), listed(&coarse.names))));
    }
    for part in &summary.splits {
        let [channels, height, width] = part.shape;
        let layout = part.chunk.map_or("in one piece".to_owned(), |chunk| format!("in chunks of {chunk}"));
        rows.push((part.split.name(), format!("{} images of {channels}x{height}x{width}", part.samples)));
        rows.push(("  stored", format!("{:.1} MB, {layout}", mega(part.stored))));
        for (name, values) in [("  mean", &part.mean), ("  std", &part.std)] {
            let values: Vec<_> = values.iter().map(|value| format!("{value:.4}")).collect();
            if !values.is_empty() {
                rows.push((name, values.join(", ")));
            }
        }
        rows.push(("  images", format!("sha256 {}", part.images_sha256)));
        rows.push(("  labels", format!("sha256 {}", part.labels_sha256)));
    }
    rows.into_iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<10}{value}");
        text
    })
}

/// Names in a line; the first ones where there are many.
fn listed(names: &[String]) -> String {
    const FEW: usize = 20;
    let short: Vec<_> = names.iter().take(FEW).map(|name| name.split(',').next().unwrap_or(name)).collect();
    let more = if names.len() > FEW { ", ..." } else { "" };
    format!("{}{more}", short.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_cut_short() {
        let names: Vec<_> = (0..30).map(|number| format!("name {number}, or another")).collect();
        assert_eq!(listed(&names[..2]), "name 0, name 1");
        assert!(listed(&names).ends_with("name 19, ..."));
    }
}
