//! The live view of a run: what is known of it by now, as a few lines. It does not know how they are shown.

use std::collections::BTreeMap;

use trainer::run::events::{EpochDone, Evaluated, StepDone};

use super::units::duration;

const BAR: usize = 24;
/// The warnings that stay in view. All stand in console.log.
const WARNINGS: usize = 2;

/// What is known of a run.
#[derive(Debug, Default)]
pub(super) struct Live {
    epochs: u64,
    steps_per_epoch: u64,
    step: Option<StepDone>,
    /// Of the last whole epoch.
    trust: Option<String>,
    evaluated: Option<String>,
    warnings: Vec<String>,
}

impl Live {
    /// The view of a run of `epochs` epochs of `steps_per_epoch` steps.
    pub(super) fn of(epochs: u64, steps_per_epoch: u64) -> Self {
        Self { epochs, steps_per_epoch, ..Self::default() }
    }

    /// Whether there is a run to look at, and not an evaluation alone.
    pub(super) fn has_begun(&self) -> bool {
        self.step.is_some()
    }

    pub(super) fn step(&mut self, step: &StepDone) {
        self.step = Some(step.clone());
    }

    pub(super) fn epoch(&mut self, epoch: &EpochDone) {
        let share = |name: &str| {
            let count = epoch.counts.get(name)?;
            Some(100.0 * count.count as f64 / count.of.max(1) as f64)
        };
        let mut parts = vec![];
        parts.extend(epoch.trust.as_ref().map(|trust| format!("mean alpha {:.3}", trust.mean)));
        for (name, words) in [
            ("case_a", "teacher right on both images"),
            ("case_b", "on the natural one only"),
            ("case_c", "wrong on the natural one"),
            ("case_d", "of these right on the adversarial one"),
        ] {
            parts.extend(share(name).map(|share| format!("{words} {share:.1} %")));
        }
        self.trust = (!parts.is_empty()).then(|| parts.join(", "));
    }

    pub(super) fn evaluated(&mut self, evaluated: &Evaluated, accuracies: &str) {
        let split = evaluated.split.replace('_', "-");
        let best = if evaluated.best { ", the best so far" } else { "" };
        self.evaluated = Some(format!("after epoch {}, {split} images: {accuracies}{best}", evaluated.epoch + 1));
    }

    pub(super) fn warned(&mut self, message: &str) {
        self.warnings.retain(|known| known != message);
        self.warnings.push(message.to_string());
        self.warnings.drain(..self.warnings.len().saturating_sub(WARNINGS));
    }

    /// The lines, with the seconds that are `left` and other `work` than steps, where there is some.
    pub(super) fn lines(&self, left: Option<f64>, work: Option<&str>) -> Vec<String> {
        let Some(StepDone { epoch, step, learning_rate, loss, terms, timing }) = &self.step else {
            return work.map(str::to_string).into_iter().collect();
        };
        let all = self.epochs * self.steps_per_epoch;
        let within = step.saturating_sub(epoch * self.steps_per_epoch);
        let left = left.map(|seconds| format!(", {} left", duration(seconds))).unwrap_or_default();
        let mut lines = vec![
            format!("{:<11}{} step {step} of {all}{left}", "run", bar(*step, all)),
            format!("{:<11}{} epoch {} of {}", "epoch", bar(within, self.steps_per_epoch), epoch + 1, self.epochs),
        ];
        let mut add = |name: &str, text: String| lines.push(format!("{name:<11}{text}"));
        let rate = timing.images_per_second.map_or(String::new(), |rate| format!("{rate:.0} images/s, "));
        add("speed", format!("{rate}learning rate {learning_rate:.4}"));
        add("time", phases(&timing.phases));
        let of: Vec<String> = terms.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        let of = if of.len() > 1 { format!(" = {}", of.join(" + ")) } else { String::new() };
        add("loss", format!("{loss:.4}{of}"));
        for (name, text) in [("trust", &self.trust), ("accuracy", &self.evaluated)] {
            text.iter().for_each(|text| add(name, text.clone()));
        }
        self.warnings.iter().for_each(|message| add("warning", message.clone()));
        work.iter().for_each(|work| add("now", (*work).to_string()));
        lines
    }
}

/// `attack 71 %, backward 14 %`: the parts of the time by their size.
fn phases(seconds: &BTreeMap<String, f64>) -> String {
    let whole: f64 = seconds.values().sum();
    let mut parts: Vec<(&String, f64)> = seconds.iter().map(|(name, part)| (name, 100.0 * part / whole)).collect();
    parts.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let shown = parts.iter().filter(|(_, share)| *share >= 1.0).map(|(name, share)| format!("{name} {share:.0} %"));
    shown.collect::<Vec<_>>().join(", ")
}

/// `[######------]  50 %`
fn bar(done: u64, all: u64) -> String {
    let share = (done as f64 / all.max(1) as f64).clamp(0.0, 1.0);
    let full = (share * BAR as f64) as usize;
    format!("[{}{}] {:>3.0} %", "#".repeat(full), "-".repeat(BAR - full), (100.0 * share).floor())
}

#[cfg(test)]
mod tests {
    use trainer::run::events::Event;

    use super::*;

    fn event(text: &str) -> Event {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_view_says_what_is_known() {
        let mut live = Live::of(4, 10);
        assert_eq!(live.lines(None, Some("evaluating")), ["evaluating"]);
        let Event::Step(step) = event(
            r#"{"event":"step","epoch":1,"step":15,"learning_rate":0.05,"loss":0.5,"terms":{"teach":0.4,"introspect":0.1},
            "timing":{"seconds":3,"images_per_second":640.4,"phases":{"attack":7,"backward":2.95,"update":0.05}}}"#,
        ) else {
            panic!("a step");
        };
        live.step(&step);
        let lines = live.lines(Some(75.0), None);
        assert_eq!(
            lines,
            [
                "run        [#########---------------]  37 % step 15 of 40, 1 min 15 s left",
                "epoch      [############------------]  50 % epoch 2 of 4",
                "speed      640 images/s, learning rate 0.0500",
                "time       attack 70 %, backward 30 %",
                "loss       0.5000 = introspect 0.1000 + teach 0.4000",
            ]
        );
        let Event::Epoch(epoch) = event(
            r#"{"event":"epoch","epoch":0,"trust":{"mean":0.9731,"of":10},"counts":{"case_a":{"count":9,"of":10}}}"#,
        ) else {
            panic!("an epoch");
        };
        live.epoch(&epoch);
        let Event::Evaluated(evaluated) =
            event(r#"{"event":"evaluated","epoch":0,"split":"held_out","best":true,"attacks":[]}"#)
        else {
            panic!("an evaluation");
        };
        live.evaluated(&evaluated, "natural 88.10 %");
        for message in ["one", "two", "three", "two"] {
            live.warned(message);
        }
        let lines = live.lines(None, Some("evaluating, pgd10: 20 %"));
        assert_eq!(
            lines[5..],
            [
                "trust      mean alpha 0.973, teacher right on both images 90.0 %",
                "accuracy   after epoch 1, held-out images: natural 88.10 %, the best so far",
                "warning    three",
                "warning    two",
                "now        evaluating, pgd10: 20 %",
            ]
        );
    }

    #[test]
    fn bars_are_full_at_the_end_alone() {
        assert_eq!(bar(0, 0), format!("[{}]   0 %", "-".repeat(BAR)));
        assert_eq!(bar(999, 1000), format!("[{}-]  99 %", "#".repeat(BAR - 1)));
        assert_eq!(bar(1000, 1000), format!("[{}] 100 %", "#".repeat(BAR)));
    }
}
