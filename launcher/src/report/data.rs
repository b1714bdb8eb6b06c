//! What a run folder says: reads metrics, evaluation, configuration and environment; must not know how they are shown.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, de::DeserializeOwned};
use trainer::folder::RunFolder;

use super::named::Named;

/// All that is known of one run.
#[derive(Debug, Default)]
pub struct Run {
    pub name: String,
    pub folder: PathBuf,
    pub started: Option<Started>,
    pub steps: Vec<Step>,
    pub epochs: Vec<Epoch>,
    pub evaluated: Vec<Evaluated>,
    /// Each distinct warning with the number of times it was given.
    pub warnings: Vec<(String, usize)>,
    pub finished: Option<Finished>,
    pub evaluation: Option<Evaluation>,
    /// Evaluations of other weights: the last epoch's and averages.
    pub others: Vec<Evaluation>,
    /// `run.toml`, word for word.
    pub config: Option<String>,
    /// `environment.toml`, word for word.
    pub environment: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Started(Started),
    Step(Step),
    Epoch(Epoch),
    Evaluated(Evaluated),
    Warned {
        message: String,
    },
    Finished(Finished),
    /// Written by a newer program.
    #[serde(other)]
    Unknown,
}

/// What the run set out to do; every field may be missing in old files.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Started {
    pub run: Option<String>,
    pub epochs: Option<u64>,
    pub steps_per_epoch: Option<u64>,
    pub parameters: Option<u64>,
    pub train_images: Option<u64>,
    pub held_out_images: Option<u64>,
    pub test_images: Option<u64>,
}

/// One logged optimisation step; `None` where the number was not finite.
#[derive(Debug, Deserialize)]
pub struct Step {
    pub step: u64,
    #[serde(default)]
    pub learning_rate: Option<f64>,
    #[serde(default)]
    pub loss: Option<f64>,
    #[serde(default)]
    pub terms: Named<Option<f64>>,
}

/// Means and counts over one training epoch, numbered from 0.
#[derive(Debug, Deserialize)]
pub struct Epoch {
    pub epoch: u64,
    #[serde(default)]
    pub loss: Option<f64>,
    #[serde(default)]
    pub terms: Named<Option<f64>>,
    #[serde(default)]
    pub counts: Named<Count>,
    #[serde(default)]
    pub trust: Option<Trust>,
    /// Counts of training images by the teacher's probability of the label, in equal bins, for each case.
    #[serde(default)]
    pub probability: Named<Vec<u64>>,
    #[serde(default)]
    pub timing: Timing,
}

/// `count` out of `of` images.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Count {
    #[serde(alias = "correct")]
    pub count: u64,
    pub of: u64,
}

/// The mean trust in the teacher (alpha) over `of` images, and its quantiles over all and over each case.
#[derive(Debug, Clone, Deserialize)]
pub struct Trust {
    #[serde(default)]
    pub mean: Option<f64>,
    pub of: u64,
    #[serde(default)]
    pub quantiles: Named<Vec<f64>>,
}

/// Wall-clock figures, which differ from machine to machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Timing {
    pub seconds: Option<f64>,
    pub images_per_second: Option<f64>,
    /// Floating-point operations a second, and their share of the peak.
    pub flops: Option<f64>,
    pub utilisation: Option<f64>,
    /// Bytes.
    pub peak_memory: Option<f64>,
    /// Seconds.
    pub phases: Named<f64>,
}

/// An evaluation during training, made when `epoch` had just finished.
#[derive(Debug, Deserialize)]
pub struct Evaluated {
    pub epoch: u64,
    pub split: String,
    pub attacks: Vec<Attacked>,
}

/// Correct predictions under one attack.
#[derive(Debug, Clone, Deserialize)]
pub struct Attacked {
    pub name: String,
    pub correct: u64,
    pub of: u64,
}

/// The end of training.
#[derive(Debug, Deserialize)]
pub struct Finished {
    #[serde(default)]
    pub timing: Timing,
}

/// The final evaluation of one set of weights.
#[derive(Debug, Clone, Deserialize)]
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
    pub eps: Option<f64>,
    pub attacks: Vec<Attacked>,
}

/// Reads the runs and makes their names unique by adding the folder where two share one.
pub fn read(folders: &[PathBuf]) -> Result<Vec<Run>> {
    if folders.is_empty() {
        bail!("no run folder was given: name at least one folder that holds a metrics.jsonl");
    }
    let mut runs = folders.iter().map(|folder| Run::read(folder)).collect::<Result<Vec<_>>>()?;
    let names: Vec<_> = runs.iter().map(|run| run.name.clone()).collect();
    for run in &mut runs {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = format!("{} ({})", run.name, run.folder.display());
        }
    }
    Ok(runs)
}

impl Run {
    /// Reads the folder of one run.
    ///
    /// # Errors
    /// There is no readable `metrics.jsonl`, or a file is damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            bail!("{} is not a folder: name the folder of a run", folder.display());
        }
        let path = folder.join("metrics.jsonl");
        let bytes = fs::read(&path)
            .with_context(|| format!("cannot read {}: is {} the folder of a run?", path.display(), folder.display()))?;
        let mut run = Self { folder: folder.to_owned(), ..Self::default() };
        run.replay(&bytes, &path)?;
        let folder_name =
            || folder.file_name().map_or(folder.display().to_string(), |name| name.to_string_lossy().into_owned());
        run.name = run.started.as_ref().and_then(|started| started.run.clone()).unwrap_or_else(folder_name);
        run.evaluation =
            optional(&folder.join("evaluation.json"))?.map(|(text, path)| json(&text, &path)).transpose()?;
        for weights in ["final", "ema", "swa"] {
            let found = optional(&RunFolder::at(folder).evaluation(Some(weights)))?;
            run.others.extend(found.map(|(text, path)| json::<Evaluation>(&text, &path)).transpose()?);
        }
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
                    let number = index + 1;
                    bail!("{} line {number}: not a metrics event: {error}; mend or remove that line", path.display());
                }
            }
        }
        Ok(())
    }

    /// A run that went on from a checkpoint writes again what came after it: the later record stands.
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
            Event::Warned { message } => match self.warnings.iter_mut().find(|(known, _)| *known == message) {
                Some((_, times)) => *times += 1,
                None => self.warnings.push((message, 1)),
            },
            Event::Finished(finished) => self.finished = Some(finished),
            Event::Unknown => {}
        }
    }
}

fn optional(path: &Path) -> Result<Option<(String, PathBuf)>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), path.to_owned())))
}

fn json<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    serde_json::from_str(text).with_context(|| format!("{} is not a valid evaluation", path.display()))
}

#[cfg(test)]
mod tests;
