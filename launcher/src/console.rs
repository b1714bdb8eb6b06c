//! What a person sees: progress on stderr, and the same lines in the run's console.log.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use trainer::evaluate::{Accuracy, Standing};
use trainer::folder::RunFolder;
use trainer::metrics::{Event, Sink, Timing};

/// The share of an epoch's time that steps may wait for images before the user is told.
const STARVED: f64 = 0.05;
/// What to do about it.
const MORE_IMAGES: &str = "Raise data.threads and data.prefetch, put the container on a faster disk, or, where the set fits \
                           in memory, set data.reading = \"resident\"";

/// A line to the user.
pub(crate) fn say(text: &str) {
    // Nothing can be done about a closed stderr, and it must not stop a run.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// An error to the user.
pub(crate) fn error(error: &anyhow::Error) {
    error_text(&format!("{error:#}"));
}

/// An error to the user, in words.
pub(crate) fn error_text(text: &str) {
    say(&format!("iad-launch: error: {text}"));
}

/// Adds a line to a run's console.log, if that can be done.
pub(crate) fn append_log(folder: &Path, text: &str) {
    if let Ok(mut log) = File::options().append(true).create(true).open(folder.join("console.log")) {
        let _ = writeln!(log, "{text}");
    }
}

/// Lines on how far something is, outside of runs: one that changes on a terminal, one now and then elsewhere.
#[derive(Default)]
pub(crate) struct Ticker {
    shown: Option<Instant>,
}

impl Ticker {
    /// A line that stays.
    pub(crate) fn line(&mut self, text: &str) {
        say(&format!("{}{text}", if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" }));
        self.shown = Some(Instant::now());
    }

    /// A line that the next one replaces.
    pub(crate) fn transient(&mut self, text: &str) {
        let terminal = std::io::stderr().is_terminal();
        let pause = if terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        let shown = *self.shown.get_or_insert_with(Instant::now);
        if shown.elapsed() < pause {
            return;
        }
        if terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        } else {
            say(text);
        }
        self.shown = Some(Instant::now());
    }
}

/// The leader's console.
pub(crate) struct Console {
    log: Option<File>,
    terminal: bool,
    shown: Option<Instant>,
    began: Instant,
    /// The first step of this session and all steps of the run, once known.
    first_step: Option<u64>,
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
        Ok(Self { log: Some(log), steps_per_epoch, epochs, ..Self::without_log() })
    }

    /// A console that keeps no log.
    pub(crate) fn without_log() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            log: None,
            terminal,
            shown: None,
            began: Instant::now(),
            first_step: None,
            steps_per_epoch: 0,
            epochs: 0,
        }
    }

    /// A line that stays.
    pub(crate) fn line(&mut self, text: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        say(&format!("{clear}{text}"));
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{text}");
        }
    }

    /// A line that the next one replaces on a terminal; elsewhere it is shown now and then.
    fn transient(&mut self, text: &str) {
        let pause = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        } else {
            self.line(text);
        }
    }

    fn time_left(&mut self, step: u64) -> String {
        let all = self.epochs * self.steps_per_epoch;
        let Some(first) = self.first_step else {
            // The first step pays for warming up: it is no measure.
            self.first_step = Some(step);
            self.began = Instant::now();
            return String::new();
        };
        let left = self.began.elapsed().as_secs_f64() / (step - first).max(1) as f64 * all.saturating_sub(step) as f64;
        format!(", {} left", duration(left))
    }
}

impl Sink for Console {
    fn record(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Started { parameters, train_images, held_out_images, classes, .. } => self.line(&format!(
                "student of {parameters} parameters; {train_images} training images of {classes} classes, {held_out_images} held out; \
                 {} epochs of {} steps",
                self.epochs, self.steps_per_epoch
            )),
            Event::Step { epoch, step, loss, timing, .. } => {
                let left = self.time_left(*step);
                let rate = timing.images_per_second.unwrap_or(0.0);
                let effort = effort(timing);
                let text = format!(
                    "epoch {}/{}, step {step}/{}: loss {loss:.4}, {rate:.0} images/s{effort}{left}",
                    epoch + 1,
                    self.epochs,
                    self.epochs * self.steps_per_epoch
                );
                self.transient(&text);
            }
            Event::Epoch { epoch, loss, terms, counts, trust, timing, .. } => {
                let mut text = format!("epoch {}/{}: loss {loss:.4}", epoch + 1, self.epochs);
                if terms.len() > 1 {
                    let terms: Vec<String> = terms.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
                    text += &format!(" ({})", terms.join(", "));
                }
                if let Some(right) = counts.get("student_adversarial") {
                    text += &format!(", right on own adversarial images {}", percent(right.count, right.of));
                }
                if let Some(trust) = trust {
                    text += &format!(", mean alpha {:.4}", trust.mean);
                }
                self.line(&format!("{text}; {}", duration(timing.seconds)));
                let waited = timing.waited_for_data.unwrap_or(0.0);
                if waited > STARVED * timing.seconds {
                    let share = 100.0 * waited / timing.seconds;
                    self.line(&format!("warning: {share:.0} % of the epoch went by waiting for images. {MORE_IMAGES}"));
                }
            }
            Event::Evaluated { split, best, attacks, .. } => {
                let best = if *best { " (best so far)" } else { "" };
                self.line(&format!("  on {split}: {}{best}", accuracies(attacks)));
            }
            Event::Warned { message } => self.line(&format!("warning: {message}")),
            Event::Finished { step, timing } => {
                self.line(&format!("trained {step} steps in {}", duration(timing.seconds)));
            }
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
        let bound = percent(*standing, *images);
        let left = seconds_left.map(|seconds| format!(", {} left", duration(seconds))).unwrap_or_default();
        self.transient(&format!("{work}, {round}: {:.0} %, at most {bound} robust{left}", share * 100.0));
    }
}

/// `, 0.31 TFLOP/s (62 % of peak), attack 71 %, backward 14 %`: what the ranks achieve, and where most of the time goes.
fn effort(timing: &Timing) -> String {
    let mut text = match (timing.flops, timing.utilisation) {
        (Some(flops), Some(utilisation)) => {
            format!(", {} ({:.0} % of peak)", rate_of_operations(flops), 100.0 * utilisation)
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

/// `850 GFLOP/s`, `12.3 TFLOP/s`.
pub(crate) fn rate_of_operations(flops: f64) -> String {
    if flops < 1e12 { format!("{:.3} GFLOP/s", flops / 1e9) } else { format!("{:.1} TFLOP/s", flops / 1e12) }
}

/// `natural 88.10 % of 1200, pgd10 ...`
fn accuracies(attacks: &[Accuracy]) -> String {
    let each = attacks.iter().map(|found| format!("{} {}", found.name, percent(found.correct, found.of)));
    let of = attacks.first().map_or(0, |found| found.of);
    format!("{} ({of} images)", each.collect::<Vec<_>>().join(", "))
}

fn percent(count: u64, of: u64) -> String {
    format!("{:.2} %", 100.0 * count as f64 / of.max(1) as f64)
}

/// `12 s`, `3 min 20 s`, `5 h 12 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..100 => format!("{seconds} s"),
        100..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
