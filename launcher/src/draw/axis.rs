//! Ranges, round ticks and their labels, whatever the axis shows.

/// A closed range of finite numbers with `low < high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    pub low: f64,
    pub high: f64,
}

/// Round numbers within a range and the distance between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticks {
    pub values: Vec<f64>,
    pub step: f64,
}

impl Range {
    /// The smallest range of all values, widened if they are all equal; `None` without values.
    pub fn around(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        (low <= high).then(|| {
            let least = (low.abs().max(high.abs()) * 1e-6).max(f64::MIN_POSITIVE * 1e16);
            if high - low > least {
                return Self { low, high };
            }
            let margin = if low == 0.0 { 1.0 } else { low.abs() * 0.05 };
            Self { low: low - margin, high: high + margin }
        })
    }

    /// This range made larger at both ends by a fraction of its length.
    pub fn padded(self, fraction: f64) -> Self {
        let margin = (self.high - self.low) * fraction;
        Self { low: self.low - margin, high: self.high + margin }
    }

    /// The position of `value`: 0 at the low end and 1 at the high end.
    pub fn position(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Three to eight multiples of 1, 2 or 5 times a power of ten.
    /// With `whole` only whole numbers, which needs a range at least 3 long, or 2 from a whole number on.
    pub fn ticks(self, whole: bool) -> Ticks {
        // The finest step with at most eight ticks has at least three: neighbouring steps differ by at most 2.5 times.
        let coarsest = (self.high - self.low).log10().ceil() as i32;
        let first = if whole { 0 } else { coarsest - 2 };
        for power in first..=coarsest.max(first) {
            for digit in [1.0, 2.0, 5.0] {
                let step = if power < 0 { digit / 10f64.powi(-power) } else { digit * 10f64.powi(power) };
                // Rounding must not lose a bound that is itself a multiple.
                let from = (self.low / step - 1e-9).ceil();
                let to = (self.high / step + 1e-9).floor();
                if to - from < 8.0 {
                    let values = (0..=(to - from) as i64)
                        .map(|index| (from + index as f64) * step)
                        .map(|value| value.clamp(self.low, self.high) + 0.0)
                        .collect();
                    return Ticks { values, step };
                }
            }
        }
        Ticks { values: vec![self.low, f64::midpoint(self.low, self.high), self.high], step: self.high - self.low }
    }
}

/// The ticks of a logarithmic axis, at powers of ten, and their labels; `range` is one of logarithms to base 10. A short range
/// has ticks at 2 and 5 times these too, and a long one leaves powers out.
pub fn decades(range: Range) -> (Ticks, Vec<String>) {
    let (low, high) = (range.low.floor() as i32, range.high.ceil() as i32);
    let within = |value: &f64| (range.low..=range.high).contains(value);
    let every = (usize::try_from(high - low).unwrap_or(0) / 7 + 1).max(1);
    let factors: &[f64] = if range.high - range.low < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let powers = (low..=high).step_by(every);
    let ticks = powers.flat_map(|power| factors.iter().map(move |factor| (power, *factor)));
    let ticks: Vec<(i32, f64)> =
        ticks.filter(|(power, factor)| within(&(f64::from(*power) + factor.log10()))).collect();
    let label = |(power, factor): &(i32, f64)| match power {
        -4..=-1 => format!("{:.*}", power.unsigned_abs() as usize, factor / 10f64.powi(-power)),
        0..=5 => format!("{:.0}", factor * 10f64.powi(*power)),
        _ => format!("{factor}e{power}"),
    };
    let labels = ticks.iter().map(label).collect();
    (
        Ticks { values: ticks.iter().map(|(power, factor)| f64::from(*power) + factor.log10()).collect(), step: 1.0 },
        labels,
    )
}

impl Ticks {
    /// One label per tick, all with the same number of decimals.
    pub fn labels(&self) -> Vec<String> {
        let largest = self.values.iter().fold(0f64, |largest, value| largest.max(value.abs()));
        let decimals = (-(self.step.log10() + 1e-9).floor()).max(0.0) as usize;
        self.values
            .iter()
            .map(|value| match value {
                zero if *zero == 0.0 => "0".to_owned(),
                value if largest >= 1e7 || decimals > 5 => format!("{value:.1e}"),
                value if decimals == 0 => grouped(value.round() as i64),
                value => format!("{value:.decimals$}"),
            })
            .collect()
    }
}

/// A whole number with its thousands set apart.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_lie_within_the_range_and_are_three_to_eight() {
        // A fixed linear congruence instead of a random generator: the same ranges each time.
        let mut state = 7u64;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        for round in 0..20_000 {
            let length = 10f64.powf(uniform() * 16.0 - 8.0);
            let low = (uniform() - 0.5) * length * 100.0;
            let range = Range { low, high: low + length };
            let whole = round % 2 == 0 && length >= 3.0;
            let ticks = range.ticks(whole);
            assert!((3..=8).contains(&ticks.values.len()), "{range:?} {ticks:?}");
            assert!(ticks.values.iter().all(|tick| (range.low..=range.high).contains(tick)), "{range:?} {ticks:?}");
            assert!(ticks.values.is_sorted_by(|left, right| left < right), "{range:?} {ticks:?}");
            assert!(!whole || ticks.step >= 1.0);
        }
    }

    #[test]
    fn ticks_are_round() {
        let labels = |low, high, whole| Range { low, high }.ticks(whole).labels();
        assert_eq!(labels(0.0, 4.0, true), ["0", "1", "2", "3", "4"]);
        assert_eq!(labels(0.0, 2.0, true), ["0", "1", "2"]);
        assert_eq!(labels(0.0, 1840.0, true), ["0", "500", "1,000", "1,500"]);
        assert_eq!(labels(0.0, 0.05, false), ["0", "0.01", "0.02", "0.03", "0.04", "0.05"]);
        assert_eq!(labels(74.3, 92.1, false), ["75", "80", "85", "90"]);
        assert_eq!(labels(-1.0, 1.0, false), ["-1.0", "-0.5", "0", "0.5", "1.0"]);
    }

    #[test]
    fn equal_values_still_make_a_range() {
        for value in [0.0, 1.0, -3.5, 1e12, 1e-300] {
            let range = Range::around([value].into_iter()).unwrap();
            assert!(range.low < value && value < range.high);
            assert!((3..=8).contains(&range.ticks(false).values.len()));
        }
        assert_eq!(Range::around([f64::NAN].into_iter()), None);
    }

    #[test]
    fn decades_are_labelled_as_numbers() {
        let labels = |low: f64, high: f64| decades(Range { low: low.log10(), high: high.log10() }).1;
        assert_eq!(labels(9e-4, 12.0), ["0.001", "0.01", "0.1", "1", "10"]);
        assert_eq!(labels(0.4, 3.0), ["0.5", "1", "2"]);
        assert_eq!(labels(0.5e-9, 2e-6), ["1e-9", "1e-8", "1e-7", "1e-6"]);
        assert!(labels(1e-30, 1e30).len() <= 9);
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, -1234567].map(grouped), ["0", "999", "1,000", "-1,234,567"]);
    }
}
