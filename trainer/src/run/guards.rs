//! Guards against collapse: gradients that are outliers, and a robust accuracy that falls to chance.

use anyhow::Result;

use super::active::Run;
use super::desync::ensure_equal_on_all_ranks;
use super::pending::{Judgement, Pending, Taken};
use crate::config::OnCollapse;
use crate::evaluate::Accuracy;
use crate::run::events::{Event, Guarded};
use crate::system::Phase;
use crate::weights::guarding::{Guarding, Offence};

/// The steps whose median norm is the measure of the next one.
const WINDOW: usize = 100;
/// The fewest that are one.
const FEWEST: usize = 10;

impl Run<'_> {
    /// Compares the ranks every `guard.compare_every` steps.
    pub(super) fn compare_ranks(&self) -> Result<()> {
        let (every, step) = (self.context.config.guard.compare_every, self.state.progress.step);
        if every == 0 || !step.is_multiple_of(every) {
            return Ok(());
        }
        let compare = || ensure_equal_on_all_ranks(&self.step, &self.averages, self.context.ranks(), step);
        self.step.work.networks.timeline.during(Phase::Communication, "comparison of the ranks", compare)
    }

    /// What the next step is judged by, which the device learns as well. `pending` is the step before, where its numbers are not
    /// read yet.
    pub(super) fn judge_next(&mut self, pending: Option<&Pending>) -> Judgement {
        let guard = self.context.config.guard;
        let limit = limit(&self.state.guarding, pending.is_none(), guard.gradient_factor);
        let back_to = self.checkpoint_to_go_back_to(self.state.progress.epoch);
        self.step.work.watch.set_limit(limit, back_to.is_some());
        Judgement { limit, back_to }
    }

    /// Remembers the norm of a step's gradient, and does what follows an outlier.
    pub(super) fn watch_gradient(&mut self, step: u64, norm: f64, taken: &Taken) -> Result<()> {
        let guard = self.context.config.guard;
        if guard.gradient_factor == 0.0 {
            return Ok(());
        }
        let norms = &mut self.state.guarding.norms;
        norms.push(norm.to_bits());
        norms.drain(..norms.len().saturating_sub(WINDOW + 1));
        let Judgement { limit, back_to } = taken.judgement;
        if norm <= limit {
            return Ok(());
        }
        let found = format!("the norm of the gradient, {norm:.4}, is an outlier (above {limit:.4})");
        let usual = self.offence(step, found, taken);
        let exact = back_to.is_some() && usual.exact;
        let offence = Offence { norm: Some(norm), limit: Some(limit), exact, ..usual };
        if let Some(kept) = self.keep_offending(&taken.batch, offence)? {
            self.console.note(&kept);
        }
        let action = match (guard.on_collapse, back_to) {
            (OnCollapse::Warn, _) => "warn",
            (OnCollapse::Rollback, Some(_)) => "rollback",
            (OnCollapse::Skip | OnCollapse::Rollback, _) => "skip",
        };
        self.guarded("gradient", step, (norm, limit), (action, back_to))?;
        self.state.guarding.skipped += u64::from(action == "skip");
        self.back_to = back_to;
        Ok(())
    }

    /// Looks at the robust accuracy after `epoch`, from 0: whether it has fallen to chance, from clearly above it; or, in training by
    /// attacks of a single step, below half the best while the training images withstand these attacks: `trained` is the share
    /// that did so.
    pub(super) fn watch_accuracy(&mut self, epoch: u64, robust: Option<&Accuracy>, trained: Option<f64>) -> Result<()> {
        let guard = self.context.config.guard;
        let (Some(robust), true) = (robust, guard.accuracy_floor) else { return Ok(()) };
        let classes = self.context.prepared.train.class_names().len();
        let single = self.context.config.attack.kind.is_single_step();
        let overfitted = || overfitted(robust, self.state.best, classes, trained.filter(|_| single)?);
        let fallen = fallen(robust, self.state.best, classes).map(|found| ("accuracy", found));
        let Some((kind, found)) = fallen.or_else(|| Some(("overfitting", overfitted()?))) else { return Ok(()) };
        let back_to = self.checkpoint_to_go_back_to(epoch);
        let action = if back_to.is_some() { "rollback" } else { "warn" };
        self.guarded(kind, self.state.progress.step, found, (action, back_to))?;
        self.back_to = back_to;
        Ok(())
    }

    fn guarded(&mut self, kind: &str, step: u64, found: (f64, f64), what: (&str, Option<u64>)) -> Result<()> {
        let (value, limit) = found;
        let (action, to) = what;
        let rate_factor = to.map(|_| self.rate_factor_after(self.state.guarding.rollbacks + 1));
        self.record(&Event::Guarded(Guarded {
            kind: kind.into(),
            step,
            value,
            limit,
            action: action.into(),
            to,
            rate_factor,
        }))
    }
}

/// The largest norm of a gradient that is no outlier. It depends on the steps up to two before: those are read on every rank, in a
/// run that was resumed as in one that was not. With `settled`, the newest norm is that of the step before.
fn limit(guarding: &Guarding, settled: bool, factor: f64) -> f64 {
    let known = guarding.norms.len().saturating_sub(usize::from(settled));
    let mut norms: Vec<f64> =
        guarding.norms[known.saturating_sub(WINDOW)..known].iter().map(|bits| f64::from_bits(*bits)).collect();
    norms.sort_unstable_by(f64::total_cmp);
    let median = norms.get(norms.len() / 2).copied().unwrap_or(0.0);
    if norms.len() < FEWEST || median <= 0.0 || factor == 0.0 { f64::INFINITY } else { factor * median }
}

/// The accuracy, and the largest that is chance, where it has fallen to it: chance ends two standard errors above one in so many
/// classes, and what was once four above it was no chance.
fn fallen(robust: &Accuracy, best: Option<u64>, classes: usize) -> Option<(f64, f64)> {
    let (of, chance) = (robust.of.max(1) as f64, 1.0 / classes.max(1) as f64);
    let error = (chance * (1.0 - chance) / of).sqrt();
    let (found, best) = (robust.correct as f64 / of, best? as f64 / of);
    let floor = chance + 2.0 * error;
    (found <= floor && best > chance + 4.0 * error).then_some((found, floor))
}

/// The accuracy and half the best one, where it is below that and the accuracy under the attack of training is not below the best:
/// catastrophic overfitting to that attack (Wong, Rice and Kolter 2020).
fn overfitted(robust: &Accuracy, best: Option<u64>, classes: usize, trained: f64) -> Option<(f64, f64)> {
    let (of, chance) = (robust.of.max(1) as f64, 1.0 / classes.max(1) as f64);
    let error = (chance * (1.0 - chance) / of).sqrt();
    let (found, best) = (robust.correct as f64 / of, best? as f64 / of);
    (best > chance + 4.0 * error && found < 0.5 * best && trained >= best).then_some((found, 0.5 * best))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarding(norms: &[f64]) -> Guarding {
        Guarding { norms: norms.iter().map(|norm| norm.to_bits()).collect(), ..Guarding::default() }
    }

    #[test]
    fn a_step_is_judged_by_the_steps_up_to_two_before() {
        let mut norms: Vec<f64> = (1..=11).map(f64::from).collect();
        // The eleventh is not read yet, or it is and does not count.
        assert_eq!(limit(&guarding(&norms[..10]), false, 2.0), 12.0);
        assert_eq!(limit(&guarding(&norms), true, 2.0), 12.0);
        assert_eq!(limit(&guarding(&norms), false, 2.0), 12.0);
        norms.push(1e9);
        assert_eq!(limit(&guarding(&norms), false, 2.0), 14.0);
    }

    #[test]
    fn few_steps_and_a_factor_of_0_judge_nothing() {
        let norms = [3.0; 10];
        assert_eq!(limit(&guarding(&norms), true, 2.0), f64::INFINITY);
        assert_eq!(limit(&guarding(&norms), false, 0.0), f64::INFINITY);
        assert_eq!(limit(&guarding(&[0.0; 20]), false, 2.0), f64::INFINITY);
        assert_eq!(limit(&guarding(&[]), true, 2.0), f64::INFINITY);
    }

    #[test]
    fn only_the_newest_steps_count() {
        let norms: Vec<f64> = std::iter::repeat_n(1000.0, 60).chain(std::iter::repeat_n(1.0, 101)).collect();
        let kept = &norms[norms.len() - WINDOW - 1..];
        assert_eq!(limit(&guarding(kept), true, 50.0), limit(&guarding(&kept[..WINDOW]), false, 50.0));
        assert_eq!(limit(&guarding(kept), false, 50.0), 50.0);
    }

    #[test]
    fn chance_is_a_collapse_only_for_what_was_above_it() {
        let robust = |correct| Accuracy { name: "pgd10".into(), correct, of: 1000 };
        // Ten classes: 100 of 1000 by chance, with a standard error of 9.5.
        let floor = 0.1 + 2.0 * (0.09f64 / 1000.0).sqrt();
        assert_eq!(fallen(&robust(118), Some(400), 10), Some((0.118, floor)));
        assert_eq!(fallen(&robust(119), Some(400), 10), None);
        assert_eq!(fallen(&robust(0), Some(138), 10).map(|(_, floor)| floor), Some(floor));
        for best in [None, Some(0), Some(137)] {
            assert_eq!(fallen(&robust(90), best, 10), None, "{best:?}");
        }
    }
    #[test]
    fn robustness_that_is_lost_to_an_attack_that_still_fails_is_overfitting() {
        let robust = |correct| Accuracy { name: "pgd10".into(), correct, of: 1000 };
        assert_eq!(overfitted(&robust(199), Some(400), 10, 0.8), Some((0.199, 0.2)));
        assert_eq!(overfitted(&robust(199), Some(400), 10, 0.4), Some((0.199, 0.2)));
        // Half is kept; training is as lost; nothing was learnt before.
        assert_eq!(overfitted(&robust(200), Some(400), 10, 0.8), None);
        assert_eq!(overfitted(&robust(199), Some(400), 10, 0.39), None);
        assert_eq!(overfitted(&robust(10), Some(137), 10, 0.8), None);
        assert_eq!(overfitted(&robust(10), None, 10, 0.8), None);
    }
}
