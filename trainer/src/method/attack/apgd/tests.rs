//! Auto-PGD against PyTorch point by point, and its rules for steps one by one.

use super::*;
use crate::fixtures::{digest, pattern};
use crate::method::attack::tests::{BALL, Reference, close, noise, plane, three_pixels};

mod l2;

#[test]
fn steps_are_checked_where_autoattack_checks_them() {
    assert_eq!(checks(100), [(22, 22), (41, 19), (57, 16), (70, 13), (80, 10), (87, 7), (93, 6), (99, 6)]);
    assert_eq!(checks(1), [(1, 1)]);
    assert_eq!(checks(0), []);
}

/// Drives a search as `run` does, and compares its iterations with PyTorch: all points, or those that the trace names.
fn compare(reference: &Reference, name: &str, objective: &dyn Fn(&Tensor) -> Tensor) {
    let expected = &reference.values[name];
    let forward = |images: &Tensor| reference.logits(images);
    let (subject, noise) = (Subject::new(&forward), noise(&reference.samples));
    let mut apgd = Apgd::start(reference.ball, &subject, &reference.images, &reference.labels, &noise, objective);
    let points: Vec<usize> = serde_json::from_value(reference.values["points"].clone()).unwrap_or((0..=100).collect());
    let place = |number: usize| points.iter().position(|&point| point == number);
    let compare_point = |apgd: &Apgd, number: usize, values: &Tensor| {
        let fell: Vec<Option<usize>> = serde_json::from_value(expected["fell"].clone()).unwrap();
        let fallen: Vec<bool> = fell.into_iter().map(|fell| fell.is_some_and(|fell| fell <= number)).collect();
        assert_eq!(apgd.found.fallen(), fallen, "{name}, point {number}");
        let Some(place) = place(number) else { return };
        close(values, &expected["losses"][place], &format!("{name}, losses {number}"));
        close(
            &Tensor::from_slice(&digest(&apgd.point)),
            &expected["digests"][place],
            &format!("{name}, point {number}"),
        );
    };
    compare_point(&apgd, 0, &apgd.best_value);
    let checks = checks(100);
    for iteration in 0..100 {
        if let Some(place) = place(iteration) {
            close(&apgd.step, &expected["steps"][place], &format!("{name}, step {iteration}"));
        }
        let best = apgd.best_value.copy();
        apgd.advance(if iteration == 0 { 1.0 } else { 0.75 });
        compare_point(&apgd, iteration + 1, &apgd.last);
        assert!(bool::try_from(apgd.best_value.ge_tensor(&best).all()).unwrap(), "the best fell");
        let step = apgd.step.copy();
        if let Some(&(_, window)) = checks.iter().find(|(after, _)| *after == iteration + 1) {
            apgd.check(window);
        }
        assert!(bool::try_from(apgd.step.le_tensor(&step).all()).unwrap(), "a step grew");
    }
}

fn compare_all(reference: &Reference, ranks: &[usize]) {
    let (ball, iterations) = (reference.ball, 100);
    let search = |search: &dyn Search| {
        let forward = |images: &Tensor| reference.logits(images);
        search.search(&Subject::new(&forward), &reference.images, &reference.labels, &noise(&reference.samples))
    };
    let labels = &reference.labels;
    compare(reference, "apgd_ce", &|logits| cross_entropy(logits, labels));
    reference.compare_fooled(&search(&ApgdCe { ball, iterations }), &reference.values["apgd_ce"]["fooled"]);
    for &target in ranks {
        let name = format!("apgd_t_{target}");
        let targets = ranked(&tch::no_grad(|| reference.logits(&reference.images)), &[target]);
        compare(reference, &name, &|logits| difference_ratio(logits, labels, &targets));
        reference.compare_fooled(
            &search(&ApgdT { ball, iterations, targets: &[target] }),
            &reference.values[&name]["fooled"],
        );
    }
}

#[test]
fn every_point_and_step_equals_pytorch() {
    compare_all(&Reference::read(Kind::Double), &[2, 3]);
}

#[test]
fn the_first_step_is_compared_with_zero_and_not_with_the_start() {
    let (forward, labels) = (plane([2.0, -1.0, 0.0], 0.9), Tensor::from_slice(&[0i64]));
    let (subject, images, noise) = (Subject::new(&forward), three_pixels([0.5, 0.4, 0.3]), noise(&[5]));
    let rises = |objective: &dyn Fn(&Tensor) -> Tensor| {
        let mut apgd = Apgd::start(BALL, &subject, &images, &labels, &noise, objective);
        apgd.advance(1.0);
        assert!(bool::try_from(apgd.last.gt_tensor(&apgd.best_at_check)).unwrap(), "it rose above the start");
        f64::try_from(&apgd.rises).unwrap()
    };
    assert_eq!(rises(&|logits| cross_entropy(logits, &labels)), 1.0);
    // The ratio stays below 0 until the image falls.
    assert_eq!(rises(&|logits| difference_ratio(logits, &labels, &Tensor::from_slice(&[1i64]))), 0.0);
}

#[test]
fn a_standstill_shortens_the_step_but_not_twice_in_a_row() {
    let (forward, labels) = (plane([2.0, -1.0, 0.0], 0.9), Tensor::from_slice(&[0i64]));
    let (subject, images, noise) = (Subject::new(&forward), three_pixels([0.5, 0.4, 0.3]), noise(&[5]));
    let objective = |logits: &Tensor| cross_entropy(logits, &labels);
    let mut apgd = Apgd::start(BALL, &subject, &images, &labels, &noise, &objective);
    apgd.advance(1.0);
    apgd.best_at_check = apgd.best_value.copy();
    // The objective rises in every iteration of these checks, but the best value does not change.
    let steps = [(); 4].map(|()| {
        apgd.rises = apgd.rises.ones_like();
        apgd.check(1);
        f64::try_from(&apgd.step).unwrap() / BALL.eps
    });
    // The first check knows no standstill.
    assert_eq!(steps, [2.0, 1.0, 1.0, 0.5]);
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

/// A move by its definition.
fn moved_by_definition(apgd: &Apgd, share: f64) -> Tensor {
    let ascent = apgd.ball.direction(&apgd.gradient) * per_image(&apgd.step).to_kind(apgd.point.kind());
    let ahead = apgd.surroundings.project(&(&apgd.point + ascent));
    let inertia = (&apgd.point - &apgd.previous) * (1.0 - share);
    apgd.surroundings.project(&(&apgd.point + (ahead - &apgd.point) * share + inertia))
}

#[test]
fn moves_in_place_have_the_bits_of_their_definition_and_change_nothing_else() {
    for kind in [Kind::Float, Kind::Double] {
        for reference in [Reference::read(kind), Reference::read_l2(kind)] {
            let forward = |images: &Tensor| reference.logits(images);
            let (subject, noise) = (Subject::new(&forward), noise(&reference.samples));
            let objective = |logits: &Tensor| cross_entropy(logits, &reference.labels);
            let (images, labels) = (&reference.images, &reference.labels);
            let mut apgd = Apgd::start(reference.ball, &subject, images, labels, &noise, &objective);
            for (iteration, share) in [1.0, 0.75, 0.75, 0.75, 0.75].into_iter().enumerate() {
                let (point, expected) = (apgd.point.copy(), moved_by_definition(&apgd, share));
                apgd.advance(share);
                assert!(apgd.point.equal(&expected), "{:?}, {kind:?}, iteration {iteration}", reference.ball);
                assert!(apgd.previous.equal(&point) && !point.equal(&expected), "{kind:?}, iteration {iteration}");
            }
        }
    }
}
