//! The learning rate as a function of progress.

use std::f64::consts::PI;

use crate::config::{LateCosine, LrPolicy, LrScale, OneCycleCosine, OptimizerConfig, Pace};

/// The learning rates of a run, step by step.
#[derive(Debug, Clone)]
pub struct LrSchedule {
    policy: LrPolicy,
    /// The base rate for the batches of this run.
    rate: f64,
    /// The share of the base rate at which the warm-up begins, and the number of its steps.
    warm_up: (f64, u64),
    epochs: u64,
    steps: u64,
}

impl LrSchedule {
    /// The rates of a run of `epochs` epochs of `steps_per_epoch` steps, of which the first `warm_up` steps are a
    /// warm-up. The configured rate `lr` is meant for another batch size; `factor` scales it for this run's.
    fn new(policy: LrPolicy, (lr, factor): (f64, f64), warm_up: u64, epochs: u64, steps_per_epoch: u64) -> Self {
        // Goyal et al. 2017, section 2.2: the warm-up begins at the rate of the small batch, or at a tenth if that is
        // lower.
        let first = if factor > 1.0 { 1.0 / factor } else { 0.1 };
        Self { policy, rate: lr * factor, warm_up: (first, warm_up), epochs, steps: epochs * steps_per_epoch }
    }

    /// The rate of step `step` of the run, in epoch `epoch`. Both count from 0.
    pub fn rate(&self, epoch: u64, step: u64) -> f64 {
        let (first, warm_up) = self.warm_up;
        let factor = match &self.policy {
            LrPolicy::Cosine => {
                let annealed = step.saturating_sub(warm_up) as f64 / self.steps.saturating_sub(warm_up).max(1) as f64;
                between(1.0, 0.0, annealed)
            }
            LrPolicy::Cyclic { base, up, down } => base + (1.0 - base) * triangle(step, *up, *down),
            LrPolicy::LateCosine(LateCosine { from, decay }) => {
                let begun = (epoch + 1).saturating_sub(*from) as f64 / self.epochs.saturating_sub(*from).max(1) as f64;
                between(1.0, 0.0, begun) * (-decay * begun * begun).exp()
            }
            LrPolicy::OneCycleCosine(cycle) => {
                let start = 1.0 / cycle.div_factor;
                self.in_cycle(cycle, epoch, step, [start, 1.0, start / cycle.final_div_factor])
            }
            policy => policy.factor(epoch, step as f64 / self.steps as f64),
        };
        let rate = self.rate * factor;
        if step >= warm_up { rate } else { rate * (first + (1.0 - first) * step as f64 / warm_up as f64) }
    }

    /// The momentum of that step, if the policy changes it.
    pub fn momentum(&self, epoch: u64, step: u64) -> Option<f64> {
        let LrPolicy::OneCycleCosine(cycle) = &self.policy else { return None };
        let corners = [cycle.max_momentum, cycle.base_momentum, cycle.max_momentum];
        cycle.cycle_momentum.then(|| self.in_cycle(cycle, epoch, step, corners))
    }

    /// The steps of the run.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The value of a cycle that leads from the first corner to the second and on to the third, as in PyTorch's
    /// `OneCycleLR`: the second one belongs to the step before `pct_start`, the third to the last step.
    fn in_cycle(&self, cycle: &OneCycleCosine, epoch: u64, step: u64, [first, second, third]: [f64; 3]) -> f64 {
        let (at, all) = match cycle.per {
            Pace::Epoch => (epoch, self.epochs),
            Pace::Step => (step, self.steps),
        };
        let (at, last, peak) = (at as f64, all as f64 - 1.0, cycle.pct_start * all as f64 - 1.0);
        if at < peak { between(first, second, at / peak) } else { between(second, third, (at - peak) / (last - peak)) }
    }
}

/// The value on half a cosine from `from` to `to`.
fn between(from: f64, to: f64, fraction: f64) -> f64 {
    to + (from - to) / 2.0 * (1.0 + (PI * fraction).cos())
}

/// The height, 0 to 1, of a triangle that rises over `up` steps, falls over `down` steps, and repeats.
fn triangle(step: u64, up: u64, down: u64) -> f64 {
    let at = step % (up + down);
    if at < up { at as f64 / up as f64 } else { 1.0 - (at - up) as f64 / down as f64 }
}

impl LrScale {
    /// The factor of the rate for a batch that is larger by this ratio than the one the rate is meant for.
    pub fn factor(self, times: f64) -> f64 {
        match self {
            LrScale::None => 1.0,
            LrScale::Linear => times,
            LrScale::Sqrt => times.sqrt(),
        }
    }
}

impl LrPolicy {
    /// The factor of the base rate in `epoch` of policies that depend on it, or on `fraction`, 0 to 1, of the run.
    fn factor(&self, epoch: u64, fraction: f64) -> f64 {
        let drops = |at: &[u64]| at.iter().filter(|&&drop| epoch >= drop).count() as i32;
        match self {
            LrPolicy::Constant | LrPolicy::Cosine | LrPolicy::LateCosine(_) => 1.0,
            LrPolicy::Cyclic { .. } | LrPolicy::OneCycleCosine(_) => 1.0,
            LrPolicy::Reference => 0.1f64.powi(drops(&[100])),
            LrPolicy::Paper => 0.1f64.powi(drops(&[100, 150])),
            LrPolicy::Step { at, factor } => factor.powi(drops(at)),
            LrPolicy::OneCycle { start, peak, .. } if fraction < *peak => start + (1.0 - start) * fraction / peak,
            LrPolicy::OneCycle { peak, end, .. } => 1.0 + (end - 1.0) * (fraction - peak) / (1.0 - peak),
        }
    }
}

impl OptimizerConfig {
    /// The rates of a run with batches of `global_batch` images.
    pub fn schedule(&self, epochs: u64, steps_per_epoch: u64, global_batch: usize) -> LrSchedule {
        let factor = self.lr_scale.factor(global_batch as f64 / self.lr_base_batch as f64);
        let warm_up = self.lr_warmup_epochs * steps_per_epoch;
        LrSchedule::new(self.lr_policy.clone(), (self.lr, factor), warm_up, epochs, steps_per_epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OptimizerConfig;

    #[test]
    fn drops_take_effect_at_their_epoch() {
        for (policy, expected) in [
            (LrPolicy::Reference, [1.0, 0.1, 0.1]),
            (LrPolicy::Paper, [1.0, 0.1, 0.01]),
            (LrPolicy::Step { at: vec![100, 150], factor: 0.5 }, [1.0, 0.5, 0.25]),
            (LrPolicy::Constant, [1.0; 3]),
        ] {
            for (epoch, factor) in [99, 100, 199].into_iter().zip(expected) {
                assert!((policy.factor(epoch, 0.0) - factor).abs() < 1e-15, "{policy:?} at {epoch}");
            }
        }
    }

    #[test]
    fn one_cycle_is_linear_between_its_corners() {
        let policy = LrPolicy::OneCycle { start: 0.1, peak: 0.25, end: 0.005 };
        for (fraction, factor) in [(0.0, 0.1), (0.125, 0.55), (0.25, 1.0), (0.625, 0.5025), (1.0, 0.005)] {
            assert!((policy.factor(0, fraction) - factor).abs() < 1e-12, "at {fraction}");
        }
    }

    /// The rates of 200 epochs of 10 steps.
    fn schedule(text: &str, global_batch: usize) -> LrSchedule {
        let text = format!("lr = 0.1\nlr_policy = \"reference\"\n{text}");
        toml::from_str::<OptimizerConfig>(&text).unwrap().schedule(200, 10, global_batch)
    }

    #[test]
    fn without_a_scale_the_rate_is_that_of_the_policy_to_the_bit() {
        let schedule = schedule("", 1024);
        assert_eq!([schedule.rate(0, 0), schedule.rate(100, 1000)], [0.1, 0.1 * 0.1]);
    }

    #[test]
    fn the_rate_follows_the_batch() {
        for (scale, global_batch, rate) in [("linear", 1024, 0.8), ("sqrt", 512, 0.2), ("linear", 64, 0.05)] {
            let schedule = schedule(&format!("lr_scale = {scale:?}"), global_batch);
            assert!((schedule.rate(0, 0) - rate).abs() < 1e-15, "{scale}");
        }
        let schedule = schedule("lr_scale = \"linear\"\nlr_base_batch = 256", 1024);
        assert!((schedule.rate(0, 0) - 0.4).abs() < 1e-15);
    }

    #[test]
    fn the_warm_up_goes_from_the_unscaled_rate_to_the_scaled_one_step_by_step() {
        for (scale, first, last) in [("linear", 0.1, 0.8), ("none", 0.01, 0.1)] {
            let schedule = schedule(&format!("lr_scale = {scale:?}\nlr_warmup_epochs = 5"), 1024);
            for (step, share) in [(0, 0.0), (1, 0.02), (25, 0.5), (49, 0.98), (50, 1.0), (999, 1.0)] {
                let expected = first + (last - first) * share;
                let rate = schedule.rate(step / 10, step);
                assert!((rate - expected).abs() < 1e-15, "{scale}, step {step}: {rate}");
            }
            assert!((schedule.rate(100, 1000) - last / 10.0).abs() < 1e-15);
        }
    }

    #[derive(serde::Deserialize)]
    struct Cycle {
        total_steps: u64,
        max_lr: f64,
        pct_start: f64,
        index: Vec<u64>,
        lr: Vec<f64>,
        momentum: Vec<f64>,
    }

    /// Source: `one_cycle` of the recipe's golden numbers: PyTorch's `OneCycleLR`.
    #[test]
    fn one_cycle_of_pytorch_by_steps_and_by_epochs() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/golden_recipe.json")).unwrap();
        let cases: Vec<Cycle> = serde_json::from_value(golden["one_cycle"].clone()).unwrap();
        assert!(cases.len() >= 2);
        for Cycle { total_steps, max_lr, pct_start, index, lr, momentum } in cases {
            for (per, epochs, steps) in [("epoch", total_steps, 10), ("step", 1, total_steps)] {
                let text = format!(
                    "lr = {max_lr:?}\nlr_policy = {{ one_cycle_cosine = {{ pct_start = {pct_start:?}, per = {per:?} }} }}"
                );
                let schedule = toml::from_str::<OptimizerConfig>(&text).unwrap().schedule(epochs, steps, 128);
                for ((&index, &lr), &momentum) in index.iter().zip(&lr).zip(&momentum) {
                    let (epoch, step) = if per == "epoch" { (index, index * 10 + 3) } else { (0, index) };
                    let found = (schedule.rate(epoch, step), schedule.momentum(epoch, step).unwrap());
                    let apart = ((found.0 - lr).abs() / lr).max((found.1 - momentum).abs());
                    assert!(apart < 1e-12, "{per} {index}: {found:?}, expected {lr} and {momentum}");
                }
            }
        }
    }

    /// `CosineAnnealingLR(T_max=40)` behind a linear warm-up of 10 steps.
    #[test]
    fn the_cosine_begins_where_the_warm_up_ends() {
        let text = "lr = 0.4\nlr_policy = \"cosine\"\nlr_warmup_epochs = 1";
        let schedule = toml::from_str::<OptimizerConfig>(text).unwrap().schedule(5, 10, 128);
        for (step, expected) in [(0, 0.04), (5, 0.22), (10, 0.4), (30, 0.2), (50, 0.0)] {
            let rate = schedule.rate(step / 10, step);
            assert!((rate - expected).abs() < 1e-12, "step {step}: {rate}");
        }
        assert_eq!(schedule.momentum(0, 0), None);
    }

    /// Source: the formulas of CIARD, whose epochs e count from 1: (.5 + .5 cos(pi t)) exp(-.01 t^2), t = (e - 150) / 150 for the
    /// student from e = 150 on, and t = (e - 50) / 250 for a teacher that learns from e = 51 on.
    #[test]
    fn a_late_cosine_falls_epoch_by_epoch() {
        let rates = |from: u64, epochs: u64| {
            let text = format!("lr = 0.1\nlr_policy = {{ late_cosine = {{ from = {from}, decay = 0.01 }} }}");
            toml::from_str::<OptimizerConfig>(&text).unwrap().schedule(epochs, 10, 128)
        };
        let expected = |t: f64| 0.1 * (0.5 + 0.5 * (PI * t).cos()) * (-0.01 * t * t).exp();
        let (student, teacher) = (rates(150, 300), rates(0, 250));
        for (e, t) in [(1, 0.0), (149, 0.0), (150, 0.0), (151, 1.0 / 150.0), (225, 0.5), (300, 1.0)] {
            let rate = student.rate(e - 1, (e - 1) * 10 + 3);
            assert!((rate - expected(t)).abs() < 1e-15, "epoch {e}: {rate}");
        }
        for (e, t) in [(51, 1.0 / 250.0), (175, 0.5), (300, 1.0)] {
            let rate = teacher.rate(e - 51, (e - 51) * 10);
            assert!((rate - expected(t)).abs() < 1e-15, "epoch {e}: {rate}");
        }
    }

    /// `CyclicLR(base_lr=0.01, max_lr=0.1, step_size_up=4, step_size_down=2)`.
    #[test]
    fn a_triangle_repeats() {
        let text = "lr = 0.1\nlr_policy = { cyclic = { base = 0.1, up = 4, down = 2 } }";
        let schedule = toml::from_str::<OptimizerConfig>(text).unwrap().schedule(2, 10, 128);
        let expected = [0.01, 0.0325, 0.055, 0.0775, 0.1, 0.055, 0.01, 0.0325];
        for (step, expected) in (0..).zip(expected) {
            let rate = schedule.rate(0, step);
            assert!((rate - expected).abs() < 1e-12, "step {step}: {rate}");
        }
    }
}
