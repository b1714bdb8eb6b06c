//! Policies against torchvision and Pillow.

use super::*;

#[test]
fn levels_lie_between_the_ends() {
    assert_eq!([0, 9].map(|level| between(0.0, 0.3, level, 10)), [0.0, 0.3]);
    assert_eq!([0, 30].map(|level| between(255.0, 0.0, level, 31)), [255.0, 0.0]);
    let bits = |ranges: &Ranges, level, levels| ranges.operation(Posterize, [32, 32], (level, levels), false);
    assert_eq!(bits(&NARROW, 9, 10), Operation::Posterize(4));
    assert_eq!(bits(&WIDE, 30, 31), Operation::Posterize(2));
    let translated = NARROW.operation(TranslateX, [32, 64], (9, 10), true);
    assert_eq!(translated, Operation::TranslateX(-29));
}

#[test]
fn every_pair_has_a_probability_and_a_level() {
    for (_, probability, level) in AUTO_AUGMENT.iter().flatten() {
        assert!((0.0..=1.0).contains(probability) && *level < 10);
    }
}
