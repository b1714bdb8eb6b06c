//! The totals of an epoch so far, and their summary in its event.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::run::events::{Count, PERCENTS, Trust};
use crate::step::sums::{CASES, Cases, Sums};

/// The totals of the steps of an epoch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EpochTotals {
    /// The sums over all samples.
    pub sums: Sums,
    /// The number of steps.
    pub steps: u64,
    /// The learning rate of the last step.
    pub learning_rate: f64,
}

impl EpochTotals {
    /// Adds a step with these sums and this learning rate.
    pub fn add(&mut self, sums: &Sums, learning_rate: f64) {
        self.sums.add(sums);
        self.steps += 1;
        self.learning_rate = learning_rate;
    }

    /// The bits of every number as float64, by its name in a checkpoint; nothing before the first step.
    pub fn to_bits(&self) -> BTreeMap<String, u64> {
        if self.steps == 0 {
            return BTreeMap::new();
        }
        let mut named = self.sums.named();
        named.extend([("steps".into(), self.steps as f64), ("rate".into(), self.learning_rate)]);
        named.into_iter().map(|(name, number)| (name, number.to_bits())).collect()
    }

    /// The opposite of [`to_bits`](Self::to_bits).
    ///
    /// # Errors
    /// A name that this version does not know.
    pub fn from_bits(bits: &BTreeMap<String, u64>) -> Result<Self> {
        let mut totals = Self::default();
        for (name, bits) in bits {
            let number = f64::from_bits(*bits);
            match name.as_str() {
                "steps" => totals.steps = number as u64,
                "rate" => totals.learning_rate = number,
                name => {
                    let field = totals.sums.field(name);
                    *field.with_context(|| format!("the totals of the epoch have an unknown number, {name}"))? = number;
                }
            }
        }
        Ok(totals)
    }
}

/// The counts of correct predictions and of the teacher's cases, by name.
pub(super) fn counts(sums: &Sums) -> BTreeMap<String, Count> {
    let count = |sum: f64, of: f64| Count { count: sum as u64, of: of as u64 };
    let predictions = sums.predictions().map(|(who, counted)| (who.to_string(), count(counted.sum, counted.of)));
    let mut counts: BTreeMap<String, Count> = predictions.collect();
    if let Some(Cases { a, b, c, d, of }) = sums.cases {
        let cases = [("case_a", a), ("case_b", b), ("case_c", c), ("case_d", d)];
        counts.extend(cases.map(|(name, sum)| (name.to_string(), count(sum, of))));
    }
    counts
}

/// The trust in the teacher: its mean and its quantiles.
pub(super) fn trust(sums: &Sums) -> Option<Trust> {
    let alpha = sums.alpha?;
    let of = alpha.of as u64;
    let mut cases = histograms(&sums.alpha_bins);
    if let Some(first) = cases.values().next() {
        let all = (0..first.len()).map(|bin| cases.values().map(|counts| counts[bin]).sum()).collect();
        cases.insert("all".into(), all);
    }
    let quantiles = cases.iter().filter_map(|(case, counts)| Some((case.clone(), quantiles(counts)?)));
    Some(Trust { mean: alpha.sum / of as f64, of, quantiles: quantiles.collect() })
}

/// Histograms by case, of the counts of all cases one after the other; none where no sample was counted.
pub(super) fn histograms(bins: &[f64]) -> BTreeMap<String, Vec<u64>> {
    if bins.iter().all(|count| *count == 0.0) {
        return BTreeMap::new();
    }
    let cases = CASES.iter().zip(bins.chunks(bins.len() / CASES.len()));
    cases.map(|(case, counts)| (case.to_string(), counts.iter().map(|count| *count as u64).collect())).collect()
}

/// The middles of the bins in which the samples at [`PERCENTS`] of the order are.
fn quantiles(counts: &[u64]) -> Option<Vec<f64>> {
    let all: u64 = counts.iter().sum();
    let upto: Vec<u64> = counts
        .iter()
        .scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
        .collect();
    let middle = |percent: u32| {
        let place = (all * u64::from(percent)).div_ceil(100).max(1);
        (upto.partition_point(|sum| *sum < place) as f64 + 0.5) / counts.len() as f64
    };
    (all > 0).then(|| PERCENTS.map(middle).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::sums::Counted;

    #[test]
    fn quantiles_are_the_bins_where_the_samples_stand() {
        let mut counts = vec![0; 10];
        assert_eq!(quantiles(&counts), None);
        counts[3] = 1;
        assert_eq!(quantiles(&counts).unwrap(), [0.35; 7]);
        counts[9] = 99;
        assert_eq!(quantiles(&counts).unwrap(), [0.35, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95]);
    }

    #[test]
    fn the_trust_of_all_samples_is_that_of_the_cases_together() {
        let mut sums = Sums { alpha: Some(Counted { sum: 1.5, of: 2.0 }), ..Sums::default() };
        *sums.field("alpha/case_a/999").unwrap() = 1.0;
        *sums.field("alpha/case_c/500").unwrap() = 1.0;
        let trust = trust(&sums).unwrap();
        assert_eq!((trust.mean, trust.of, trust.quantiles.len()), (0.75, 2, 3));
        assert_eq!(trust.quantiles["all"][3..], [0.5005, 0.9995, 0.9995, 0.9995]);
        assert_eq!(trust.quantiles["case_c"], [0.5005; 7]);
        assert!(histograms(&sums.probability_bins).is_empty());
    }

    #[test]
    fn totals_go_through_their_bits() {
        let mut totals = EpochTotals::default();
        assert!(totals.to_bits().is_empty());
        let losses = BTreeMap::from([("label".to_string(), 0.1)]);
        totals.add(&Sums { samples: 3.0, losses, ..Sums::default() }, 0.05);
        let bits = totals.to_bits();
        assert_eq!(bits.keys().collect::<Vec<_>>(), ["loss/label", "rate", "samples", "steps"]);
        assert_eq!(EpochTotals::from_bits(&bits).unwrap(), totals);
        assert!(EpochTotals::from_bits(&BTreeMap::from([("invented".into(), 0)])).is_err());
    }
}
