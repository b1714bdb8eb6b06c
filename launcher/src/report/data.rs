//! Reads a run folder: metrics, evaluation, configuration and environment; must not know how they are shown.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::Result;
use datasets::UserError;
use serde::{Deserialize, de::DeserializeOwned};
use trainer::config::{Dtype, Norm};
use trainer::evaluate::Accuracy;
use trainer::run::events::{EpochDone, Evaluated, Event, RunFinished, RunStarted, StepDone};
use trainer::run::folder::RunFolder;
use trainer::system::files::{in_words, read_regular};

use super::confusion::Confusion;
use super::names::full_name;

/// The next step where something else than a run is given.
const RUNS: &str = "`iad-launch runs` lists the runs below a folder";

/// All that is known of one run.
#[derive(Debug, Default)]
pub struct RecordedRun {
    pub name: String,
    pub folder: PathBuf,
    pub started: Option<RunStarted>,
    pub steps: Vec<StepDone>,
    pub epochs: Vec<EpochDone>,
    pub evaluated: Vec<Evaluated>,
    /// Each distinct warning with the number of times it was given.
    pub warnings: Vec<(String, usize)>,
    pub finished: Option<RunFinished>,
    pub evaluation: Option<Evaluation>,
    /// Evaluations of other weights: the last epoch's and averages.
    pub others: Vec<Evaluation>,
    /// Evaluations with other radii, by `eval --eps`.
    pub radii: Vec<Evaluation>,
    /// The natural predictions of the final evaluation by class.
    pub confusion: Option<Confusion>,
    /// `run.toml`, word for word.
    pub config: Option<String>,
    /// `environment.toml`, word for word.
    pub environment: Option<String>,
}

/// The final evaluation of one set of weights.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Evaluation {
    #[serde(default)]
    pub weights: Option<String>,
    #[serde(default)]
    pub step: Option<u64>,
    #[serde(default)]
    pub split: Option<String>,
    #[serde(default)]
    pub images: Option<u64>,
    #[serde(default)]
    pub norm: Norm,
    #[serde(default)]
    pub eps: Option<f64>,
    #[serde(default)]
    pub attack_step: Option<f64>,
    #[serde(default)]
    pub precision: Dtype,
    #[serde(default)]
    pub seed: Option<u64>,
    #[serde(default)]
    pub selection: Option<String>,
    #[serde(default)]
    pub weights_sha256: Option<String>,
    #[serde(default)]
    pub data_sha256: Option<String>,
    pub attacks: Vec<Accuracy>,
}

/// Reads the runs and makes their names unique by adding the folder where two share one.
pub fn read(folders: &[PathBuf]) -> Result<Vec<RecordedRun>> {
    if folders.is_empty() {
        return Err(UserError::expected("at least one run folder, with a metrics.jsonl in it").value("none").into());
    }
    let mut runs = folders.iter().map(|folder| RecordedRun::read(folder)).collect::<Result<Vec<_>>>()?;
    let names: Vec<_> = runs.iter().map(|run| run.name.clone()).collect();
    for run in &mut runs {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = format!("{} ({})", run.name, run.folder.display());
        }
    }
    Ok(runs)
}

impl RecordedRun {
    /// Reads the folder of one run.
    ///
    /// # Errors
    /// There is no readable `metrics.jsonl`, or a file is damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            let found = if folder.exists() { "something else than a folder" } else { "nothing there" };
            return Err(UserError::expected("a run folder").file(folder).value(found).hint(RUNS).into());
        }
        let path = folder.join("metrics.jsonl");
        let bytes = read_regular(&path).map_err(|error| {
            let found = match error.kind() {
                ErrorKind::NotFound => "a folder without metrics.jsonl".to_string(),
                _ => format!("{}, which is {}", path.display(), in_words(&error)),
            };
            UserError::expected("a run folder, with a metrics.jsonl in it").file(folder).value(found).hint(RUNS)
        })?;
        let mut run = Self { folder: folder.to_owned(), ..Self::default() };
        run.replay(&bytes, &path)?;
        let folder_name =
            || folder.file_name().map_or(folder.display().to_string(), |name| name.to_string_lossy().into_owned());
        let name = run.started.as_ref().and_then(|started| started.run.clone()).unwrap_or_else(folder_name);
        run.name = full_name(name, folder);
        run.evaluation =
            optional(&folder.join("evaluation.json"))?.map(|(text, path)| json(&text, &path)).transpose()?;
        for weights in ["final", "ema", "swa"] {
            let found = optional(&RunFolder::at(folder).evaluation(Some(weights)))?;
            run.others.extend(found.map(|(text, path)| json::<Evaluation>(&text, &path)).transpose()?);
        }
        run.radii = radii(folder);
        run.confusion = Confusion::read(&RunFolder::at(folder));
        run.config = optional(&folder.join("run.toml"))?.map(|(text, _)| text);
        run.environment = optional(&folder.join("environment.toml"))?.map(|(text, _)| text);
        Ok(run)
    }

    /// Takes in the lines of `bytes`; `path` is only for messages.
    pub fn replay(&mut self, bytes: &[u8], path: &Path) -> Result<()> {
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(event) => self.take(event),
                // Only the last line can lack its end: the process died while writing it.
                Err(_) if !line.ends_with(b"\n") => {}
                Err(error) => {
                    return Err(UserError::expected("an event of a run, in JSON")
                        .file(path)
                        .key(format!("line {}", index + 1))
                        .value(format!("damaged ({error})"))
                        .hint("mend or remove that line")
                        .into());
                }
            }
        }
        Ok(())
    }

    /// A resumed run records the steps after its checkpoint again: the later record counts.
    fn take(&mut self, event: Event) {
        match event {
            Event::Started(started) => {
                self.started = Some(started);
                self.finished = None;
            }
            Event::Step(step) => {
                self.steps.truncate(self.steps.partition_point(|earlier| earlier.step < step.step));
                self.steps.push(step);
            }
            Event::Epoch(epoch) => {
                self.epochs.truncate(self.epochs.partition_point(|earlier| earlier.epoch < epoch.epoch));
                self.epochs.push(epoch);
            }
            Event::Evaluated(evaluated) => {
                self.evaluated.retain(|earlier| {
                    earlier.epoch < evaluated.epoch
                        || (earlier.epoch == evaluated.epoch && earlier.split != evaluated.split)
                });
                self.evaluated.push(evaluated);
            }
            Event::Warned { message } => self.warn(message),
            Event::Guarded(guarded) => {
                // What a run went back over is made again, and may not be as long.
                if let (Some(to), "rollback") = (guarded.to, guarded.action.as_str()) {
                    self.steps.retain(|step| step.step <= to);
                    self.epochs.retain(|epoch| epoch.step <= to);
                    self.evaluated.retain(|evaluated| evaluated.step <= to);
                }
                self.warn(guarded.to_string());
            }
            Event::Changed { key, now, .. } => {
                if let (Some(started), "epochs", Ok(epochs)) = (&mut self.started, key.as_str(), now.parse()) {
                    started.epochs = epochs;
                }
            }
            Event::Finished(finished) => self.finished = Some(finished),
            Event::Unknown => {}
        }
    }

    fn warn(&mut self, message: String) {
        match self.warnings.iter_mut().find(|(known, _)| *known == message) {
            Some((_, times)) => *times += 1,
            None => self.warnings.push((message, 1)),
        }
    }
}

/// The evaluations of other radii in a run folder. One that is cut off or damaged is left out.
fn radii(folder: &Path) -> Vec<Evaluation> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    let named = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("evaluation-") && name.contains("eps") && name.ends_with(".json")
    };
    files.iter().filter(named).filter_map(|path| serde_json::from_slice(&read_regular(path).ok()?).ok()).collect()
}

/// The number, unless it is NaN or infinite.
pub fn finite(number: f64) -> Option<f64> {
    Some(number).filter(|number| number.is_finite())
}

fn optional(path: &Path) -> Result<Option<(String, PathBuf)>> {
    if !path.exists() {
        return Ok(None);
    }
    let unreadable = |error| UserError::expected("a file of a run that can be read").file(path).value(in_words(&error));
    let bytes = read_regular(path).map_err(unreadable)?;
    Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), path.to_owned())))
}

fn json<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let hint = "resume the run, which makes it again, or move the file away";
        let refused = UserError::expected("an evaluation of a run, in JSON").file(path);
        refused.key("the file").value(format!("damaged ({error})")).hint(hint).into()
    })
}

#[cfg(test)]
mod tests;
