//! Steps that move nothing: those beyond the limit of the gradient's norm, and those after a step that went wrong.

use super::*;
use crate::step::graph_capture::WARM_UP;

/// Everything that a step can move.
fn state(step: &Step) -> Vec<Tensor> {
    let student = &step.work.networks.student;
    let optimizer = step.work.optimizer.buffers().into_iter().map(|(_, buffer)| buffer);
    let all = [&step.work.parameters.values, &student.flat_statistics, &student.batches_tracked].into_iter();
    all.chain(optimizer).map(|tensor| tensor.detach().copy()).collect()
}

/// Takes a step of images that are `scale` of a pattern, and returns the norm of its gradient.
fn take(step: &mut Step, config: &RunConfig, number: u64, scale: f64) -> f64 {
    let samples: Vec<u64> = (0..4).collect();
    let images = (pattern(4 * 3 * 16 * 16, number).view([4, 3, 16, 16]) * scale).to_kind(config.precision.dtype.kind());
    let batch = Batch { images, labels: Tensor::from_slice(&[1i64, 2, 3, 4]), samples, global_count: 4 };
    let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &batch.samples, Device::Cpu);
    let terms: Vec<Term> = config.active_terms(0).collect();
    step.run(&batch, &noise, &terms, 0.05).unwrap().read().unwrap().norm
}

fn moved(step: &mut Step, config: &RunConfig, number: u64, scale: f64) -> bool {
    let before = state(step);
    take(step, config, number, scale);
    let same: Vec<bool> = before.iter().zip(state(step)).map(|(one, other)| one.equal(&other)).collect();
    assert!(same.iter().all(|kept| *kept == same[0]), "a step moves all or nothing: {same:?}");
    !same[0]
}

#[test]
fn a_gradient_beyond_the_limit_moves_nothing() {
    for (optimizer, recorded) in [("sgd", false), ("sgd", true), ("adamw", false), ("adamw", true)] {
        let kind = format!("optimizer.kind={optimizer}");
        let config = config("at", &["precision.dtype=float32", "guard.on_collapse=skip", &kind]);
        let mut step = step(&config);
        if recorded {
            step.recorder.capture(&step.work.networks, &step.work.ranks, false).unwrap();
            for number in 0..=WARM_UP as u64 {
                take(&mut step, &config, number, 1.0);
            }
        }
        step.work.watch.set_limit(1e-9, false);
        assert!(!moved(&mut step, &config, 7, 1.0), "{optimizer}");
        assert!(!moved(&mut step, &config, 8, 1.0), "{optimizer}");
        step.work.watch.set_limit(1e9, false);
        assert!(moved(&mut step, &config, 9, 1.0), "{optimizer}");
    }
}

#[test]
fn the_limit_is_compared_with_the_norm_of_the_gradient() {
    let config = config("at", &["guard.on_collapse=skip"]);
    let (mut one, mut other) = (step(&config), step(&config));
    let norm = take(&mut one, &config, 7, 1.0);
    let gradients = &one.work.parameters.gradients;
    let expected = f64::try_from(gradients.square().sum(Kind::Double).sqrt()).unwrap();
    assert!(norm > 0.0 && (norm - expected).abs() <= 1e-12 * expected, "{norm}, expected {expected}");
    other.work.watch.set_limit(norm, false);
    assert!(moved(&mut other, &config, 7, 1.0), "the limit itself is allowed");
    let mut other = step(&config);
    other.work.watch.set_limit(norm * (1.0 - 1e-12), false);
    assert!(!moved(&mut other, &config, 7, 1.0));
}

/// The host reads a step when the next one is under way, and finds the state as it was.
#[test]
fn what_went_wrong_holds_the_steps_after_it() {
    let config = config("at", &["guard.on_collapse=rollback"]);
    let mut step = step(&config);
    step.work.watch.set_limit(1e-9, true);
    assert!(!moved(&mut step, &config, 7, 1.0));
    step.work.watch.set_limit(f64::INFINITY, true);
    assert!(!moved(&mut step, &config, 8, 1.0), "held");
    step.work.watch.release();
    assert!(moved(&mut step, &config, 8, 1.0));
    assert!(!moved(&mut step, &config, 9, f64::NAN));
    assert!(!moved(&mut step, &config, 10, 1.0), "held");
}

#[test]
fn a_warning_masks_nothing_and_no_factor_measures_nothing() {
    let warns = config("at", &[]);
    let mut one = step(&warns);
    one.work.watch.set_limit(1e-9, true);
    assert!(moved(&mut one, &warns, 7, 1.0) && moved(&mut one, &warns, 8, 1.0));
    let off = config("at", &["guard.gradient_factor=0"]);
    assert_eq!(take(&mut step(&off), &off, 7, 1.0), 0.0);
}
