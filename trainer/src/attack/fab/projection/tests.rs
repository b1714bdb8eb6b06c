//! The projection against golden vectors, and by its definition.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn vector(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

fn row(values: &[f64], kind: Kind) -> Tensor {
    Tensor::from_slice(values).unsqueeze(0).to_kind(kind)
}

/// The move of one point.
fn moved(point: &[f64], slope: &[f64], value: f64) -> Vec<f64> {
    let kind = Kind::Double;
    Vec::try_from(onto_plane(&row(point, kind), &row(slope, kind), &Tensor::from_slice(&[value])).get(0)).unwrap()
}

#[test]
fn golden_vectors() {
    let golden: Vec<Value> =
        serde_json::from_str(include_str!("../../../../../tests/fixtures/golden_fab_projection.json")).unwrap();
    assert_eq!(golden.len(), 3);
    for kind in [Kind::Double, Kind::Float] {
        let stack = |of: &dyn Fn(&Value) -> Vec<f64>| {
            Tensor::from_slice2(&golden.iter().map(of).collect::<Vec<_>>()).to_kind(kind)
        };
        let (points, slope) = (stack(&|case| vector(&case["t"])), stack(&|case| vector(&case["w"])));
        let value = |case: &Value| {
            let product: f64 = vector(&case["t"]).iter().zip(vector(&case["w"])).map(|(t, w)| t * w).sum();
            vec![product - case["b"].as_f64().unwrap()]
        };
        let found = onto_plane(&points, &slope, &stack(&value).squeeze_dim(1));
        let difference = f64::try_from((found - stack(&|case| vector(&case["delta"]))).abs().max()).unwrap();
        assert!(difference <= 1e-6, "{kind:?}: {difference}");
    }
}

#[test]
fn a_function_without_slope_moves_nothing() {
    for value in [0.0, 1.0, -1.0] {
        assert!(moved(&[0.3, 0.0, 1.0], &[0.0; 3], value).iter().all(|&movement| movement == 0.0));
    }
    assert!(moved(&[0.3, 0.6], &[1.0, -2.0], 0.0).iter().all(|&movement| movement == 0.0));
}

#[test]
fn a_plane_out_of_reach_draws_into_the_corner() {
    assert_eq!(moved(&[0.25, 0.5, 0.75], &[1.0, -2.0, 0.0], 9.0), [-0.25, 0.5, 0.0]);
    assert_eq!(moved(&[0.25, 0.5, 0.75], &[1.0, -2.0, 0.0], -9.0), [0.75, -0.5, 0.0]);
    // Just in reach: 0.25 + 2 * 0.5 is all that the box gives.
    assert_eq!(moved(&[0.25, 0.5, 0.75], &[1.0, -2.0, 0.0], 1.25), [-0.25, 0.5, 0.0]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_move_is_the_smallest_that_reaches_the_plane(
        components in prop::collection::vec((0.0f64..=1.0, -2.0f64..2.0), 1..12),
        value in -4.0f64..4.0,
    ) {
        let (point, slope): (Vec<f64>, Vec<f64>) = components.into_iter().unzip();
        let delta = moved(&point, &slope, value);
        let longest = delta.iter().fold(0.0, |longest: f64, movement| longest.max(movement.abs()));
        // What the best move of length `length` does to the value, by its definition.
        let falls = |length: f64| -> f64 {
            let room = |point: f64, slope: f64| if slope * value > 0.0 { point } else { 1.0 - point };
            point.iter().zip(&slope).map(|(&point, &slope)| slope.abs() * length.min(room(point, slope))).sum()
        };
        let fallen: f64 = -delta.iter().zip(&slope).map(|(movement, slope)| movement * slope).sum::<f64>() * value.signum();
        prop_assert!(point.iter().zip(&delta).all(|(point, movement)| (-1e-12..=1.0 + 1e-12).contains(&(point + movement))));
        let reachable = falls(1.0).min(value.abs());
        prop_assert!((fallen - reachable).abs() < 1e-9, "falls by {fallen} instead of {reachable}");
        prop_assert!(falls(longest * (1.0 - 1e-6) - 1e-12) <= reachable, "a shorter move than {longest} would do");
    }
}
