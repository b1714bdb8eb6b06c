//! The state of a row's run folder: missing, unfinished, of another configuration, or finished with numbers.

use anyhow::Result;

use super::file::CostMetric;
use crate::report::{self, Evaluation, Measurement};
use crate::train::Job;

/// The progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunState {
    /// The run does not exist yet.
    Missing,
    /// The folder holds a run of another configuration.
    Other,
    /// This many epochs are done.
    Begun(u64),
    /// All is done.
    Finished,
}

impl RunState {
    /// The progress of a run.
    ///
    /// # Errors
    /// Its metrics are damaged.
    pub(super) fn of(job: &Job) -> Result<Self> {
        let Job { config, folder } = job;
        if !folder.file("run.toml").is_file() {
            return Ok(RunState::Missing);
        }
        // An unreadable file counts as one of another program and another configuration.
        if !folder.config().is_ok_and(|standing| standing.hash() == config.hash()) {
            return Ok(RunState::Other);
        }
        if folder.is_finished(config) {
            return Ok(RunState::Finished);
        }
        if !folder.file("metrics.jsonl").is_file() {
            return Ok(RunState::Begun(0));
        }
        Ok(RunState::Begun(report::RecordedRun::read(&folder.path)?.epochs.last().map_or(0, |epoch| epoch.epoch + 1)))
    }

    /// In words, for a run of `epochs` epochs.
    pub(super) fn text(self, epochs: u64) -> String {
        match self {
            RunState::Missing => "missing".into(),
            RunState::Other => "another configuration".into(),
            RunState::Begun(done) => format!("epoch {done} of {epochs}"),
            RunState::Finished => "finished".into(),
        }
    }
}

/// The numbers of a finished run.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// Those of the best weights, or of the final ones if none were selected.
    best: Option<Evaluation>,
    /// The evaluation of the weights after the last epoch.
    last: Option<Evaluation>,
    /// The median training time of its epochs, in seconds.
    epoch_seconds: Option<f64>,
    /// The most memory of any rank, in MiB.
    peak_memory: Option<f64>,
    /// 10^15 operations of its epochs, as counted.
    operations: Option<f64>,
}

/// A choice among a run's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MeasuredWeights {
    /// The best by the run's selection.
    Best,
    /// The weights after the last epoch.
    Final,
}

/// The attack of an evaluation that corresponds to a published metric: the paper's "FGSM" starts at a random point.
fn attack(metric: &str) -> &str {
    match metric {
        "fgsm" => "fgsm_rs",
        "aa" => "autoattack",
        same => same,
    }
}

impl Results {
    /// The numbers of a finished run.
    ///
    /// # Errors
    /// A file of the folder is damaged.
    pub(super) fn read(job: &Job) -> Result<Self> {
        let Job { config, folder } = job;
        let run = report::RecordedRun::read(&folder.path)?;
        let steps = run.started.as_ref().map(|started| started.steps_per_epoch * config.epochs);
        let last_step = |evaluation: &&Evaluation| steps.is_some_and(|steps| steps > 0) && evaluation.step == steps;
        // The best weights may be those of the last epoch.
        let last = run.others.iter().find(|other| other.weights.as_deref() == Some("final"));
        let last = last.or(run.evaluation.as_ref().filter(last_step)).cloned();
        let mut seconds: Vec<f64> =
            run.epochs.iter().map(|epoch| epoch.timing.seconds).filter(|seconds| seconds.is_finite()).collect();
        let peak_memory = run.epochs.iter().filter_map(|epoch| epoch.timing.peak_memory).max();
        let operations: Option<f64> =
            run.epochs.iter().map(|epoch| Some(epoch.timing.flops? * epoch.timing.seconds)).sum();
        Ok(Self {
            best: run.evaluation,
            last,
            epoch_seconds: median(&mut seconds),
            peak_memory: peak_memory.map(|bytes| bytes as f64 / f64::from(1 << 20)),
            operations: operations.map(|operations| operations / 1e15),
        })
    }

    /// The value of one of the paper's metrics.
    pub(super) fn metric(&self, metric: &str, weights: MeasuredWeights) -> Option<Measurement> {
        if let Some(cost) = CostMetric::named(metric) {
            let value = match cost {
                CostMetric::SecondsPerEpoch => self.epoch_seconds,
                CostMetric::PeakMemoryMib => self.peak_memory,
                CostMetric::Pflop => self.operations,
            };
            return value.map(|value| Measurement { value, error: None });
        }
        let evaluation = match weights {
            MeasuredWeights::Best => self.best.as_ref(),
            MeasuredWeights::Final => self.last.as_ref(),
        };
        evaluation?.attacks.iter().find(|own| own.name == attack(metric)).and_then(Measurement::of)
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use trainer::evaluate::Accuracy;

    use super::*;

    #[test]
    fn medians_of_even_and_odd_numbers() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn the_papers_fgsm_is_the_one_with_a_random_start() {
        let named = |name: &str, correct| Accuracy { name: name.into(), correct, of: 100 };
        let evaluation = Evaluation { attacks: vec![named("fgsm", 10), named("fgsm_rs", 20)], ..Evaluation::default() };
        let results = Results { best: Some(evaluation), ..Results::default() };
        assert_eq!(results.metric("fgsm", MeasuredWeights::Best).unwrap().value, 20.0);
        assert_eq!(results.metric("fgsm", MeasuredWeights::Final), None);
        assert_eq!(results.metric("aa", MeasuredWeights::Best), None);
    }
}
