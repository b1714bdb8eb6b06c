//! A step never waits for its device, and finds a gradient that is not finite without it.

use super::*;
use crate::host;

#[test]
fn nothing_comes_to_the_host_before_the_numbers_are_read() {
    for preset in crate::config::preset_names() {
        let config = config(preset, &["metrics.diagnostics=full"]);
        let mut step = step(&config);
        let samples: Vec<u64> = (0..4).collect();
        let images = pattern(4 * 3 * 16 * 16, 7).view([4, 3, 16, 16]);
        let batch = Batch { images, labels: Tensor::from_slice(&[1i64, 2, 3, 4]), samples, global_count: 4 };
        let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &batch.samples, Device::Cpu);
        // The table of the Gaussian start is made once in a process.
        let _ = noise.normal(&batch.images);
        let before = host::waits();
        let terms: Vec<Term> = config.active_terms(199).collect();
        let observed = step.run(&batch, &noise, &terms, 0.05).unwrap();
        assert_eq!(host::waits(), before, "{preset}");
        let _ = observed.read().unwrap();
        assert_eq!(host::waits(), before + 1, "{preset}");
    }
}

#[test]
fn any_single_value_that_is_not_finite_is_found() {
    let found = |bad: &[(i64, f64)]| {
        let values = pattern(1000, 3).to_kind(Kind::Float) - 0.5;
        bad.iter().for_each(|(place, value)| drop(values.get(*place).fill_(*value)));
        let (finite, place) = finite(&values);
        (bool::try_from(finite).unwrap(), i64::try_from(place).unwrap())
    };
    assert!(found(&[]).0);
    // As large as float32 goes: a sum of them would not be finite, they are.
    assert!(found(&[(0, 3.4e38), (1, 3.4e38), (2, -3.4e38)]).0);
    for place in [0, 1, 499, 999] {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(found(&[(place, value)]), (false, place), "{value} at {place}");
        }
    }
    assert_eq!(found(&[(700, f64::NAN), (30, f64::NAN), (10, f64::INFINITY)]), (false, 30));
}
