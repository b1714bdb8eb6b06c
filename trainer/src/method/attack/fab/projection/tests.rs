//! The projection against golden vectors, and by its definition.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::method::attack::golden::{golden, near, tensor_of};

fn vector(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

fn row(values: &[f64], kind: Kind) -> Tensor {
    Tensor::from_slice(values).unsqueeze(0).to_kind(kind)
}

/// The move of one point.
fn moved(norm: Norm, point: &[f64], slope: &[f64], value: f64) -> Vec<f64> {
    let kind = Kind::Double;
    Vec::try_from(onto_plane(norm, &row(point, kind), &row(slope, kind), &Tensor::from_slice(&[value])).get(0)).unwrap()
}

const NORMS: [Norm; 2] = [Norm::Linf, Norm::L2];

#[test]
fn golden_vectors_in_l2() {
    let cases = golden("fab_l2_projection");
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 1e-6)] {
        for (number, case) in cases.iter().enumerate() {
            let (points, slope) = (row(&vector(&case["t"]), kind), row(&vector(&case["w"]), kind));
            let value = (&points * &slope).sum_dim_intlist(1i64, false, None::<Kind>) - case["b"].as_f64().unwrap();
            let found = onto_plane(Norm::L2, &points, &slope, &value).get(0).to_kind(Kind::Double);
            for expected in ["delta", "exact"] {
                near(&found, &tensor_of(&case[expected]), tolerance, &format!("case {number}, {expected}"));
            }
        }
    }
}

#[test]
fn golden_vectors() {
    let golden: Vec<Value> =
        serde_json::from_str(include_str!("../../../../../../tests/fixtures/golden_fab_projection.json")).unwrap();
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
        let found = onto_plane(Norm::Linf, &points, &slope, &stack(&value).squeeze_dim(1));
        let difference = f64::try_from((found - stack(&|case| vector(&case["delta"]))).abs().max()).unwrap();
        assert!(difference <= 1e-6, "{kind:?}: {difference}");
    }
}

#[test]
fn a_function_without_slope_moves_nothing() {
    for norm in NORMS {
        for value in [0.0, 1.0, -1.0] {
            assert!(moved(norm, &[0.3, 0.0, 1.0], &[0.0; 3], value).iter().all(|&movement| movement == 0.0));
        }
        assert!(moved(norm, &[0.3, 0.6], &[1.0, -2.0], 0.0).iter().all(|&movement| movement == 0.0));
    }
}

#[test]
fn a_plane_out_of_reach_draws_into_the_corner() {
    for norm in NORMS {
        assert_eq!(moved(norm, &[0.25, 0.5, 0.75], &[1.0, -2.0, 0.0], 9.0), [-0.25, 0.5, 0.0]);
        assert_eq!(moved(norm, &[0.25, 0.5, 0.75], &[1.0, -2.0, 0.0], -9.0), [0.75, -0.5, 0.0]);
        // Just in reach: 0.25 + 2 * 0.5 is all that the box gives.
        assert_eq!(moved(norm, &[0.25, 0.5, 0.75], &[1.0, -2.0, 0.0], 1.25), [-0.25, 0.5, 0.0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_move_is_the_smallest_that_reaches_the_plane(
        components in prop::collection::vec((0.0f64..=1.0, -2.0f64..2.0), 1..12),
        value in -4.0f64..4.0,
    ) {
        let (point, slope): (Vec<f64>, Vec<f64>) = components.into_iter().unzip();
        let room = |point: f64, slope: f64| if slope * value > 0.0 { point } else { 1.0 - point };
        for norm in NORMS {
            let delta = moved(norm, &point, &slope, value);
            // The moves of smallest norm, by their definitions, are a family of one factor: how far each component goes where
            // the box does not stop it.
            let way = |factor: f64, slope: f64| if norm == Norm::Linf { factor } else { factor * slope.abs() };
            let falls = |factor: f64| -> f64 {
                point.iter().zip(&slope).map(|(&point, &slope)| slope.abs() * way(factor, slope).min(room(point, slope))).sum()
            };
            let factors = delta.iter().zip(&slope).map(|(movement, slope)| match norm {
                Norm::Linf => movement.abs(),
                Norm::L2 => movement.abs() / slope.abs().max(1e-8),
            });
            let largest = factors.fold(0.0, f64::max);
            let fallen = -delta.iter().zip(&slope).map(|(movement, slope)| movement * slope).sum::<f64>() * value.signum();
            prop_assert!(point.iter().zip(&delta).all(|(point, movement)| (-1e-12..=1.0 + 1e-12).contains(&(point + movement))));
            let reachable = falls(1e9).min(value.abs());
            prop_assert!((fallen - reachable).abs() < 1e-9, "{norm}: falls by {fallen} instead of {reachable}");
            prop_assert!(falls(largest * (1.0 - 1e-6) - 1e-12) <= reachable, "{norm}: less than {largest} would do");
            for ((&movement, &point), &slope) in delta.iter().zip(&point).zip(&slope) {
                let expected = way(largest, slope).min(room(point, slope));
                prop_assert!((movement.abs() - expected).abs() < 1e-9, "{norm}: {movement} instead of {expected}");
            }
        }
    }
}
