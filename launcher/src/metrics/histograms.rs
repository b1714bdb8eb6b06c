//! The distribution of the trust (alpha) over the training images of each epoch.

use trainer::config::RunConfig;

use crate::report::RecordedRun;

/// Counts in bins of [0, 1].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    pub(super) step: u64,
    pub(super) name: String,
    /// The upper end of each bin.
    pub(super) ends: Vec<f64>,
    pub(super) counts: Vec<f64>,
}

/// That of alpha for each epoch of a run with a trusted teacher. Metrics count the teacher's probability of the label in equal
/// bins, by case; alpha is its power, so that its bins end at the powers of theirs. Case D is a part of C.
pub(super) fn of_alpha(run: &RecordedRun, config: &RunConfig) -> Vec<Histogram> {
    let exponent = config.loss.terms.iter().find_map(|term| Some(term.trust.as_ref()?.exponent));
    let Some(exponent) = exponent.filter(|exponent| *exponent > 0.0) else { return vec![] };
    let mut all = vec![];
    for epoch in &run.epochs {
        let cases: Vec<&Vec<u64>> =
            epoch.probability.iter().filter(|(case, _)| !case.ends_with('d')).map(|(_, bins)| bins).collect();
        let Some(bins) = cases.iter().map(|bins| bins.len()).max().filter(|bins| *bins > 0) else { continue };
        let count = |bin: usize| cases.iter().filter_map(|bins| bins.get(bin)).sum::<u64>() as f64;
        all.push(Histogram {
            step: epoch.step,
            name: "alpha".into(),
            ends: (1..=bins).map(|bin| (bin as f64 / bins as f64).powf(exponent)).collect(),
            counts: (0..bins).map(count).collect(),
        });
    }
    all
}
