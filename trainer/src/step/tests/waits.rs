//! A step never waits for its device, and still detects a gradient that is not finite.

use tch::no_grad;

use super::*;
use crate::system::transfer;

#[test]
fn nothing_comes_to_the_host_before_the_numbers_are_read() {
    for preset in crate::config::preset_names() {
        let config = config(preset, &["metrics.diagnostics=full"]);
        let mut step = step(&config);
        let samples: Vec<u64> = (0..4).collect();
        let images = pattern(4 * 3 * 16 * 16, 7).view([4, 3, 16, 16]);
        let batch = Batch { images, labels: Tensor::from_slice(&[1i64, 2, 3, 4]), samples, global_count: 4 };
        let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &batch.samples, Device::Cpu);
        // The table of the Gaussian start is computed once per process.
        let _ = noise.normal(&batch.images);
        let before = transfer::waits();
        let terms: Vec<Term> = config.active_terms(199).collect();
        let observed = step.run(&batch, &noise, &terms, 0.05).unwrap();
        assert_eq!(transfer::waits(), before, "{preset}");
        let _ = observed.read().unwrap();
        assert_eq!(transfer::waits(), before + 1, "{preset}");
    }
}

#[test]
fn any_single_value_that_is_not_finite_is_found() {
    let found = |bad: &[(i64, f64)]| {
        let values = pattern(1000, 3).to_kind(Kind::Float) - 0.5;
        bad.iter().for_each(|(place, value)| drop(values.get(*place).fill_(*value)));
        let (finite, place) = guard::all_finite(&values);
        (bool::try_from(finite).unwrap(), i64::try_from(place).unwrap())
    };
    assert!(found(&[]).0);
    // The largest float32 values: their sum would not be finite, but they are.
    assert!(found(&[(0, 3.4e38), (1, 3.4e38), (2, -3.4e38)]).0);
    for place in [0, 1, 499, 999] {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(found(&[(place, value)]), (false, place), "{value} at {place}");
        }
    }
    assert_eq!(found(&[(700, f64::NAN), (30, f64::NAN), (10, f64::INFINITY)]), (false, 30));
}

#[test]
fn a_running_statistic_or_a_momentum_that_is_not_finite_stops_the_step_by_name() {
    let step = step(&config("at", &["precision.dtype=float32"]));
    let Work { parameters, networks, optimizer, .. } = &step.work;
    let student = &networks.student;
    let judged = || {
        let Guard { finite, place } = Guard::of(parameters, student, optimizer);
        let place = i64::try_from(place).unwrap() as usize;
        (bool::try_from(finite).unwrap(), guard::name_at(place, parameters, student))
    };
    assert!(judged().0);
    let (statistics, mut velocity) = (student.flat_statistics.shallow_clone(), optimizer.velocity.shallow_clone());
    for value in [f64::NAN, f64::INFINITY] {
        let last = student.statistics.last().unwrap();
        let place = statistics.numel() as i64 - 1;
        let before = statistics.get(place).copy();
        let _ = no_grad(|| statistics.get(place).fill_(value));
        let (finite, name) = judged();
        assert!(!finite && name.contains("running statistics") && name.ends_with(&last.name), "{name}");
        no_grad(|| statistics.get(place).copy_(&before));
    }
    assert!(judged().0);
    // Twice that is more than float32 holds.
    let _ = no_grad(|| velocity.get(0).fill_(3.4e38));
    let mut gradients = parameters.gradients.shallow_clone();
    let _ = no_grad(|| gradients.get(0).fill_(3.4e38));
    let (finite, name) = judged();
    assert!(!finite && name.contains("momentum"), "{name}");
    let _ = no_grad(|| (velocity.zero_(), gradients.zero_()));
    assert!(judged().0);
}
