//! Accuracy under attack: every image once, whatever the number of ranks.
//!
//! Images are dealt to the ranks in turn. Each attack runs on batches of one fixed size, filled up with copies of the first
//! image whose results are dropped, so that an image's outcome does not depend on its neighbours.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use comm::Communicator;
use datasets::random::Purpose;
use datasets::{Draws, HostBatch, Source};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use crate::attack::{Attack, Noise, Pgd, Start};
use crate::batch::Batch;
use crate::config::{Evaluation, RunConfig};
use crate::loss::log_probability_of;
use crate::model::{Mode, Model};

/// An attack of an evaluation suite.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationAttack {
    /// Its name in configurations and tables.
    pub name: String,
    start: Start,
    steps: usize,
}

impl EvaluationAttack {
    /// The names there are, for messages.
    pub const NAMES: &'static str = "natural, fgsm, fgsm_rs or pgdN with N steps, as in pgd20";

    /// The attack of that name. `fgsm` takes one step of the whole radius from the image, `fgsm_rs` from a random start
    /// (the "FGSM" of the IAD reference and its tables), `pgdN` N small steps from a random start.
    pub fn named(name: &str) -> Option<Self> {
        let (start, steps) = match name {
            "natural" => (Start::Natural, 0),
            "fgsm" => (Start::Natural, 1),
            "fgsm_rs" => (Start::Uniform, 1),
            _ => {
                let digits = name.strip_prefix("pgd").filter(|digits| !digits.starts_with(['0', '+']))?;
                (Start::Uniform, digits.parse().ok().filter(|steps| (1..=10_000).contains(steps))?)
            }
        };
        Some(Self { name: name.to_string(), start, steps })
    }

    /// The passes of an image through the network, forward ones and equally costly ones back to the image together.
    pub fn passes(&self) -> u64 {
        2 * self.steps as u64 + 1
    }

    fn pgd(&self, protocol: &Protocol) -> Pgd {
        let single = self.name.starts_with("fgsm");
        let step = if single { protocol.eps } else { protocol.step };
        Pgd { eps: protocol.eps, step, steps: self.steps, start: self.start, clamp_start: true }
    }

    /// Each attack draws from a stream of its own.
    fn draws(&self, seed: u64) -> Draws {
        let number = self.name.bytes().fold(0u32, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
        Draws::new(seed, Purpose::Evaluation(number), 0)
    }
}

/// What an accuracy depends on besides the images, the network and the attack.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// Radius of the ball.
    pub eps: f64,
    /// Length of a step of attacks with several.
    pub step: f64,
    /// Rows of a batch.
    pub batch: usize,
    /// The seed of random starts.
    pub seed: u64,
}

impl Protocol {
    /// The protocol a configuration states.
    pub fn of(config: &RunConfig) -> Self {
        let Evaluation { eps, step, batch, .. } = config.evaluation;
        Self { eps: eps.0, step: step.0, batch, seed: config.seed }
    }
}

/// How many images kept their right answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accuracy {
    /// The name of the attack.
    pub name: String,
    /// Images whose label is still the prediction.
    pub correct: u64,
    /// Images attacked.
    pub of: u64,
}

/// Attacks every image of `source` once per attack, spread over the ranks. Returns nothing if `stop` was raised on any rank.
/// `progress` hears the share of this rank's work that is done, 0 to 1.
///
/// # Errors
/// A failure to read images or of the transport; or a count of images that is not that of the source.
pub fn evaluate(
    model: &Model,
    source: &dyn Source,
    attacks: &[EvaluationAttack],
    protocol: &Protocol,
    ranks: &dyn Communicator,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(f64),
) -> Result<Option<Vec<Accuracy>>> {
    let mine: Vec<usize> = (ranks.rank()..source.len()).step_by(ranks.world_size()).collect();
    let (kind, device) = (model.kind(), model.device());
    // Correct answers and attacked images of each attack, then whether this rank was told to stop.
    let mut counts = vec![0.0; 2 * attacks.len() + 1];
    let batches = mine.len().div_ceil(protocol.batch);
    'attacks: for (index, attack) in attacks.iter().enumerate() {
        let draws = attack.draws(protocol.seed);
        for (number, samples) in mine.chunks(protocol.batch).enumerate() {
            if stop.load(Ordering::Relaxed) {
                counts[2 * attacks.len()] = 1.0;
                break 'attacks;
            }
            let batch = read_filled(source, samples, protocol.batch, kind, device)?;
            let noise = Noise::new(&draws, &batch.samples, device);
            let adversarial = attack.pgd(protocol).perturb(&batch.images, &noise, &|candidate| {
                -log_probability_of(&model.logits(candidate, Mode::Eval), &batch.labels).sum(kind)
            });
            let predictions = tch::no_grad(|| model.logits(&adversarial, Mode::Eval)).argmax(1, false);
            let right = predictions.eq_tensor(&batch.labels).narrow(0, 0, samples.len() as i64);
            counts[2 * index] += f64::try_from(right.sum(Kind::Double))?;
            counts[2 * index + 1] += samples.len() as f64;
            progress((index * batches + number + 1) as f64 / (attacks.len() * batches) as f64);
        }
    }
    ranks.sum(&mut counts)?;
    if counts[2 * attacks.len()] > 0.0 {
        return Ok(None);
    }
    let accuracy = |(attack, counts): (&EvaluationAttack, &[f64])| {
        let (correct, of) = (counts[0] as u64, counts[1] as u64);
        ensure!(of == source.len() as u64, "{}: evaluated {of} images of {}", attack.name, source.len());
        Ok(Accuracy { name: attack.name.clone(), correct, of })
    };
    attacks.iter().zip(counts.chunks(2)).map(accuracy).collect::<Result<_>>().map(Some)
}

/// Reads `samples` and fills the batch up to `rows` with copies of the first.
fn read_filled(source: &dyn Source, samples: &[usize], rows: usize, kind: Kind, device: Device) -> Result<Batch> {
    let bytes = source.shape().iter().product();
    let mut host =
        HostBatch { images: vec![0; rows * bytes], labels: vec![], samples: vec![], global_count: source.len() };
    for (row, image) in host.images.chunks_mut(bytes).enumerate() {
        let sample = samples.get(row).copied().unwrap_or(samples[0]);
        source.read(sample, image)?;
        host.labels.push(source.label(sample));
        host.samples.push(sample as u64);
    }
    Ok(Batch::upload(&host, source.shape(), kind, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_state_their_attack() {
        let of = |name| EvaluationAttack::named(name).map(|attack| (attack.start, attack.steps));
        assert_eq!(of("natural"), Some((Start::Natural, 0)));
        assert_eq!(of("fgsm"), Some((Start::Natural, 1)));
        assert_eq!(of("fgsm_rs"), Some((Start::Uniform, 1)));
        assert_eq!(of("pgd20"), Some((Start::Uniform, 20)));
        for unknown in ["", "pgd", "pgd0", "pgd-1", "pgd+3", "cw"] {
            assert_eq!(of(unknown), None, "{unknown}");
        }
    }
}
