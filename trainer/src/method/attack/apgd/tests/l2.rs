//! Auto-PGD in L2 against golden trajectories, and against PyTorch on a network of convolutions.

use serde_json::Value;

use super::*;
use crate::config::Norm;
use crate::method::attack::golden::{classes, golden, near, network, tensor_of};

/// How far golden points may be: 40 or 60 steps spread the rounding of a golden value's last digit.
const TOLERANCE: f64 = 1e-9;

/// Runs a golden case from its start, and compares the results.
fn follow(case: &Value, expected: &Value, iterations: usize, objective: &dyn Fn(&Tensor) -> Tensor) {
    let (labels, images) = (classes(&case["labels"]), tensor_of(&case["x"]));
    let (forward, ball) = (network(case), Ball { norm: Norm::L2, eps: case["eps"].as_f64().unwrap() });
    let subject = Subject::new(&forward);
    let mut apgd = Apgd::start_at(tensor_of(&case["x_init"]), ball, &subject, &images, &labels, objective);
    let trajectory = expected["trajectory"].as_array();
    let compare = |apgd: &Apgd, number: usize| {
        if let Some(point) = trajectory.and_then(|trajectory| trajectory.get(number)) {
            near(&apgd.point, &tensor_of(point), TOLERANCE, &format!("point {number}"));
        }
    };
    compare(&apgd, 0);
    let mut checks = checks(iterations).into_iter().peekable();
    for iteration in 0..iterations {
        apgd.advance(if iteration == 0 { 1.0 } else { 0.75 });
        compare(&apgd, iteration + 1);
        if iteration + 1 == iterations {
            near(&apgd.point, &tensor_of(&expected["x_last_iterate"]), TOLERANCE, "last point");
        }
        if let Some((_, window)) = checks.next_if(|&(after, _)| after == iteration + 1) {
            apgd.check(window);
        }
    }
    near(&apgd.best_value, &tensor_of(&expected["loss_best"]), TOLERANCE, "best objective");
    near(&apgd.best_point, &tensor_of(&expected["x_best"]), TOLERANCE, "best point");
    let stands: Vec<bool> = serde_json::from_value(expected["still_correct"].clone()).unwrap();
    assert_eq!(apgd.found.fallen(), stands.iter().map(|stands| !stands).collect::<Vec<_>>());
    for (row, _) in stands.iter().enumerate().filter(|(_, stands)| !**stands) {
        let row = row as i64;
        near(&apgd.found.images.get(row), &tensor_of(&expected["x_adv"]).get(row), TOLERANCE, "adversarial image");
    }
}

#[test]
fn golden_trajectories() {
    for (name, runs) in [
        ("apgd_l2", &[("ce_5", 5), ("ce_40", 40), ("dlr_t_40", 40)][..]),
        // A network of ReLUs: steps are shortened because the best value does not rise.
        ("apgd_l2_hard", &[("ce", 60), ("dlr_t", 60)]),
    ] {
        let case = golden(name);
        let (labels, targets) = (classes(&case["labels"]), classes(&case["targets"]));
        for &(run, iterations) in runs {
            if run.starts_with("ce") {
                follow(&case, &case[run], iterations, &|logits| cross_entropy(logits, &labels));
            } else {
                follow(&case, &case[run], iterations, &|logits| difference_ratio(logits, &labels, &targets));
            }
        }
    }
}

#[test]
fn the_golden_start_is_the_surface_in_a_direction_cut_to_the_pixel_range() {
    let case = golden("apgd_l2");
    let draws = tensor_of(&case["start"]["normal_draws"]);
    let images = tensor_of(&case["x"]).narrow(0, 0, draws.size()[0]);
    let ball = Ball { norm: Norm::L2, eps: case["eps"].as_f64().unwrap() };
    near(&ball.towards(&images, &draws), &tensor_of(&case["start"]["x0"]), 1e-12, "start");
}

#[test]
fn every_kept_point_and_step_equals_pytorch() {
    compare_all(&Reference::read_l2(Kind::Double), &[2]);
}
