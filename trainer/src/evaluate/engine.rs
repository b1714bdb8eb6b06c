//! The engine: all ranks run the rounds step by step over the images that no attack has broken yet.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Result;
use comm::Communicator;
use datasets::{AdversarialFile, Source};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::config::{Method, Protocol, Suite};
use crate::evaluate::batch::read_filled;
use crate::evaluate::pace::Pace;
use crate::evaluate::rows::Rows;
use crate::evaluate::sharing::rounds_together;
use crate::evaluate::{Classifier, Decided, Journal, Outcomes, Round, RoundStep};
use crate::step::batch::Batch;

/// A network, images and attacks, and the ranks that share the work.
pub struct Engine<'a> {
    /// The network.
    pub network: &'a dyn Classifier,
    /// The images.
    pub source: &'a dyn Source,
    /// The attacks.
    pub suite: &'a Suite,
    /// Their settings.
    pub protocol: &'a Protocol,
    /// The ranks that take part.
    pub ranks: &'a dyn Communicator,
    /// A raised flag stops the evaluation between two batches.
    pub stop: &'a AtomicBool,
    /// Whether the natural round also runs the sanity checks of the network.
    pub checks_sanity: bool,
    /// Whether adversarial images are collected at the leader.
    pub saves_images: bool,
}

/// The leader's records of an evaluation; other ranks have none.
#[derive(Default)]
pub struct Records {
    /// The journal of decided batches.
    pub journal: Option<Journal>,
    /// The steps that an earlier session wrote to the journal.
    pub known: Vec<RoundStep>,
    /// The file of adversarial images.
    pub images: Option<AdversarialFile>,
    /// The numbers of rows, below the protocol's, that gave the bits of a whole batch.
    pub rows: Vec<usize>,
}

/// How far an evaluation is.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The current round.
    pub round: String,
    /// The share of the work that is done, 0 to 1, if no further image falls.
    pub share: f64,
    /// Images that have withstood everything so far; an upper bound of the robust ones.
    pub standing: u64,
    /// All images.
    pub images: u64,
    /// Seconds left, once a rate is known.
    pub seconds_left: Option<f64>,
}

/// What a rank sends to the others after a step.
#[derive(Default, Serialize, Deserialize)]
struct Answer {
    stop: bool,
    /// The outcomes of its batch, one for each round in which images were attacked.
    decided: Vec<Decided>,
}

impl Engine<'_> {
    /// Attacks every image. Returns `None` after a request to stop; the journal then holds what was decided.
    ///
    /// # Errors
    /// A failure to read images, to write the journal, or of the transport.
    pub fn run(&self, records: &mut Records, progress: &mut dyn FnMut(&Standing)) -> Result<Option<Outcomes>> {
        let mut outcomes = self.fresh();
        for step in self.known(&records.known)? {
            outcomes.apply(&step)?;
        }
        let mut rows = Rows::new(self.network, self.protocol.batch);
        let mut pace = Pace::default();
        for number in 0..outcomes.rounds.len() {
            let round = outcomes.rounds[number].clone();
            let pending = outcomes.pending(number);
            let world = self.ranks.world_size();
            let mine: Vec<usize> = pending.iter().skip(self.ranks.rank()).step_by(world).copied().collect();
            // No rank has more images than the leader.
            let steps = pending.len().div_ceil(world).div_ceil(self.protocol.batch);
            let mut batches = mine.chunks(self.protocol.batch);
            let together = rounds_together(&outcomes, number, &pending, world, self.protocol.batch);
            let rounds = outcomes.rounds[number..number + together].to_vec();
            for _ in 0..steps {
                let started = Instant::now();
                let attacked = match batches.next().filter(|_| !self.stops()) {
                    Some(samples) => {
                        let rows = self.rows(&mut rows, &round, together * samples.len())?;
                        self.attack(&rounds, samples, rows)?
                    }
                    None => None,
                };
                let stop = self.stops();
                let decided = attacked.as_ref().map_or(vec![], |attacked| attacked.decided.clone());
                let answer = serde_json::to_string(&Answer { stop, decided })?;
                let answers = self.ranks.gather(&answer)?;
                let answers = answers.iter().map(|text| serde_json::from_str(text));
                let answers: Vec<Answer> = answers.collect::<Result<_, _>>()?;
                let stopped = answers.iter().any(|answer| answer.stop);
                for place in 0..together {
                    let batches: Vec<Option<&Decided>> =
                        answers.iter().map(|answer| answer.decided.get(place)).collect();
                    if self.saves_images {
                        let images = attacked.as_ref().and_then(|attacked| attacked.images(place));
                        self.save(records, &outcomes, number + place, &batches, images)?;
                    }
                    let seconds = started.elapsed().as_secs_f64() / together as f64;
                    let batches = batches.into_iter().flatten().cloned().collect();
                    let step = RoundStep { round: number + place, seconds, batches };
                    if let Some(journal) = records.journal.as_mut().filter(|_| !step.batches.is_empty()) {
                        journal.add(&step)?;
                    }
                    outcomes.apply(&step)?;
                    let images = step.batches.iter().map(|batch| batch.samples.len()).sum();
                    pace.count(&round, &outcomes, images, seconds);
                }
                if stopped {
                    return Ok(None);
                }
                progress(&standing(&outcomes, &round, &pace));
            }
        }
        records.rows = rows.agreeing();
        Ok(Some(outcomes))
    }

    /// The outcomes before the first step.
    pub fn fresh(&self) -> Outcomes {
        Outcomes::new(self.suite, self.suite.rounds(self.protocol, self.network.classes()), self.source.len())
    }

    /// Sends the leader's known steps to every rank.
    fn known(&self, known: &[RoundStep]) -> Result<Vec<RoundStep>> {
        let text = self.ranks.gather(&if known.is_empty() { String::new() } else { serde_json::to_string(known)? })?;
        Ok(if text[0].is_empty() { vec![] } else { serde_json::from_str(&text[0])? })
    }

    /// The rows of a batch of so many images.
    fn rows(&self, rows: &mut Rows, round: &Round, images: usize) -> Result<usize> {
        // Few images are left for these attacks alone; a trial would cost more than the others gain.
        if round.method.on_every_image() {
            return Ok(self.protocol.batch);
        }
        let whole = self.protocol.batch;
        let first: Vec<usize> = (0..whole.min(self.source.len())).collect();
        rows.for_samples(images, || self.read(&first, whole))
    }

    pub(super) fn read(&self, samples: &[usize], rows: usize) -> Result<Batch> {
        read_filled(self.source, samples, rows, (self.network.kind(), self.network.device()))
    }

    /// Brings the candidates of all ranks to the leader, who keeps the first one that fools the network.
    fn save(
        &self,
        records: &Records,
        outcomes: &Outcomes,
        number: usize,
        batches: &[Option<&Decided>],
        images: Option<Tensor>,
    ) -> Result<()> {
        let [channels, height, width] = self.source.shape().map(|size| size as i64);
        let shape = [self.ranks.world_size() as i64, self.protocol.batch as i64, channels, height, width];
        let all = Tensor::zeros(shape, (Kind::Float, self.network.device()));
        if let Some(images) = images {
            all.get(self.ranks.rank() as i64).narrow(0, 0, images.size()[0]).copy_(&images);
        }
        // Each slot is one rank's images plus zeros, so the sum is exact.
        self.ranks.start_sum(&all)?;
        self.ranks.finish_sums()?;
        let Some(file) = &records.images else { return Ok(()) };
        let natural = outcomes.rounds[number].method == Method::Natural;
        for (rank, decided) in batches.iter().enumerate().filter_map(|(rank, decided)| Some((rank, (*decided)?))) {
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
        // The images reach the disk before the journal mentions them.
        file.sync()
    }
}

fn standing(outcomes: &Outcomes, round: &Round, pace: &Pace) -> Standing {
    let (done, left) = outcomes.work();
    let worst = outcomes.worst_case();
    Standing {
        round: round.label(&outcomes.suite),
        share: done / (done + left).max(1.0),
        standing: worst.correct,
        images: worst.of,
        seconds_left: pace.seconds_left(left),
    }
}
