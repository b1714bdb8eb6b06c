//! Numbers of one run and of several: a share of images with its binomial error, a mean with its deviation.

use trainer::evaluate::Accuracy;

use super::percentage::percentage;

/// A measured number of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measurement {
    /// The number: percent or seconds.
    pub(crate) value: f64,
    /// Its binomial standard error, if it is a share of images.
    pub(crate) error: Option<f64>,
}

impl Measurement {
    /// Percentage and binomial standard error of an accuracy; `None` without images.
    pub(crate) fn of(attacked: &Accuracy) -> Option<Self> {
        let (value, error) = percentage(attacked.correct, attacked.of)?;
        Some(Self { value, error: Some(error) })
    }
}

/// The same number of several runs combined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    /// The number of one run, or the mean of several.
    pub(crate) value: f64,
    /// The binomial standard error of one run, or the standard deviation of several runs.
    pub(crate) spread: Option<f64>,
    /// The number of runs.
    pub(crate) runs: usize,
}

impl Figure {
    /// The combination of the measured runs; `None` without runs.
    pub(crate) fn of(measured: &[Measurement]) -> Option<Self> {
        let runs = measured.len();
        let mean = measured.iter().map(|one| one.value).sum::<f64>() / runs as f64;
        match measured {
            [] => None,
            [one] => Some(Self { value: one.value, spread: one.error, runs }),
            _ => {
                let squares: f64 = measured.iter().map(|one| (one.value - mean).powi(2)).sum();
                Some(Self { value: mean, spread: Some((squares / (runs - 1) as f64).sqrt()), runs })
            }
        }
    }

    /// `83.06 ± 0.38`; `4.2e-3 ± 1.4e-4` where two decimals would hide it.
    pub(crate) fn text(&self) -> String {
        let hidden = self.value != 0.0 && self.value.abs() < 0.01;
        let text = |number: f64| if hidden { format!("{number:.1e}") } else { format!("{number:.2}") };
        match self.spread {
            Some(spread) => format!("{} ± {}", text(self.value), text(spread)),
            None => text(self.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(correct: u64, of: u64) -> Measurement {
        Measurement::of(&Accuracy { name: "natural".into(), correct, of }).unwrap()
    }

    #[test]
    fn one_run_has_the_binomial_standard_error() {
        let figure = Figure::of(&[measured(8306, 10_000)]).unwrap();
        assert_eq!(figure.text(), "83.06 ± 0.38");
        assert!((figure.spread.unwrap() - 100.0 * (0.8306f64 * 0.1694 / 10_000.0).sqrt()).abs() < 1e-12);
        assert_eq!(Figure::of(&[]), None);
    }

    #[test]
    fn several_runs_have_mean_and_sample_deviation() {
        let figure = Figure::of(&[measured(80, 100), measured(82, 100), measured(87, 100)]).unwrap();
        assert_eq!((figure.value, figure.runs), (83.0, 3));
        assert!((figure.spread.unwrap() - 13f64.sqrt()).abs() < 1e-12);
        let operations = |value| Measurement { value, error: None };
        let small = Figure::of(&[operations(0.0041), operations(0.0043)]).unwrap();
        assert_eq!(small.text(), "4.2e-3 ± 1.4e-4");
        assert_eq!(Figure::of(&[operations(0.0)]).unwrap().text(), "0.00");
    }
}
