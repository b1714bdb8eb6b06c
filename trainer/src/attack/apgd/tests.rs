use super::*;
use crate::attack::tests::{BALL, Reference, close, noise, plane, three_pixels};
use crate::fixtures::{digest, pattern};

#[test]
fn steps_are_checked_where_autoattack_checks_them() {
    assert_eq!(checks(100), [(22, 22), (41, 19), (57, 16), (70, 13), (80, 10), (87, 7), (93, 6), (99, 6)]);
    assert_eq!(checks(1), [(1, 1)]);
    assert_eq!(checks(0), []);
}

/// Drives a search as `run` does, and compares all that it goes through with PyTorch.
fn compare(reference: &Reference, name: &str, objective: &dyn Fn(&Tensor) -> Tensor) {
    let expected = &reference.values[name];
    let forward = |images: &Tensor| reference.logits(images);
    let (subject, noise) = (Subject::new(&forward), noise(&reference.samples));
    let mut apgd = Apgd::start(reference.ball, &subject, &reference.images, &reference.labels, &noise, objective);
    let compare_point = |apgd: &Apgd, number: usize, values: &Tensor| {
        close(values, &expected["losses"][number], &format!("{name}, losses {number}"));
        close(
            &Tensor::from_slice(&digest(&apgd.point)),
            &expected["digests"][number],
            &format!("{name}, point {number}"),
        );
        let fell: Vec<Option<usize>> = serde_json::from_value(expected["fell"].clone()).unwrap();
        let fallen: Vec<bool> = fell.into_iter().map(|fell| fell.is_some_and(|fell| fell <= number)).collect();
        assert_eq!(apgd.found.fallen(), fallen, "{name}, point {number}");
    };
    compare_point(&apgd, 0, &apgd.best.1);
    let checks = checks(100);
    for iteration in 0..100 {
        close(&apgd.step, &expected["steps"][iteration], &format!("{name}, step {iteration}"));
        let best = apgd.best.1.copy();
        apgd.advance(if iteration == 0 { 1.0 } else { 0.75 });
        compare_point(&apgd, iteration + 1, &apgd.last);
        assert!(bool::try_from(apgd.best.1.ge_tensor(&best).all()).unwrap(), "the best fell");
        let step = apgd.step.copy();
        if let Some(&(_, window)) = checks.iter().find(|(after, _)| *after == iteration + 1) {
            apgd.check(window);
        }
        assert!(bool::try_from(apgd.step.le_tensor(&step).all()).unwrap(), "a step grew");
    }
}

#[test]
fn every_point_and_step_equals_pytorch() {
    let reference = Reference::read();
    let (ball, iterations) = (reference.ball, 100);
    let search = |search: &dyn Search| {
        let forward = |images: &Tensor| reference.logits(images);
        search.search(&Subject::new(&forward), &reference.images, &reference.labels, &noise(&reference.samples))
    };
    let labels = &reference.labels;
    compare(&reference, "apgd_ce", &|logits| cross_entropy(logits, labels));
    reference.compare_fooled(&search(&ApgdCe { ball, iterations }), &reference.values["apgd_ce"]["fooled"]);
    for target in [2, 3] {
        let name = format!("apgd_t_{target}");
        let targets = ranked(&tch::no_grad(|| reference.logits(&reference.images)), target);
        compare(&reference, &name, &|logits| difference_ratio(logits, labels, &targets));
        reference.compare_fooled(&search(&ApgdT { ball, iterations, target }), &reference.values[&name]["fooled"]);
    }
}

#[test]
fn the_first_check_knows_no_standstill_and_compares_the_first_step_with_zero() {
    let (forward, labels) = (plane([2.0, -1.0, 0.0], 0.9), Tensor::from_slice(&[0i64]));
    let subject = Subject::new(&forward);
    let objective = |logits: &Tensor| cross_entropy(logits, &labels);
    let images = three_pixels([0.5, 0.4, 0.3]);
    let noise = noise(&[5]);
    let mut apgd = Apgd::start(BALL, &subject, &images, &labels, &noise, &objective);
    // The first step reaches the corner, where the search stays: it rises above 0 once and never again.
    apgd.advance(1.0);
    assert_eq!(f64::try_from(&apgd.rises).unwrap(), 1.0);
    apgd.advance(0.75);
    assert_eq!(f64::try_from(&apgd.rises).unwrap(), 1.0);
    // At 1 of 1 it does not rise too rarely, and at the first check the best may stand still.
    apgd.best_at_check = apgd.best.1.copy();
    apgd.check(1);
    assert_eq!(f64::try_from(&apgd.step).unwrap(), 2.0 * BALL.eps);
    // Then it may not: one rise would do, but the best is what it was.
    apgd.rises = apgd.rises.ones_like();
    apgd.check(1);
    assert_eq!(f64::try_from(&apgd.step).unwrap(), BALL.eps);
    // Nor is it held against the image right after a shorter step.
    apgd.rises = apgd.rises.ones_like();
    apgd.check(1);
    assert_eq!(f64::try_from(&apgd.step).unwrap(), BALL.eps);
}

#[test]
fn the_start_touches_the_ball() {
    let images = (pattern(3 * 768, 5) * 0.5 + 0.25).view([3, 3, 16, 16]);
    let forward = |images: &Tensor| images.flatten(1, -1).narrow(1, 0, 4);
    let subject = Subject::new(&forward);
    let labels = Tensor::zeros([3], (Kind::Int64, tch::Device::Cpu));
    let objective = |logits: &Tensor| cross_entropy(logits, &labels);
    let apgd = Apgd::start(BALL, &subject, &images, &labels, &noise(&[0, 1, 2]), &objective);
    let distances = Vec::<f64>::try_from(BALL.distance(&images, &apgd.point)).unwrap();
    assert!(distances.iter().all(|distance| (distance - BALL.eps).abs() < 1e-12), "{distances:?}");
}
