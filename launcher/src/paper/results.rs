//! What the folder of a row's run holds: nothing, a part, another configuration, or numbers.

use anyhow::Result;

use crate::jobs::Job;
use crate::report::data::{self, Attacked, Evaluation};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// There is no such run yet.
    Missing,
    /// The folder holds a run of another configuration.
    Other,
    /// So many epochs are done.
    Begun(u64),
    /// All is done.
    Finished,
}

impl State {
    /// That of a run.
    ///
    /// # Errors
    /// Its metrics are damaged.
    pub(super) fn of(job: &Job) -> Result<Self> {
        let Job { config, folder } = job;
        if !folder.file("run.toml").is_file() {
            return Ok(State::Missing);
        }
        // A file that cannot be read was written by another program, of another configuration for all that is known.
        if !folder.config().is_ok_and(|standing| standing.hash() == config.hash()) {
            return Ok(State::Other);
        }
        if folder.is_finished(config) {
            return Ok(State::Finished);
        }
        if !folder.file("metrics.jsonl").is_file() {
            return Ok(State::Begun(0));
        }
        Ok(State::Begun(data::Run::read(&folder.path)?.epochs.last().map_or(0, |epoch| epoch.epoch + 1)))
    }

    /// In words, of a run of so many epochs.
    pub(super) fn text(self, epochs: u64) -> String {
        match self {
            State::Missing => "missing".into(),
            State::Other => "another configuration".into(),
            State::Begun(done) => format!("epoch {done} of {epochs}"),
            State::Finished => "finished".into(),
        }
    }
}

/// The numbers of a finished run.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// Those of the best weights, or the final ones where none were selected.
    best: Option<Evaluation>,
    /// Those of the weights after the last epoch.
    last: Option<Evaluation>,
    /// The median of its epochs' seconds of training.
    epoch_seconds: Option<f64>,
}

/// Which of a run's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weights {
    /// The best by the run's selection.
    Best,
    /// Those after the last epoch.
    Final,
}

/// A measured number of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// The number: percent or seconds.
    pub(super) value: f64,
    /// Its binomial standard error, where it is a share of images.
    pub(super) error: Option<f64>,
}

/// The attack of an evaluation that a published metric is compared with: the paper's "FGSM" starts at random.
fn attack(metric: &str) -> &str {
    match metric {
        "fgsm" => "fgsm_rs",
        "aa" => "autoattack",
        same => same,
    }
}

impl Results {
    /// Those of a finished run.
    ///
    /// # Errors
    /// A file of the folder is damaged.
    pub(super) fn read(job: &Job) -> Result<Self> {
        let Job { config, folder } = job;
        let run = data::Run::read(&folder.path)?;
        let steps = run.started.as_ref().and_then(|started| Some(started.steps_per_epoch? * config.epochs));
        let last_step = |evaluation: &&Evaluation| steps.is_some() && evaluation.step == steps;
        // The best weights may be those of the last epoch.
        let last = run.others.iter().find(|other| other.weights.as_deref() == Some("final"));
        let last = last.or(run.evaluation.as_ref().filter(last_step)).cloned();
        let mut seconds: Vec<f64> = run.epochs.iter().filter_map(|epoch| epoch.timing.seconds).collect();
        Ok(Self { best: run.evaluation, last, epoch_seconds: median(&mut seconds) })
    }

    /// What was measured by one of the paper's metrics.
    pub(super) fn metric(&self, metric: &str, weights: Weights) -> Option<Measured> {
        if metric == "seconds_per_epoch" {
            return self.epoch_seconds.map(|value| Measured { value, error: None });
        }
        let evaluation = match weights {
            Weights::Best => self.best.as_ref(),
            Weights::Final => self.last.as_ref(),
        };
        evaluation?.attacks.iter().find(|own| own.name == attack(metric)).and_then(share)
    }
}

/// Percentage and binomial standard error.
fn share(attacked: &Attacked) -> Option<Measured> {
    let (value, error) = crate::report::summary::percentage(attacked.correct, attacked.of)?;
    Some(Measured { value, error: Some(error) })
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

/// The numbers of a row's runs in one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figure {
    /// The number of one run, or the mean of several.
    pub(super) value: f64,
    /// The binomial standard error of one run, or the standard deviation of several runs.
    pub(super) spread: Option<f64>,
    /// How many runs.
    pub(super) runs: usize,
}

impl Figure {
    /// That of the runs measured; none of none.
    pub(super) fn of(measured: &[Measured]) -> Option<Self> {
        let runs = measured.len();
        let mean = measured.iter().map(|one| one.value).sum::<f64>() / runs as f64;
        match measured {
            [] => None,
            [one] => Some(Self { value: one.value, spread: one.error, runs }),
            _ => {
                let squares: f64 = measured.iter().map(|one| (one.value - mean).powi(2)).sum();
                Some(Self { value: mean, spread: Some((squares / (runs - 1) as f64).sqrt()), runs })
            }
        }
    }

    /// `83.06 ± 0.38`.
    pub(super) fn text(&self) -> String {
        match self.spread {
            Some(spread) => format!("{:.2} ± {spread:.2}", self.value),
            None => format!("{:.2}", self.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(correct: u64, of: u64) -> Measured {
        share(&Attacked { name: "natural".into(), correct, of }).unwrap()
    }

    #[test]
    fn one_run_has_the_binomial_standard_error() {
        let figure = Figure::of(&[measured(8306, 10_000)]).unwrap();
        assert_eq!(figure.text(), "83.06 ± 0.38");
        assert!((figure.spread.unwrap() - 100.0 * (0.8306f64 * 0.1694 / 10_000.0).sqrt()).abs() < 1e-12);
        assert_eq!(Figure::of(&[]), None);
    }

    #[test]
    fn several_runs_have_mean_and_sample_deviation() {
        let figure = Figure::of(&[measured(80, 100), measured(82, 100), measured(87, 100)]).unwrap();
        assert_eq!((figure.value, figure.runs), (83.0, 3));
        assert!((figure.spread.unwrap() - 13f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn medians_of_even_and_odd_numbers() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn the_papers_fgsm_is_the_one_with_a_random_start() {
        let named = |name: &str, correct| Attacked { name: name.into(), correct, of: 100 };
        let evaluation = Evaluation {
            weights: None,
            step: None,
            split: None,
            images: None,
            eps: None,
            attacks: vec![named("fgsm", 10), named("fgsm_rs", 20)],
        };
        let results = Results { best: Some(evaluation), ..Results::default() };
        assert_eq!(results.metric("fgsm", Weights::Best).unwrap().value, 20.0);
        assert_eq!(results.metric("fgsm", Weights::Final), None);
        assert_eq!(results.metric("aa", Weights::Best), None);
    }
}
