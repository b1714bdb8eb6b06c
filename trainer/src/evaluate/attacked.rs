//! One batch under attack, and its judgement.

use std::sync::atomic::Ordering;

use anyhow::Result;
use tch::{Kind, Tensor, no_grad};

use super::engine::Engine;
use super::round::ball;
use super::stoppable::Stoppable;
use crate::config::Method;
use crate::evaluate::{Decided, Round, SanityCounts, sanity_checks};
use crate::method::attack::{Noise, predictions};

/// The outcomes of a batch on one rank.
pub(super) struct Attacked {
    /// Of each round in order, until no image is left.
    pub(super) decided: Vec<Decided>,
    /// The candidates of all rows.
    found: Tensor,
    /// The rows of each round's images.
    rows: Vec<Vec<i64>>,
}

impl Attacked {
    /// The candidates of the images that were decided in the `place`-th round, if there are any.
    pub(super) fn images(&self, place: usize) -> Option<Tensor> {
        let rows = Tensor::from_slice(self.rows.get(place)?).to_device(self.found.device());
        Some(self.found.index_select(0, &rows))
    }
}

impl Engine<'_> {
    /// Attacks `samples` in all `rounds` in one batch of `rows` rows, and judges the candidates by a separate pass. The rounds
    /// have one method; an image counts for the first of them that breaks it, as if they came one after another. `None` after
    /// a request to stop, which ends the attack.
    pub(super) fn attack(&self, rounds: &[Round], samples: &[usize], rows: usize) -> Result<Option<Attacked>> {
        let repeated: Vec<usize> = rounds.iter().flat_map(|_| samples).copied().collect();
        let batch = self.read(&repeated, rows)?;
        // The rows that fill the batch up belong to the first round.
        let round_of = |row: usize| &rounds[if row < repeated.len() { row / samples.len() } else { 0 }];
        let targets: Vec<usize> = (0..rows).map(|row| round_of(row).target.unwrap_or(2)).collect();
        let noise: Vec<Noise> = (0..rows)
            .step_by(samples.len())
            .map(|first| {
                let numbers = &batch.samples[first..rows.min(first + samples.len())];
                Noise::new(&round_of(first).draws(self.protocol.seed), numbers, self.network.device())
            })
            .collect();
        let network = Stoppable { network: self.network, labels: &batch.labels, stop: self.stop };
        let found = rounds[0].search(&network, self.protocol, &batch, &targets, &Noise::joined(&noise));
        if network.stopped() {
            return Ok(None);
        }
        let natural = rounds[0].method == Method::Natural;
        let (found, outside) = if natural {
            (found, Tensor::zeros([rows as i64], (Kind::Bool, self.network.device())))
        } else {
            sanity_checks::within(ball(self.protocol), &batch.images, &found)
        };
        let logits = no_grad(|| self.network.logits(&found));
        // Logits that are not finite count as wrong: they predict a class that does not exist.
        let not_finite = sanity_checks::not_finite(&logits);
        let predictions = predictions(&logits).masked_fill(&not_finite, logits.size()[1]);
        let judged = Judged {
            predictions: Vec::try_from(&predictions)?,
            outside: Vec::try_from(&outside)?,
            not_finite: Vec::try_from(&not_finite)?,
        };

        let mut attacked = Attacked { decided: vec![], found, rows: vec![] };
        let mut left: Vec<usize> = (0..samples.len()).collect();
        for place in 0..rounds.len() {
            if left.is_empty() {
                break;
            }
            let rows: Vec<usize> = left.iter().map(|image| place * samples.len() + image).collect();
            let decided = judged.decided(&rows, &repeated, |sample| self.source.label(sample));
            let fallen = decided.fallen.as_bytes();
            left = left.iter().zip(fallen).filter(|(_, fallen)| **fallen == b'0').map(|(image, _)| *image).collect();
            attacked.decided.push(decided);
            attacked.rows.push(rows.iter().map(|row| *row as i64).collect());
        }
        if self.checks_sanity && natural {
            let examined = sanity_checks::examine(self.network, &batch.images, &batch.labels, &logits, samples.len());
            attacked.decided[0].seen.add(&examined);
        }
        Ok(Some(attacked))
    }

    /// Whether this rank is asked to stop.
    pub(super) fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What the network says of each row's candidate.
struct Judged {
    predictions: Vec<i64>,
    outside: Vec<bool>,
    not_finite: Vec<bool>,
}

impl Judged {
    /// The outcomes of `rows`, whose images are `samples`.
    fn decided(&self, rows: &[usize], samples: &[usize], label: impl Fn(usize) -> i64) -> Decided {
        let count = |flags: &[bool]| rows.iter().filter(|row| flags[**row]).count() as u64;
        let fell = |row: &usize| if label(samples[*row]) == self.predictions[*row] { '0' } else { '1' };
        Decided {
            samples: rows.iter().map(|row| samples[*row]).collect(),
            fallen: rows.iter().map(fell).collect(),
            predictions: rows.iter().map(|row| self.predictions[*row]).collect(),
            seen: SanityCounts {
                outside: count(&self.outside),
                not_finite: count(&self.not_finite),
                ..SanityCounts::default()
            },
        }
    }
}
