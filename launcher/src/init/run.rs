//! The command: name the files, write them, say what to type next.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use datasets::{DATASETS, OFFICIAL, UserError, refuse_existing};
use trainer::config::{Architecture, RunConfig};
use trainer::run::folder::RunFolder;

use super::names::{self, DataSet};
use super::recipe::{Recipe, teachers_of};
use super::text::{Head, text};
use super::words;
use crate::command::Init;
use crate::console::say;
use crate::sbatch::quoted;

/// Where Debian's package puts the images of the demo.
const DEBIAN_FASHION_MNIST: &str = "/usr/share/datasets/fashion-mnist";

/// A file to write.
struct File {
    path: PathBuf,
    text: String,
}

/// Writes a configuration and those of its teachers, and says what to type next.
///
/// # Errors
/// An unknown name; a file that exists; a failure of the file system.
pub(crate) fn run(command: &Init) -> Result<()> {
    let dataset = names::dataset(&command.dataset)?;
    let method = names::method(&command.method)?;
    let model = names::model("--model", &command.model)?;
    let teacher_model =
        command.teacher_model.as_ref().map_or(Ok(model), |name| names::model("--teacher-model", name))?;
    let path = command.to.clone().unwrap_or_else(|| file_name(&dataset, model, method).into());
    if path.extension().is_none_or(|ending| ending != "toml") {
        let error = UserError::expected("a file that ends in .toml").key("--to").value(path.display());
        return Err(error.hint("`iad-launch FILE.toml` trains it").into());
    }
    refuse_existing(&path)?;
    let mut files = vec![];
    let mut there = vec![];
    let mut teachers = BTreeMap::new();
    for (name, own) in teachers_of(method)? {
        let beside = path.with_file_name(file_name(&dataset, teacher_model, own));
        if beside == path {
            let error = UserError::expected("another name than that of the teacher's configuration").key("--to");
            return Err(error.value(path.display()).into());
        }
        teachers.insert(name.to_string(), (beside.clone(), RunFolder::default_for(&beside)));
        if beside.exists() {
            // Whatever it says, it must be one.
            RunConfig::read(&beside, &[])?;
            there.push((name, beside));
        } else {
            files.push(file(
                command,
                &Recipe { dataset: &dataset, method: own, model: teacher_model, teachers: &BTreeMap::new() },
                beside,
            )?);
        }
    }
    files.push(file(command, &Recipe { dataset: &dataset, method, model, teachers: &teachers }, path.clone())?);
    for File { path, text } in &files {
        let folder = path.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        say(&format!("written {}", path.display()));
    }
    if files.len() > 1 {
        say("the student's file names those of its teachers; a teacher that is missing is trained first");
    }
    for (name, path) in there {
        say(&format!("{} was there already: it makes the teacher {name} as it is", path.display()));
    }
    say(&format!("next:\n  {}", next(&dataset, &path).join("\n  ")));
    Ok(())
}

/// `cifar10_wrn-34-10_iad-1.toml`
fn file_name(dataset: &DataSet, model: Architecture, method: &str) -> String {
    format!("{}_{model}_{method}.toml", dataset.name)
}

fn file(command: &Init, recipe: &Recipe, path: PathBuf) -> Result<File> {
    let Recipe { dataset, method, model, .. } = recipe;
    let remark = recipe.is_small().then_some(
        "A short recipe for CPUs: six epochs and two steps of the attack. Networks of papers are trained for 200 epochs with ten.",
    );
    let head = Head {
        title: format!("{} on {} with {model}", words::method(method), dataset.name),
        command: format!("iad-launch init {} --method {method} --model {model}", quoted(&command.dataset)),
        next: next(dataset, &path),
        remark,
    };
    Ok(File { text: text(&recipe.config()?, &head), path })
}

/// The commands that lead to a run: images where they are missing, an estimate, the run.
fn next(dataset: &DataSet, path: &Path) -> Vec<String> {
    let (to, path) = (quoted(&dataset.file.to_string_lossy()), quoted(&path.to_string_lossy()));
    let name = dataset.name.as_str();
    let named = dataset.file == Path::new("data").join(format!("{name}.h5"));
    let images = match name {
        "fashion-mnist" if named && Path::new(DEBIAN_FASHION_MNIST).is_dir() => {
            format!("iad-launch data import {name} --from {DEBIAN_FASHION_MNIST} --to {to}")
        }
        _ if named && OFFICIAL.iter().any(|file| file.dataset == name) => {
            format!("iad-launch data fetch {name} --to {to}")
        }
        _ if named && DATASETS.contains(&name) => format!("iad-launch data import {name} --from PATH --to {to}"),
        _ => format!("iad-launch data import image-folder --from PATH --to {to}"),
    };
    let images = (!dataset.file.exists()).then_some(images);
    images.into_iter().chain([format!("iad-launch plan {path}"), format!("iad-launch {path}")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_commands_fit_the_images() {
        let images = |name: &str, file: &str| {
            next(&DataSet { name: name.into(), file: file.into() }, Path::new("my run.toml")).remove(0)
        };
        assert_eq!(images("cifar10", "data/cifar10.h5"), "iad-launch data fetch cifar10 --to data/cifar10.h5");
        assert_eq!(images("mnist", "data/mnist.h5"), "iad-launch data import mnist --from PATH --to data/mnist.h5");
        let own = images("cifar10", "elsewhere/cifar10.h5");
        assert_eq!(own, "iad-launch data import image-folder --from PATH --to elsewhere/cifar10.h5");
        let there = DataSet { name: "src".into(), file: "src".into() };
        assert_eq!(
            next(&there, Path::new("my run.toml")),
            ["iad-launch plan 'my run.toml'", "iad-launch 'my run.toml'"]
        );
    }
}
