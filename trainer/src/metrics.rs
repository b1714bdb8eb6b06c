//! What a run says of itself: events, and where they go. Clocks and rates stand only inside `timing`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::evaluate::{Accuracy, Standing};
use crate::observe::{ALPHA_BINS, CASES, PROBABILITY_BINS, Sums};

/// One line of metrics.jsonl.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins.
    Started {
        /// Batches of an epoch.
        steps_per_epoch: usize,
        /// Epochs to go.
        epochs: u64,
        /// Trainable values of the student.
        parameters: usize,
        /// Images trained on.
        train_images: usize,
        /// Images held out for selection.
        held_out_images: usize,
        /// Images of the test set.
        test_images: usize,
        /// Of each class, in the order of the classes, the images trained on.
        train_images_per_class: Vec<usize>,
        /// The number of classes.
        classes: usize,
    },
    /// The loss of one step.
    Step {
        /// The epoch, from 0.
        epoch: u64,
        /// Steps done, this one included.
        step: u64,
        /// The rate of this step.
        learning_rate: f64,
        /// The loss over the global batch.
        loss: f64,
        /// Its terms.
        terms: BTreeMap<String, f64>,
        /// Clocks.
        timing: Timing,
    },
    /// An epoch is done.
    Epoch {
        /// The epoch, from 0.
        epoch: u64,
        /// Steps done.
        step: u64,
        /// The last rate.
        learning_rate: f64,
        /// The mean loss over the epoch's samples.
        loss: f64,
        /// Its terms.
        terms: BTreeMap<String, f64>,
        /// Counts of samples by what they show; see `observe::Sums`.
        counts: BTreeMap<String, Count>,
        /// The trust in the teacher (alpha), where a loss has one; as it would be, before it counts.
        #[serde(skip_serializing_if = "Option::is_none")]
        trust: Option<Trust>,
        /// Counts of samples by the teacher's probability of the label on adversarial images, in equal bins of [0, 1], for
        /// each case; alpha for any exponent follows.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        probability: BTreeMap<String, Vec<u64>>,
        /// Clocks.
        timing: Timing,
    },
    /// Images were evaluated during training.
    Evaluated {
        /// The epoch just done, from 0.
        epoch: u64,
        /// Steps done.
        step: u64,
        /// `held_out` or `test`.
        split: String,
        /// Whether these are the best weights so far.
        best: bool,
        /// The results.
        attacks: Vec<Accuracy>,
        /// Clocks.
        timing: Timing,
    },
    /// Something the reader of the numbers should know.
    Warned {
        /// What was seen and why it matters.
        message: String,
    },
    /// Training is done.
    Finished {
        /// Steps done.
        step: u64,
        /// Clocks.
        timing: Timing,
    },
}

/// A part of the samples.
#[derive(Debug, Clone, Serialize)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// Of how many.
    pub of: u64,
}

/// How far the teacher is trusted.
#[derive(Debug, Clone, Serialize)]
pub struct Trust {
    /// The mean.
    pub mean: f64,
    /// Over how many.
    pub of: u64,
    /// The quantiles of [`PERCENTS`] over `all` samples and those of each case, exact to one of `ALPHA_BINS`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub quantiles: BTreeMap<String, Vec<f64>>,
}

/// The percentages of the quantiles of alpha.
pub const PERCENTS: [u32; 7] = [1, 5, 25, 50, 75, 95, 99];

/// Clocks and rates, which differ from run to run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Timing {
    /// Seconds since the beginning of the run; of that epoch in `epoch`, of that evaluation in `evaluated`.
    pub seconds: f64,
    /// Training images a second over all ranks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    /// Seconds in which steps waited for their images, of the rank that waited longest in each: since the last record in
    /// `step`, in this session in `epoch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_for_data: Option<f64>,
    /// Seconds by [`Phase`](crate::timeline::Phase), which add up to the time that passed: the leader's since the last record
    /// in `step`, the mean over the ranks in this session in `epoch`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub phases: BTreeMap<String, f64>,
    /// Floating-point operations a second over all ranks: convolutions and linear layers, as counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flops: Option<f64>,
    /// Their share of what the ranks' devices can do at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilisation: Option<f64>,
    /// The most bytes that tensors held on the GPU of any rank, or that any rank's process held on a CPU, so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

/// Somewhere events go.
pub trait Sink {
    /// Takes note of an event.
    ///
    /// # Errors
    /// The event cannot be written.
    fn record(&mut self, event: &Event) -> Result<()>;

    /// Hears how far a long piece of work is, 0 to 1.
    fn progress(&mut self, _work: &str, _share: f64) {}

    /// Hears something that is worth a line.
    fn note(&mut self, _text: &str) {}

    /// Hears how far an evaluation is.
    fn evaluating(&mut self, _work: &str, _standing: &Standing) {}
}

/// Ranks other than the leader say nothing.
impl Sink for () {
    fn record(&mut self, _event: &Event) -> Result<()> {
        Ok(())
    }
}

/// metrics.jsonl: one JSON object a line.
pub struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Opens `path` and cuts it to `bytes`, its length when the state that goes on was saved.
    ///
    /// # Errors
    /// Anything the file system says; a file shorter than `bytes`.
    pub fn open(path: &Path, bytes: u64) -> Result<Self> {
        let context = || format!("opening {}", path.display());
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).with_context(context)?;
        let length = file.metadata().with_context(context)?.len();
        anyhow::ensure!(
            length >= bytes,
            "{} has {length} bytes, but the checkpoint was saved when it had {bytes}: its end is lost",
            path.display()
        );
        file.set_len(bytes).with_context(context)?;
        file.seek(SeekFrom::Start(bytes)).with_context(context)?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// The length of the file once everything recorded has reached the disk.
    ///
    /// # Errors
    /// Anything the file system says.
    pub fn sync(&mut self) -> Result<u64> {
        let synced = self.file.sync_all().and_then(|()| self.file.stream_position());
        synced.with_context(|| format!("writing {}", self.path.display()))
    }
}

impl Sink for JsonLines {
    fn record(&mut self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_string(event)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).with_context(|| format!("writing {}", self.path.display()))
    }
}

/// The terms' means over the samples of `sums`, and their sum: the loss.
pub(crate) fn losses(sums: &Sums) -> (f64, BTreeMap<String, f64>) {
    let samples = sums.get("samples").copied().unwrap_or(f64::NAN);
    let terms: BTreeMap<String, f64> =
        sums.iter().filter_map(|(name, sum)| Some((name.strip_prefix("loss/")?.to_string(), sum / samples))).collect();
    (terms.values().sum(), terms)
}

/// The counts of an epoch, of samples by what they show.
pub(crate) fn counts(sums: &Sums) -> BTreeMap<String, Count> {
    let mut counts = BTreeMap::new();
    for (name, sum) in sums {
        if let Some(who) = name.strip_prefix("right/") {
            counts.insert(who.to_string(), Count { count: *sum as u64, of: of(sums, who) });
        } else if name.starts_with("case_") {
            counts.insert(name.clone(), Count { count: *sum as u64, of: of(sums, "cases") });
        }
    }
    counts
}

/// The trust of an epoch: its mean and its quantiles.
pub(crate) fn trust(sums: &Sums) -> Option<Trust> {
    let of = of(sums, "alpha");
    let mean = sums.get("alpha")? / of as f64;
    let mut cases = histograms(sums, "alpha", ALPHA_BINS);
    if let Some(first) = cases.values().next() {
        let all = (0..first.len()).map(|bin| cases.values().map(|counts| counts[bin]).sum()).collect();
        cases.insert("all".into(), all);
    }
    let quantiles = cases.iter().filter_map(|(case, counts)| Some((case.clone(), quantiles(counts)?)));
    Some(Trust { mean, of, quantiles: quantiles.collect() })
}

/// The histogram of the teacher's probability of the label, for each case, where cases are known.
pub(crate) fn probability(sums: &Sums) -> BTreeMap<String, Vec<u64>> {
    histograms(sums, "probability", PROBABILITY_BINS)
}

fn of(sums: &Sums, name: &str) -> u64 {
    sums.get(&format!("of/{name}")).copied().unwrap_or(0.0) as u64
}

/// The bins `NAME/CASE/BIN` of `sums`; none where no sample was counted.
fn histograms(sums: &Sums, name: &str, bins: usize) -> BTreeMap<String, Vec<u64>> {
    let count = |case: &str, bin: usize| sums.get(&format!("{name}/{case}/{bin}")).map_or(0, |count| *count as u64);
    let each = |case: &str| (case.to_string(), (0..bins).map(|bin| count(case, bin)).collect::<Vec<_>>());
    let found: BTreeMap<_, _> = CASES.iter().map(|case| each(case)).collect();
    if found.values().flatten().all(|count| *count == 0) { BTreeMap::new() } else { found }
}

/// The middles of the bins in which the samples at [`PERCENTS`] of the order stand.
fn quantiles(counts: &[u64]) -> Option<Vec<f64>> {
    let all: u64 = counts.iter().sum();
    let upto: Vec<u64> = counts
        .iter()
        .scan(0, |sum, count| {
            Some({
                *sum += count;
                *sum
            })
        })
        .collect();
    let middle = |percent: u32| {
        let place = (all * u64::from(percent)).div_ceil(100).max(1);
        (upto.partition_point(|sum| *sum < place) as f64 + 0.5) / counts.len() as f64
    };
    (all > 0).then(|| PERCENTS.map(middle).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_bins_where_the_samples_stand() {
        let mut counts = vec![0; 10];
        assert_eq!(quantiles(&counts), None);
        counts[3] = 1;
        assert_eq!(quantiles(&counts).unwrap(), [0.35; 7]);
        counts[9] = 99;
        assert_eq!(quantiles(&counts).unwrap(), [0.35, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95]);
    }

    #[test]
    fn the_trust_of_all_samples_is_that_of_the_cases_together() {
        let sums = [("alpha", 1.5), ("of/alpha", 2.0), ("alpha/case_a/999", 1.0), ("alpha/case_c/500", 1.0)];
        let trust = trust(&sums.map(|(name, sum)| (name.to_string(), sum)).into()).unwrap();
        assert_eq!((trust.mean, trust.of, trust.quantiles.len()), (0.75, 2, 3));
        assert_eq!(trust.quantiles["all"][3..], [0.5005, 0.9995, 0.9995, 0.9995]);
        assert_eq!(trust.quantiles["case_c"], [0.5005; 7]);
        assert!(probability(&Sums::new()).is_empty());
    }
}
