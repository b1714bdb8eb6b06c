//! The engine: rounds over the images that still stand, step by step on all ranks together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use comm::Communicator;
use datasets::{AdversarialFile, HostBatch, Source};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use super::distrust::{self, Seen};
use super::journal::Journal;
use super::outcomes::{Decided, Outcomes, Step};
use super::{Method, Protocol, Round, Suite};
use crate::attack::{Ball, Noise, Norm, predictions};
use crate::batch::Batch;
use crate::model::{Mode, Model};

/// An evaluation to do.
pub struct Engine<'a> {
    /// The network, in evaluation mode throughout.
    pub model: &'a Model,
    /// The images.
    pub source: &'a dyn Source,
    /// The attacks.
    pub suite: &'a Suite,
    /// Their settings.
    pub protocol: &'a Protocol,
    /// Who takes part.
    pub ranks: &'a dyn Communicator,
    /// Raised to stop between two batches.
    pub stop: &'a AtomicBool,
    /// Whether the network is examined for what speaks against the numbers.
    pub distrust: bool,
}

/// What the leader keeps of an evaluation; nothing on other ranks.
#[derive(Default)]
pub struct Keeping {
    /// Where each step is noted down.
    pub journal: Option<Journal>,
    /// Steps that were noted down before, of this very evaluation.
    pub known: Vec<Step>,
    /// Where adversarial images go. All ranks say whether there is one by `saves_images`.
    pub images: Option<AdversarialFile>,
    /// Whether adversarial images are saved; the same on all ranks.
    pub saves_images: bool,
}

/// How far an evaluation is.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The round under way.
    pub round: String,
    /// The share of the work that is done, 0 to 1, taking it that images standing now will stand.
    pub share: f64,
    /// Images that have withstood everything so far: at most so many are robust.
    pub standing: u64,
    /// All images.
    pub images: u64,
    /// Seconds to go, once there is a rate to tell them by.
    pub seconds_left: Option<f64>,
}

/// What a rank tells the others of a step.
#[derive(Default, Serialize, Deserialize)]
struct Answer {
    stop: bool,
    decided: Option<Decided>,
}

impl Engine<'_> {
    /// What becomes of every image. Returns nothing if it was told to stop; what was decided is then in the journal.
    ///
    /// # Errors
    /// A failure to read images, to write the journal, or of the transport.
    pub fn run(&self, keeping: &mut Keeping, progress: &mut dyn FnMut(&Standing)) -> Result<Option<Outcomes>> {
        let mut outcomes = self.fresh();
        for step in self.known(&keeping.known)? {
            outcomes.apply(&step)?;
        }
        let (began, work_before) = (Instant::now(), outcomes.work().0);
        for number in 0..outcomes.rounds.len() {
            let round = outcomes.rounds[number].clone();
            let pending = outcomes.pending(number);
            let world = self.ranks.world_size();
            let mine: Vec<usize> = pending.iter().skip(self.ranks.rank()).step_by(world).copied().collect();
            // The leader has the most.
            let steps = pending.len().div_ceil(world).div_ceil(self.protocol.batch);
            let mut batches = mine.chunks(self.protocol.batch);
            for _ in 0..steps {
                let started = Instant::now();
                let stop = self.stop.load(Ordering::Relaxed);
                let (decided, images) = match batches.next().filter(|_| !stop) {
                    Some(samples) => {
                        self.attack(&round, samples).map(|(decided, images)| (Some(decided), Some(images)))?
                    }
                    None => (None, None),
                };
                let answer = serde_json::to_string(&Answer { stop, decided })?;
                let answers = self.ranks.gather(&answer)?;
                let answers = answers.iter().map(|text| serde_json::from_str(text));
                let answers: Vec<Answer> = answers.collect::<Result<_, _>>()?;
                let stopped = answers.iter().any(|answer| answer.stop);
                if keeping.saves_images {
                    self.save(keeping, &outcomes, number, &answers, images)?;
                }
                let batches: Vec<Decided> = answers.into_iter().filter_map(|answer| answer.decided).collect();
                let step = Step { round: number, seconds: started.elapsed().as_secs_f64(), batches };
                if let Some(journal) = keeping.journal.as_mut().filter(|_| !step.batches.is_empty()) {
                    journal.add(&step)?;
                }
                outcomes.apply(&step)?;
                if stopped {
                    return Ok(None);
                }
                progress(&standing(&outcomes, &round, began, work_before));
            }
        }
        Ok(Some(outcomes))
    }

    /// Nothing decided yet.
    pub fn fresh(&self) -> Outcomes {
        Outcomes::new(self.suite, self.suite.rounds(self.protocol, self.model.form.classes), self.source.len())
    }

    /// The leader's known steps, on every rank.
    fn known(&self, known: &[Step]) -> Result<Vec<Step>> {
        let text = self.ranks.gather(&if known.is_empty() { String::new() } else { serde_json::to_string(known)? })?;
        Ok(if text[0].is_empty() { vec![] } else { serde_json::from_str(&text[0])? })
    }

    /// Attacks a batch and judges the result by a pass of its own. Returns the adversarial images of all rows too.
    fn attack(&self, round: &Round, samples: &[usize]) -> Result<(Decided, Tensor)> {
        let (kind, device) = (self.model.kind(), self.model.device());
        let batch = read_filled(self.source, samples, self.protocol.batch, kind, device)?;
        let noise = Noise::new(&round.draws(self.protocol.seed), &batch.samples, device);
        let found = round.search(self.model, self.protocol, &batch.images, &batch.labels, &noise);
        let (found, outside) = match round.method {
            Method::Natural => (found, 0),
            _ => {
                let ball = Ball { norm: Norm::Linf, eps: self.protocol.eps };
                distrust::within(ball, &batch.images, &found, samples.len())
            }
        };
        let logits = no_grad(|| self.model.logits(&found, Mode::Eval));
        let mut seen = Seen { outside, not_finite: distrust::not_finite(&logits, samples.len()), ..Seen::default() };
        if self.distrust && round.method == Method::Natural {
            seen.add(&distrust::examine(self.model, &batch.images, &batch.labels, &logits, samples.len()));
        }
        // An answer that is no number is wrong: a class that there is not.
        let classes = logits.size()[1];
        let number = logits.isfinite().all_dim(1, false);
        let predictions = predictions(&logits).where_scalarother(&number, classes);
        let predictions = Vec::<i64>::try_from(predictions.narrow(0, 0, samples.len() as i64))?;
        let wrong =
            |(&sample, prediction): (&usize, &i64)| if self.source.label(sample) == *prediction { '0' } else { '1' };
        let fallen = samples.iter().zip(&predictions).map(wrong).collect();
        Ok((Decided { samples: samples.to_vec(), fallen, predictions, seen }, found))
    }

    /// Brings the images of all ranks to the leader, who keeps the first that fools the network.
    fn save(
        &self,
        keeping: &Keeping,
        outcomes: &Outcomes,
        number: usize,
        answers: &[Answer],
        images: Option<Tensor>,
    ) -> Result<()> {
        let [channels, height, width] = self.source.shape().map(|size| size as i64);
        let shape = [self.ranks.world_size() as i64, self.protocol.batch as i64, channels, height, width];
        let all = Tensor::zeros(shape, (Kind::Float, self.model.device()));
        if let Some(images) = images {
            all.get(self.ranks.rank() as i64).copy_(&images);
        }
        // One rank's images and zeros: the sum is exact.
        self.ranks.start_sum(&all)?;
        self.ranks.finish_sums()?;
        let Some(file) = &keeping.images else { return Ok(()) };
        let natural = outcomes.rounds[number].method == Method::Natural;
        for (rank, decided) in
            answers.iter().enumerate().filter_map(|(rank, answer)| Some((rank, answer.decided.as_ref()?)))
        {
            let fallen = decided.fallen.bytes().zip(&decided.predictions);
            for (row, (&sample, (fallen, &prediction))) in decided.samples.iter().zip(fallen).enumerate() {
                if fallen == b'1' && outcomes.first_fall(sample).is_none() {
                    let image = all.get(rank as i64).get(row as i64).flatten(0, -1).to_device(Device::Cpu);
                    let pixels = Vec::<f32>::try_from(image)?;
                    file.put(sample, &pixels, prediction, number as i64)?;
                } else if natural {
                    file.put_prediction(sample, prediction)?;
                }
            }
        }
        // Before the journal says so.
        file.sync()
    }
}

fn standing(outcomes: &Outcomes, round: &Round, began: Instant, work_before: f64) -> Standing {
    let (done, left) = outcomes.work();
    let here = done - work_before;
    let seconds_left = (here > 0.0).then(|| began.elapsed().as_secs_f64() * left / here);
    let worst = outcomes.worst_case();
    let share = done / (done + left).max(1.0);
    Standing { round: round.label(&outcomes.suite), share, standing: worst.correct, images: worst.of, seconds_left }
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
