//! Distrust: signs that a robust accuracy is not what it seems.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::outcomes::Outcomes;
use crate::attack::Ball;
use crate::loss::log_probability_of;
use crate::model::{Mode, Model};

/// Counts of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Images looked at without an attack.
    pub images: u64,
    /// Whose logits differ between two equal passes.
    pub randomised: u64,
    /// Whose logits lie in [0, 1] and sum to 1.
    pub probabilities: u64,
    /// Whose logits are not all finite, natural or attacked.
    pub not_finite: u64,
    /// Where the gradient of cross-entropy with respect to the image is 0 everywhere.
    pub zero_gradients: u64,
    /// Attacked images that were outside the ball or [0, 1], or not numbers.
    pub outside: u64,
}

impl Seen {
    /// Adds the counts of other images.
    pub fn add(&mut self, other: &Seen) {
        self.images += other.images;
        self.randomised += other.randomised;
        self.probabilities += other.probabilities;
        self.not_finite += other.not_finite;
        self.zero_gradients += other.zero_gradients;
        self.outside += other.outside;
    }
}

/// How far from their sum of 1 and from each other values count as equal.
const EQUAL: f64 = 1e-4;

/// Looks at the first `count` of `images`, whose `logits` are known, without an attack.
pub fn examine(model: &Model, images: &Tensor, labels: &Tensor, logits: &Tensor, count: usize) -> Seen {
    let again = no_grad(|| model.logits(images, Mode::Eval));
    let scale = logits.abs().amax([1i64].as_slice(), true).clamp_min(1e-12);
    let different = ((again - logits).abs() / scale).gt(EQUAL).any_dim(1, false);
    let in_range = logits.ge(0.0).logical_and(&logits.le(1.0)).all_dim(1, false);
    let sums_to_one = (logits.sum_dim_intlist([1i64].as_slice(), false, None) - 1.0).abs().lt(EQUAL);

    let variable = images.detach().set_requires_grad(true);
    let loss = -log_probability_of(&model.logits(&variable, Mode::Eval), labels).sum(images.kind());
    let gradient = Tensor::run_backward(&[loss], &[&variable], false, false).remove(0);
    let zero = gradient.flatten(1, -1).eq(0.0).all_dim(1, false);
    Seen {
        images: count as u64,
        randomised: number(&different, count),
        probabilities: number(&in_range.logical_and(&sums_to_one), count),
        zero_gradients: number(&zero, count),
        ..Seen::default()
    }
}

/// Of the first `count` rows, how many hold.
fn number(rows: &Tensor, count: usize) -> u64 {
    let held = rows.narrow(0, 0, count as i64).sum(Kind::Int64);
    i64::try_from(held).unwrap_or(0) as u64
}

/// How many of the first `count` rows of `logits` are not all finite.
pub fn not_finite(logits: &Tensor, count: usize) -> u64 {
    number(&logits.isfinite().all_dim(1, false).logical_not(), count)
}

/// Each of `found`, or its image where it is outside the ball (by more than 1e-6) or [0, 1], or not a number; and how many of
/// the first `count` were.
pub fn within(ball: Ball, images: &Tensor, found: &Tensor, count: usize) -> (Tensor, u64) {
    let found = found.detach();
    let near = ball.distance(images, &found).le(ball.eps + 1e-6);
    let flat = found.flatten(1, -1);
    // A comparison with something that is not a number fails.
    let inside = flat.ge(0.0).logical_and(&flat.le(1.0)).all_dim(1, false).logical_and(&near);
    let outside = number(&inside.logical_not(), count);
    (found.where_self(&inside.view([-1, 1, 1, 1]), images), outside)
}

/// What speaks against the numbers: what was seen, why it matters, what to try.
pub fn warnings(outcomes: &Outcomes) -> Vec<String> {
    let (seen, all) = (&outcomes.seen, outcomes.samples() as u64);
    let share = |count: u64, of: u64| format!("{count} of {of} images");
    let mut found = vec![];
    if seen.randomised > 0 {
        found.push(format!(
            "the network is random: two equal passes give other logits for {}. Attacks then follow noise, and the accuracies \
             are too high; average the logits over passes, or attack their mean",
            share(seen.randomised, seen.images)
        ));
    }
    if seen.images > 0 && seen.probabilities == seen.images {
        found.push(format!(
            "the outputs look like probabilities: in [0, 1] with sum 1 for all of {}. Attacks need logits, for gradients \
             vanish behind a softmax; leave the softmax out of the network",
            share(seen.probabilities, seen.images)
        ));
    }
    if seen.not_finite > 0 {
        found.push(format!(
            "the logits are infinite or not numbers for {} and attacked copies. Such an answer counts as wrong, and gives \
             attacks no gradient; look for damaged weights, or evaluate in float32",
            share(seen.not_finite, all)
        ));
    }
    if seen.zero_gradients * 20 > seen.images {
        found.push(format!(
            "the gradient of cross-entropy is exactly 0 for {}. Attacks that follow it stand still there, and the accuracies \
             under fgsm, pgdN and apgd_ce are too high; trust apgd_t, fab_t and square, and look for very large logits",
            share(seen.zero_gradients, seen.images)
        ));
    }
    if let Some(count) = outcomes.fallen_to_square_alone().filter(|count| count * 200 > all) {
        found.push(format!(
            "the Square attack, which sees no gradients, takes {} that every attack by gradients left standing. Gradients are \
             likely masked, and the accuracies under those attacks too high; give Square more queries, and adapt an attack to \
             the network",
            share(count, all)
        ));
    }
    if seen.outside > 0 {
        found.push(format!(
            "an attack returned {} outside the ball or [0, 1], or not numbers. They count as not fooled; look for logits that \
             are not finite, and report this otherwise",
            share(seen.outside, all)
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Norm;

    #[test]
    fn what_is_outside_is_replaced_by_its_image() {
        let images = Tensor::full([5, 1, 2, 2], 0.01, tch::kind::FLOAT_CPU);
        let found = images.copy();
        for (row, value) in [(1, 0.01 + 0.0317), (2, -0.001), (3, f64::NAN), (4, 0.03)] {
            let _ = found.get(row).get(0).get(0).get(0).fill_(value);
        }
        let ball = Ball { norm: Norm::Linf, eps: 8.0 / 255.0 };
        let (kept, outside) = within(ball, &images, &found, 4);
        assert_eq!(outside, 3);
        assert!(kept.narrow(0, 0, 4).equal(&images.narrow(0, 0, 4)));
        assert!(kept.get(4).equal(&found.get(4)));
        // Rows that only fill a batch up are not counted.
        assert_eq!(within(ball, &images, &found, 2).1, 1);
    }

    #[test]
    fn logits_that_are_no_numbers_are_counted() {
        let logits = Tensor::from_slice(&[0.0f32, 1.0, f32::NAN, 0.0, f32::INFINITY, 0.0]).view([3, 2]);
        assert_eq!((not_finite(&logits, 3), not_finite(&logits, 2), not_finite(&logits, 1)), (2, 1, 0));
    }
}
