//! The console of a run: progress on stderr, and the same lines in the run's console.log.

use std::fs::File;
use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result};
use trainer::evaluate::{Accuracy, Standing};
use trainer::run::events::{EpochDone, Evaluated, Event, RunFinished, RunStarted, StepDone, Timing};
use trainer::run::folder::RunFolder;
use trainer::run::metrics::Sink;

use super::live::Live;
use super::progress_line::ProgressLine;
use super::time_left::TimeLeft;
use super::units::{counted, duration, rate_of_operations};

/// The largest share of an epoch's time in which steps wait for images without a warning.
const STARVED: f64 = 0.05;
/// The advice in that warning.
const MORE_IMAGES: &str = "Raise data.threads and data.prefetch, put the container on a faster disk, or, where the set fits \
                           in memory, set data.reading = \"resident\"";

/// The leader's console.
pub(crate) struct Console {
    log: Option<File>,
    progress: ProgressLine,
    time_left: TimeLeft,
    live: Live,
    /// Seconds that the training has left.
    left: Option<f64>,
    steps_per_epoch: u64,
    epochs: u64,
}

impl Console {
    /// The console of a run of `epochs` epochs of `steps_per_epoch` steps, with its log in `folder`.
    ///
    /// # Errors
    /// The log cannot be written.
    pub(crate) fn new(folder: &RunFolder, epochs: u64, steps_per_epoch: u64) -> Result<Self> {
        let path = folder.file("console.log");
        let log = File::options().append(true).create(true).open(&path);
        let log = log.with_context(|| format!("writing {}", path.display()))?;
        let live = Live::of(epochs, steps_per_epoch);
        Ok(Self { log: Some(log), live, steps_per_epoch, epochs, ..Self::without_log() })
    }

    /// A console without a log.
    pub(crate) fn without_log() -> Self {
        Self {
            log: None,
            progress: ProgressLine::new(),
            time_left: TimeLeft::default(),
            live: Live::default(),
            left: None,
            steps_per_epoch: 0,
            epochs: 0,
        }
    }

    /// A line that stays.
    pub(crate) fn line(&mut self, text: &str) {
        self.progress.line(text);
        self.log(text);
    }

    /// A warning, which is shown in any case.
    fn warning(&mut self, text: &str) {
        self.live.warned(text);
        let text = format!("warning: {text}");
        self.progress.warning(&text);
        self.log(&text);
    }

    /// A line that the next one replaces on a terminal, where a run is in view below it; elsewhere and in the log it is printed
    /// at intervals.
    fn transient(&mut self, text: &str) {
        if self.progress.is_live() && self.live.has_begun() {
            return self.progress.block(|| self.live.lines(self.left, Some(text)));
        }
        if let Some(text) = self.progress.transient(text) {
            self.log(text);
        }
    }

    fn log(&mut self, text: &str) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{text}");
        }
    }
}

impl Sink for Console {
    fn record(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Started(RunStarted { parameters, train_images, held_out_images, classes, extra, .. }) => {
                let extra = extra.as_ref().map_or(String::new(), |extra| {
                    format!(", {} of each step drawn from {} extra images", extra.per_step, extra.images)
                });
                self.line(&format!(
                    "student of {parameters} parameters; {train_images} training images of {classes} classes, {held_out_images} \
                     held out{extra}; {} of {}",
                    counted(self.epochs, "epoch"),
                    counted(self.steps_per_epoch, "step")
                ));
            }
            Event::Step(done @ StepDone { epoch, step, loss, timing, .. }) => {
                let all = self.epochs * self.steps_per_epoch;
                self.left = self.time_left.after(*step, all, Instant::now());
                if self.progress.is_live() {
                    self.live.step(done);
                    self.progress.block(|| self.live.lines(self.left, None));
                    return Ok(());
                }
                let left = self.left.map(|seconds| format!(", {} left", duration(seconds))).unwrap_or_default();
                let rate = timing.images_per_second.unwrap_or(0.0);
                let effort = effort(timing);
                let text = format!(
                    "epoch {}/{}, step {step}/{all}: loss {loss:.4}, {rate:.0} images/s{effort}{left}",
                    epoch + 1,
                    self.epochs,
                );
                self.transient(&text);
            }
            Event::Epoch(done @ EpochDone { epoch, loss, terms, counts, trust, timing, .. }) => {
                self.live.epoch(done);
                let mut text = format!("epoch {}/{}: loss {loss:.4}", epoch + 1, self.epochs);
                if terms.len() > 1 {
                    let terms: Vec<String> = terms.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
                    text += &format!(" ({})", terms.join(", "));
                }
                if let Some(right) = counts.get("student_adversarial") {
                    text += &format!(", right on own adversarial images {}", percent_of(right.count, right.of));
                }
                if let Some(trust) = trust {
                    text += &format!(", mean alpha {:.4}", trust.mean);
                }
                self.line(&format!("{text}; {}", duration(timing.seconds)));
                let waited = timing.waited_for_data.unwrap_or(0.0);
                if waited > STARVED * timing.seconds {
                    let share = 100.0 * waited / timing.seconds;
                    self.warning(&format!("{share:.0} % of the epoch went by waiting for images. {MORE_IMAGES}"));
                }
            }
            Event::Evaluated(done @ Evaluated { split, best, attacks, .. }) => {
                self.live.evaluated(done, &accuracies(attacks));
                let best = if *best { " (best so far)" } else { "" };
                self.line(&format!("  on {split}: {}{best}", accuracies(attacks)));
            }
            Event::Warned { message } => self.warning(message),
            Event::Guarded(guarded) => self.warning(&guarded.to_string()),
            Event::Finished(RunFinished { step, timing }) => {
                self.live = Live::default();
                self.line(&format!("trained {step} steps in {}", duration(timing.seconds)));
            }
            Event::Changed { key, before, now } => self.line(&format!("changed: {key} = {now}, before {before}")),
            Event::Unknown => {}
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }

    fn progress(&mut self, work: &str, share: f64) {
        self.transient(&format!("{work}: {:.0} %", share * 100.0));
    }

    fn evaluating(&mut self, work: &str, standing: &Standing) {
        let Standing { round, share, standing, images, seconds_left } = standing;
        let bound = percent_of(*standing, *images);
        let left = seconds_left.map(|seconds| format!(", {} left", duration(seconds))).unwrap_or_default();
        self.transient(&format!("{work}, {round}: {:.0} %, at most {bound} robust{left}", share * 100.0));
    }
}

/// `, 0.31 TFLOP/s (62 % of peak), attack 71 %, backward 14 %`: the achieved rate, and the longest phases.
fn effort(timing: &Timing) -> String {
    let mut text = match (timing.flops, timing.utilisation) {
        (Some(flops), Some(utilisation)) => {
            format!(", {} ({})", rate_of_operations(flops), of_peak(utilisation))
        }
        _ => String::new(),
    };
    let whole: f64 = timing.phases.values().sum();
    let mut phases: Vec<(&String, f64)> = timing.phases.iter().map(|(name, seconds)| (name, seconds / whole)).collect();
    phases.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    for (name, share) in phases.iter().take(3).filter(|(_, share)| *share >= 0.01) {
        text += &format!(", {name} {:.0} %", 100.0 * share);
    }
    text
}

/// `62 % of peak`. The share exceeds 1 only where the configuration names the peak. It is exactly 1 where this step is faster
/// than every step and the measurement before it.
fn of_peak(utilisation: f64) -> String {
    let percent = format!("{:.0} %", 100.0 * utilisation);
    match utilisation {
        share if share > 1.0 => format!("{percent} of metrics.peak_tflops, which is too low"),
        1.0 => "the fastest step so far, faster than the measured peak".into(),
        _ => format!("{percent} of peak"),
    }
}

/// `natural 88.10 % of 1200, pgd10 ...`
fn accuracies(attacks: &[Accuracy]) -> String {
    let each = attacks.iter().map(|found| format!("{} {}", found.name, percent_of(found.correct, found.of)));
    let of = attacks.first().map_or(0, |found| found.of);
    format!("{} ({of} images)", each.collect::<Vec<_>>().join(", "))
}

fn percent_of(count: u64, of: u64) -> String {
    format!("{:.2} %", 100.0 * count as f64 / of.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_peak_is_explained() {
        assert_eq!(
            [0.62, 0.999, 1.0, 1.04].map(of_peak),
            [
                "62 % of peak",
                "100 % of peak",
                "the fastest step so far, faster than the measured peak",
                "104 % of metrics.peak_tflops, which is too low"
            ]
        );
    }
}
