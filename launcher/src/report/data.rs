//! What a run folder says: reads metrics, evaluation, configuration and environment; must not know how they are shown.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

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

/// The mean trust in the teacher (alpha) over `of` images.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Trust {
    #[serde(default)]
    pub mean: Option<f64>,
    pub of: u64,
}

/// Wall-clock figures, which differ from machine to machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Timing {
    pub seconds: Option<f64>,
    pub images_per_second: Option<f64>,
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
#[derive(Debug, Deserialize)]
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
        run.evaluation = evaluation(&folder.join("evaluation.json"))?;
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

/// The evaluation in a file, if there is one.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn evaluation(path: &Path) -> Result<Option<Evaluation>> {
    let Some((text, _)) = optional(path)? else { return Ok(None) };
    let read = serde_json::from_str(&text).with_context(|| format!("{} is not a valid evaluation", path.display()))?;
    Ok(Some(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(text: &str) -> Result<Run> {
        let mut run = Run::default();
        run.replay(text.as_bytes(), Path::new("r/metrics.jsonl")).map(|()| run)
    }

    #[test]
    fn partial_last_line_is_ignored() {
        let run = replay("{\"event\":\"step\",\"epoch\":0,\"step\":1,\"loss\":2.5}\n{\"event\":\"st").unwrap();
        assert_eq!((run.steps.len(), run.steps[0].loss), (1, Some(2.5)));
    }

    #[test]
    fn bad_line_is_named() {
        for bad in ["{\"event\":\"st\n{\"event\":\"warned\",\"message\":\"m\"}\n", "[1]\n", "{\"loss\":1}\n"] {
            let message = replay(&format!("\n{bad}")).unwrap_err().to_string();
            assert!(message.contains("r/metrics.jsonl line 2"), "{message}");
        }
    }

    #[test]
    fn null_numbers_absent_fields_and_unknown_events_are_read() {
        let run = replay(concat!(
            "{\"event\":\"invented\",\"x\":[1]}\n",
            "{\"event\":\"step\",\"step\":1,\"loss\":null,\"terms\":{\"teach\":null},\"new\":{}}\n",
            "{\"event\":\"epoch\",\"epoch\":0,\"counts\":{\"a\":{\"correct\":1,\"of\":2},\"b\":{\"count\":2,\"of\":2}}}\n",
            "{\"event\":\"started\",\"timing\":{}}",
        ))
        .unwrap();
        assert_eq!(run.steps[0].loss, None);
        assert!(matches!(run.steps[0].terms.get("teach"), Some(None)));
        assert_eq!(run.epochs[0].counts.get("a").unwrap().count, 1);
        assert!(run.epochs[0].trust.is_none() && run.epochs[0].timing.seconds.is_none());
        assert!(run.started.unwrap().epochs.is_none());
    }

    #[test]
    fn a_resumed_run_replaces_what_it_repeats() {
        let step = |step, loss| format!("{{\"event\":\"step\",\"step\":{step},\"loss\":{loss}}}\n");
        let text = [step(10, 1), step(20, 2), step(30, 3), step(20, 4), step(30, 5)].concat();
        let losses: Vec<_> = replay(&text).unwrap().steps.iter().map(|step| step.loss.unwrap()).collect();
        assert_eq!(losses, [1.0, 4.0, 5.0]);
    }
}
