use super::*;
use crate::fixtures::pattern;

/// The norm and its gradient `U V^T` by a decomposition, in float64.
fn decomposed(rows: &Tensor) -> (f64, Tensor) {
    let (left, values, right) = rows.svd(true, true);
    (number(&values.sum(Kind::Double)), left.matmul(&right.tr()))
}

fn number(value: &Tensor) -> f64 {
    f64::try_from(value).unwrap()
}

fn rows(count: i64, classes: i64, key: u64) -> Tensor {
    // The pattern alone has nearly equal steps from row to row, and so a rank that is nearly low.
    (pattern((count * classes) as usize, key) * 12_345.0).sin().view([count, classes]) * 4.0 - 1.5
}

/// The shares of `rows` and their gradient, on one rank.
fn alone(rows: &Tensor) -> (Tensor, Tensor) {
    let rows = rows.detach().set_requires_grad(true);
    let shares = shares(&rows, &Tensor::copy);
    shares.sum(shares.kind()).backward();
    (shares.detach(), rows.grad())
}

#[test]
fn the_shares_sum_to_the_norm_and_have_its_gradient() {
    for (count, classes) in [(12, 10), (64, 10), (5, 10), (1, 4), (64, 100)] {
        let rows = rows(count, classes, 3);
        let (norm, directions) = decomposed(&rows);
        let (shares, gradient) = alone(&rows);
        let apart = (number(&shares.sum(Kind::Double)) - norm).abs() / norm;
        assert!(apart < 1e-9, "{count} x {classes}: the norm is {apart:e} off");
        let apart = number(&(gradient - directions).abs().max());
        // The matrix of products has the square of the condition.
        assert!(apart < 1e-6, "{count} x {classes}: the gradient is {apart:e} off");
    }
}

/// Each rank has rows of its own, the last one none. What it finds are the rows of the whole.
#[test]
fn rows_may_lie_on_several_ranks() {
    let whole = rows(9, 4, 5);
    let (shares_of_all, gradient_of_all) = alone(&whole);
    let gram = whole.tr().matmul(&whole);
    for (first, count) in [(0, 5), (5, 4), (9, 0)] {
        let rows = whole.narrow(0, first, count).detach().set_requires_grad(true);
        let found = shares(&rows, &|_| gram.copy());
        found.sum(Kind::Double).backward();
        let apart = |one: &Tensor, all: &Tensor| {
            let apart = (one - all.narrow(0, first, count)).abs();
            if count == 0 { 0.0 } else { number(&apart.max()) }
        };
        assert_eq!(found.size(), [count]);
        assert!(apart(&found, &shares_of_all) < 1e-13 && apart(&rows.grad(), &gradient_of_all) < 1e-13);
    }
}

/// No attack has moved the logits yet, or a class differs in none of them: nothing is infinite, and no direction is longer
/// than 1.
#[test]
fn differences_of_0_have_a_norm_of_0() {
    let (shares, gradient) = alone(&Tensor::zeros([6, 4], tch::kind::DOUBLE_CPU));
    assert_eq!((number(&shares.abs().max()), number(&gradient.abs().max())), (0.0, 0.0));
    let flat = rows(6, 4, 7) * Tensor::from_slice(&[1.0, 1.0, 0.0, 1.0]);
    let (norm, _) = decomposed(&flat);
    let (shares, gradient) = alone(&flat);
    assert!((number(&shares.sum(Kind::Double)) - norm).abs() < 1e-9 * norm);
    assert!(number(&gradient.abs().max()) <= 1.0 + 1e-9 && number(&gradient.select(1, 2).abs().max()) < 1e-6);
}

#[test]
fn single_precision_has_the_norm_to_its_rounding() {
    let rows = rows(64, 10, 9);
    let (norm, directions) = decomposed(&rows);
    let (shares, gradient) = alone(&rows.to_kind(Kind::Float));
    assert_eq!(gradient.kind(), Kind::Float);
    assert!((number(&shares.sum(Kind::Double)) - norm).abs() < 1e-6 * norm);
    assert!(number(&(gradient - directions).abs().max()) < 1e-5);
}
