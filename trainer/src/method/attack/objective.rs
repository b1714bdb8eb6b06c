//! The objectives of evaluation attacks, and helpers that read logits. Functions of logits `[N, classes]` and labels
//! `[N]` (int64) return `[N]`, in at least single precision; each image counts for itself.

use tch::{Kind, Reduction, Tensor};

use crate::system::transfer::on_device;

/// The margin of the label below which the attack of Carlini and Wagner raises the loss, as in the reference.
const CONFIDENCE: f64 = 50.0;

/// The class of the largest logit; the first one if several are equal.
pub fn predictions(logits: &Tensor) -> Tensor {
    logits.argmax(1, false)
}

/// The class of the logit of each image's rank, counted from 1 for the largest. `ranks` has one number for each image, or one
/// for all. Equal logits are ordered by class.
pub fn ranked(logits: &Tensor, ranks: &[usize]) -> Tensor {
    let places: Vec<i64> = ranks.iter().map(|rank| *rank as i64 - 1).collect();
    let places = on_device(&Tensor::from_slice(&places).view([-1, 1]), logits.device());
    let places = places.expand([logits.size()[0], 1], false);
    logits.sort_stable(true, 1, true).1.gather(1, &places, false).squeeze_dim(1)
}

/// -log softmax(z)_y.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    single(logits).cross_entropy_loss::<Tensor>(labels, None, Reduction::None, -100, 0.0)
}

/// z_y - max_{j != y} z_j: negative if the image is misclassified.
pub fn margin(logits: &Tensor, labels: &Tensor) -> Tensor {
    let logits = single(logits);
    let others = logits.scatter_value(1, &labels.unsqueeze(1), f64::NEG_INFINITY);
    of(&logits, labels) - others.max_dim(1, false).0
}

/// -max(margin + 50, 0): the loss of Carlini and Wagner (2017) in the evaluation of the IAD reference
/// (attack_generator.py, `cwloss`).
pub fn carlini_wagner(logits: &Tensor, labels: &Tensor) -> Tensor {
    -(margin(logits, labels) + CONFIDENCE).clamp_min(0.0)
}

/// z_t - z_y.
pub fn difference(logits: &Tensor, labels: &Tensor, targets: &Tensor) -> Tensor {
    let logits = single(logits);
    of(&logits, targets) - of(&logits, labels)
}

/// (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12), with z_(k) the k-th largest logit: the targeted
/// difference-of-logits ratio (Croce and Hein 2020). It is invariant to scaling of the logits.
///
/// # Panics
/// Fewer than 4 classes.
pub fn difference_ratio(logits: &Tensor, labels: &Tensor, targets: &Tensor) -> Tensor {
    let sorted = single(logits).sort_stable(true, 1, true).0;
    let spread = sorted.select(1, 0) - (sorted.select(1, 2) + sorted.select(1, 3)) * 0.5 + 1e-12;
    difference(logits, labels, targets) / spread
}

/// The logit of one class per image.
fn of(logits: &Tensor, classes: &Tensor) -> Tensor {
    logits.gather(1, &classes.unsqueeze(1), false).squeeze_dim(1)
}

fn single(logits: &Tensor) -> Tensor {
    logits.to_kind(if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    use crate::fixtures::tensor_of;

    fn golden() -> Value {
        serde_json::from_str(include_str!("../../../../tests/fixtures/golden_losses.json")).unwrap()
    }

    #[track_caller]
    fn close(found: &Tensor, expected: &Tensor, tolerance: f64) {
        let difference = f64::try_from((found.to_kind(Kind::Double) - expected).abs().max()).unwrap();
        assert!(difference <= tolerance, "{found:?} instead of {expected:?}");
    }

    #[test]
    fn the_loss_of_carlini_and_wagner_has_the_golden_value_and_gradient() {
        let golden = golden();
        let labels =
            Tensor::from_slice(&serde_json::from_value::<Vec<i64>>(golden["inputs"]["labels"].clone()).unwrap());
        for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 1e-4)] {
            let logits = tensor_of(&golden["inputs"]["student_adv"]).to_kind(kind).set_requires_grad(true);
            let loss = carlini_wagner(&logits, &labels).sum(kind);
            let expected = golden["cw_loss"]["loss"].as_f64().unwrap();
            assert!((f64::try_from(&loss).unwrap() - expected).abs() <= tolerance);
            loss.backward();
            close(&logits.grad(), &tensor_of(&golden["cw_loss"]["grad"]), 0.0);
        }
    }

    #[test]
    fn the_targeted_ratio_has_the_golden_values() {
        let golden = golden();
        let labels =
            Tensor::from_slice(&serde_json::from_value::<Vec<i64>>(golden["inputs"]["labels"].clone()).unwrap());
        let expected = tensor_of(&golden["dlr_targeted"]["loss"]);
        for (row, rank) in [2, 3].into_iter().enumerate() {
            let targets = ranked(&tensor_of(&golden["inputs"]["student_nat"]), &[rank]);
            let logits = tensor_of(&golden["inputs"]["student_adv"]);
            close(&difference_ratio(&logits, &labels, &targets), &expected.get(row as i64), 1e-9);
            let found = difference_ratio(&logits.to_kind(Kind::Float), &labels, &targets);
            close(&found, &expected.get(row as i64), 1e-6);
        }
    }

    #[test]
    fn of_equal_logits_the_first_counts() {
        let logits = Tensor::from_slice(&[1f32, 3.0, 3.0, 1.0, 3.0, 0.0]).view([1, 6]);
        assert_eq!(Vec::<i64>::try_from(predictions(&logits)).unwrap(), [1]);
        let ranks: Vec<i64> = (1..=6).map(|rank| i64::try_from(ranked(&logits, &[rank])).unwrap()).collect();
        assert_eq!(ranks, [1, 2, 4, 0, 3, 5]);
        let many = Tensor::zeros([3, 200], tch::kind::FLOAT_CPU);
        assert_eq!(Vec::<i64>::try_from(predictions(&many)).unwrap(), [0, 0, 0]);
        assert_eq!(Vec::<i64>::try_from(ranked(&many, &[10])).unwrap(), [9, 9, 9]);
        assert_eq!(Vec::<i64>::try_from(ranked(&many, &[1, 200, 7])).unwrap(), [0, 199, 6]);
    }

    #[test]
    fn a_margin_below_zero_is_a_wrong_answer() {
        let logits = Tensor::from_slice(&[2f64, 1.5, -1.0, 0.5, 1.0, 4.0]).view([2, 3]);
        let margins = margin(&logits, &Tensor::from_slice(&[0i64, 1]));
        assert_eq!(Vec::<f64>::try_from(margins).unwrap(), [0.5, -3.0]);
        let entropy = cross_entropy(&logits, &Tensor::from_slice(&[0i64, 1]));
        close(&entropy, &-crate::method::loss::log_probability_of(&logits, &Tensor::from_slice(&[0i64, 1])), 1e-12);
    }
}
