//! Sanity checks: signs that a robust accuracy is too high.

use tch::{Kind, Tensor, no_grad};

use super::adaptive::advice;
use super::outcomes::SanityCounts;
use crate::evaluate::{Classifier, Outcomes};
use crate::method::attack::Ball;
use crate::method::loss::log_probability_of;

/// Values that differ by less than this count as equal.
const EQUAL: f64 = 1e-4;

/// Examines the first `count` of `images`, whose `logits` are known, without an attack.
pub fn examine(
    network: &dyn Classifier,
    images: &Tensor,
    labels: &Tensor,
    logits: &Tensor,
    count: usize,
) -> SanityCounts {
    let again = no_grad(|| network.logits(images));
    let scale = logits.abs().amax([1i64].as_slice(), true).clamp_min(1e-12);
    let different = ((again - logits).abs() / scale).gt(EQUAL).any_dim(1, false);
    let in_range = logits.ge(0.0).logical_and(&logits.le(1.0)).all_dim(1, false);
    let sums_to_one = (logits.sum_dim_intlist([1i64].as_slice(), false, None) - 1.0).abs().lt(EQUAL);

    let variable = images.detach().set_requires_grad(true);
    let loss = -log_probability_of(&network.logits(&variable), labels).sum(images.kind());
    let gradient = Tensor::run_backward(&[loss], &[&variable], false, false).remove(0);
    let zero = gradient.flatten(1, -1).eq(0.0).all_dim(1, false);
    SanityCounts {
        images: count as u64,
        randomised: number(&different, count),
        probabilities: number(&in_range.logical_and(&sums_to_one), count),
        zero_gradients: number(&zero, count),
        ..SanityCounts::default()
    }
}

/// How many of the first `count` rows are true.
fn number(rows: &Tensor, count: usize) -> u64 {
    let held = rows.narrow(0, 0, count as i64).sum(Kind::Int64);
    i64::try_from(held).unwrap_or(0) as u64
}

/// Whether the logits of each row are not all finite, `[N]`.
pub fn not_finite(logits: &Tensor) -> Tensor {
    logits.isfinite().all_dim(1, false).logical_not()
}

/// Replaces each candidate that is outside the ball (by more than rounding) or [0, 1], or not a number, by its image. Also
/// returns which were replaced, `[N]`.
pub fn within(ball: Ball, images: &Tensor, found: &Tensor) -> (Tensor, Tensor) {
    let found = found.detach();
    let near = ball.distance(images, &found).le(ball.eps + ball.tolerance());
    let flat = found.flatten(1, -1);
    // A comparison with NaN is false.
    let inside = flat.ge(0.0).logical_and(&flat.le(1.0)).all_dim(1, false).logical_and(&near);
    let outside = inside.logical_not();
    (found.where_self(&inside.view([-1, 1, 1, 1]), images), outside)
}

/// The warnings: what was seen, why it matters, what to try. `command` is that of the evaluation up to its attacks.
pub fn warnings(outcomes: &Outcomes, command: &str) -> Vec<String> {
    let (seen, all) = (&outcomes.seen, outcomes.samples() as u64);
    let by_adaptive = outcomes.fallen_to_adaptive_alone();
    let adapt = || if by_adaptive.is_none() { format!("; {}", advice(command)) } else { String::new() };
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
             under fgsm, pgdN and apgd_ce are too high; trust apgd_t, fab_t and square, and look for very large logits{}",
            share(seen.zero_gradients, seen.images),
            adapt()
        ));
    }
    if let Some(count) = outcomes.fallen_to_square_alone().filter(|count| count * 200 > all) {
        found.push(format!(
            "the Square attack, which sees no gradients, takes {} that every attack by gradients left standing. Gradients are \
             likely masked, and the accuracies under those attacks too high; give Square more queries, and adapt an attack to \
             the network{}",
            share(count, all),
            adapt()
        ));
    }
    if let Some(count) = by_adaptive.filter(|count| count * 200 > all) {
        found.push(format!(
            "the adaptive check takes {} that every other attack left standing. The accuracies under those attacks are too high; \
             publish the worst case, and look for what hides the gradients",
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
    use crate::config::Norm;

    #[test]
    fn what_is_outside_is_replaced_by_its_image() {
        let images = Tensor::full([5, 1, 2, 2], 0.01, tch::kind::FLOAT_CPU);
        let found = images.copy();
        for (row, value) in [(1, 0.01 + 0.0317), (2, -0.001), (3, f64::NAN), (4, 0.03)] {
            let _ = found.get(row).get(0).get(0).get(0).fill_(value);
        }
        let ball = Ball { norm: Norm::Linf, eps: 8.0 / 255.0 };
        let (kept, outside) = within(ball, &images, &found);
        assert_eq!(Vec::<bool>::try_from(outside).unwrap(), [false, true, true, true, false]);
        assert!(kept.narrow(0, 0, 4).equal(&images.narrow(0, 0, 4)));
        assert!(kept.get(4).equal(&found.get(4)));
    }

    #[test]
    fn logits_that_are_no_numbers_are_counted() {
        let logits = Tensor::from_slice(&[0.0f32, 1.0, f32::NAN, 0.0, f32::INFINITY, 0.0]).view([3, 2]);
        assert_eq!(Vec::<bool>::try_from(not_finite(&logits)).unwrap(), [false, true, true]);
    }
}
