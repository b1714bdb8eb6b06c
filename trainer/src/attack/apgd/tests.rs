use super::*;
use crate::attack::tests::{BALL, noise, plane, two_pixels};
use crate::fixtures::{network, pattern};
use crate::model::Mode;

#[test]
fn steps_are_checked_where_autoattack_checks_them() {
    assert_eq!(checks(100), [(22, 22), (41, 19), (57, 16), (70, 13), (80, 10), (87, 7), (93, 6), (99, 6)]);
    assert_eq!(checks(1), [(1, 1)]);
    assert_eq!(checks(0), []);
}

#[test]
fn steps_never_grow_and_the_best_never_falls() {
    let model = network(11, 10, Kind::Float);
    model.freeze();
    let forward = |images: &Tensor| model.logits(images, Mode::Eval);
    let subject = Subject::new(&forward);
    let images = pattern(8 * 768, 21).view([8, 3, 16, 16]).to_kind(Kind::Float);
    let labels = predictions(&subject.logits(&images));
    let objective = |logits: &Tensor| cross_entropy(logits, &labels);
    let noise = noise(&[0, 1, 2, 3, 4, 5, 6, 7]);
    let mut apgd = Apgd::start(BALL, &subject, &images, &labels, &noise, &objective);
    let mut halvings = 0;
    for window in [22, 19, 16, 13] {
        for iteration in 0..window {
            let before = apgd.best.1.copy();
            apgd.advance(if iteration == 0 && window == 22 { 1.0 } else { 0.75 });
            assert!(bool::try_from(apgd.best.1.ge_tensor(&before).all()).unwrap());
            let at_best = subject.slope(&apgd.best.0, &objective).values;
            assert!(at_best.allclose(&apgd.best.1, 1e-5, 1e-5, false));
        }
        let before = apgd.step.copy();
        apgd.check(window);
        let (halved, same) = (apgd.step.eq_tensor(&(&before / 2.0)), apgd.step.eq_tensor(&before));
        assert!(bool::try_from(halved.logical_or(&same).all()).unwrap());
        halvings += i64::try_from(halved.sum(Kind::Int64)).unwrap();
    }
    assert!(halvings > 0);
}

#[test]
fn the_first_check_knows_no_standstill_and_compares_the_first_step_with_zero() {
    let (forward, labels) = (plane([2.0, -1.0], 0.9), Tensor::from_slice(&[0i64]));
    let subject = Subject::new(&forward);
    let objective = |logits: &Tensor| cross_entropy(logits, &labels);
    let images = two_pixels([0.5, 0.4]);
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
