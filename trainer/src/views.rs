//! The predictions a loss can speak of, each computed once and on demand.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use comm::Communicator;
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};
use torch_ext::Sum;

use crate::checkpoint;
use crate::config::{AcrossRanks, Precision, RunConfig};
use crate::model::{Mode, Model};
use crate::prepare::Prepared;
use crate::run::Place;
use crate::state::load_student;
use crate::timeline::{Phase, Timeline};

/// The name of the network being trained.
pub const STUDENT: &str = "student";

/// Which images a prediction is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Images {
    /// The images of the data set.
    Natural,
    /// The student's adversarial images.
    Adversarial,
}

/// The networks of a run.
pub struct Networks {
    /// The network being trained.
    pub student: Model,
    /// Frozen networks by the names a configuration gives them.
    pub teachers: BTreeMap<String, Model>,
    /// How they compute in training.
    pub(crate) precision: Precision,
    /// What their passes take their time from.
    pub timeline: Timeline,
}

impl Networks {
    /// A student and its teachers, which are frozen: their tensors may not change any more.
    pub fn new(student: Model, teachers: BTreeMap<String, Model>, precision: Precision) -> Self {
        precision.lay_out(&student);
        for teacher in teachers.values() {
            precision.lay_out(teacher);
            precision.freeze(teacher);
        }
        Self { student, teachers, precision, timeline: Timeline::default() }
    }

    /// The student with its first values, and the teachers from their files.
    ///
    /// # Errors
    /// A teacher's file that cannot be read or does not fit its network.
    pub fn build(config: &RunConfig, prepared: &Prepared, place: &Place) -> Result<Self> {
        let kind = config.precision.dtype.kind();
        let timeline = Timeline::new(place.device, place.ranks.rank());
        let student = student(config, prepared, place, &timeline);
        let load = |(name, weights): (&String, &std::path::PathBuf)| {
            let (header, tensors) = checkpoint::read(weights)?;
            let teacher = Model::build(header.form, 0, kind, place.device, None);
            load_student(&teacher, &tensors).with_context(|| format!("teacher {name}: {}", weights.display()))?;
            Ok((name.clone(), teacher))
        };
        let teachers = prepared.teachers.iter().map(load).collect::<Result<_>>()?;
        Ok(Self { timeline, ..Self::new(student, teachers, config.precision) })
    }
}

/// A network of the student's form with its first values, whose batch norm spans the ranks as the configuration says.
pub fn student(config: &RunConfig, prepared: &Prepared, place: &Place, timeline: &Timeline) -> Model {
    // With one rank the batch of all ranks is the batch.
    let across_ranks = config.batch_norm.across_ranks == AcrossRanks::Sync && place.ranks.world_size() > 1;
    let sum = across_ranks.then(|| sum_over(Arc::clone(&place.ranks), timeline.clone()));
    Model::build(prepared.form, config.seed, config.precision.dtype.kind(), place.device, sum)
}

/// The sum over the ranks as batch norm needs it, inside forward and backward passes, where errors cannot be returned.
pub(crate) fn sum_over(ranks: Arc<dyn Communicator>, timeline: Timeline) -> Sum {
    Arc::new(move |tensor| {
        let sum = || ranks.start_sum(tensor).and_then(|()| ranks.finish_sums());
        let summed = timeline.during_piece(Phase::Communication, "batch norm sum", sum);
        summed.unwrap_or_else(|error| panic!("batch norm across ranks: {error:#}"));
    })
}

/// Predictions on one batch. The student's carry gradients; teachers run in evaluation mode without.
pub struct Views<'a> {
    networks: &'a Networks,
    mode: Mode,
    natural: &'a Tensor,
    adversarial: &'a Tensor,
    logits: RefCell<HashMap<(String, Images), Tensor>>,
    /// The student's logits of passes without gradient, which no loss uses.
    seen: RefCell<HashMap<(String, Images), Tensor>>,
    /// Views whose natural predictions these take over, held fixed.
    fixed: Option<&'a Views<'a>>,
    /// Teachers of whom the predictions on both kinds of images will be asked.
    of_both: HashSet<String>,
}

impl<'a> Views<'a> {
    /// Views of a batch `[N, C, H, W]` and its adversarial images, with the student in `mode`.
    pub fn new(networks: &'a Networks, mode: Mode, natural: &'a Tensor, adversarial: &'a Tensor) -> Self {
        let (logits, seen, fixed, of_both) = Default::default();
        Self { networks, mode, natural, adversarial, logits, seen, fixed, of_both }
    }

    /// Says what will be asked for: a teacher to whom that is both kinds of images sees them in one pass. In evaluation mode
    /// an image's logits do not depend on its neighbours.
    pub fn expecting<'b>(mut self, predictions: impl Iterator<Item = (&'b str, Images)>) -> Self {
        let all: HashSet<_> = predictions.filter(|(network, _)| *network != STUDENT).collect();
        let both = all
            .iter()
            .filter(|(network, images)| *images == Images::Natural && all.contains(&(*network, Images::Adversarial)));
        self.of_both = both.map(|(network, _)| network.to_string()).collect();
        self
    }

    /// Takes over what the teachers said of the natural images in `other` views of the same batch.
    pub fn taking(self, other: &Views) -> Self {
        let known = other.logits.borrow();
        let teachers = known.iter().filter(|((network, images), _)| network != STUDENT && *images == Images::Natural);
        self.logits.borrow_mut().extend(teachers.map(|(key, logits)| (key.clone(), logits.shallow_clone())));
        drop(known);
        self
    }

    /// Views of another candidate for the adversarial images: all candidates of an attack share the predictions on the
    /// natural ones, which carry no gradient.
    pub fn with_candidate<'b>(&'b self, candidate: &'b Tensor) -> Views<'b> {
        Views { fixed: Some(self), ..Views::new(self.networks, self.mode, self.natural, candidate) }
    }

    /// Logits `[N, classes]` of the student or a named teacher.
    ///
    /// # Panics
    /// A network that the run does not have; the configuration is checked for it beforehand.
    pub fn logits(&self, network: &str, images: Images) -> Tensor {
        if let Some(known) = self.known(network, images) {
            return known;
        }
        if let Some(fixed) = self.fixed.filter(|_| images == Images::Natural) {
            return no_grad(|| fixed.logits(network, images));
        }
        if self.of_both.contains(network) {
            self.both(network);
            if let Some(known) = self.known(network, images) {
                return known;
            }
        }
        let pixels = self.pixels(images);
        let teacher = || self.teacher(network, pixels);
        let logits = match self.fixed {
            _ if network == STUDENT => self.forward(&self.networks.student, pixels, self.mode),
            // Where an attack speaks of a teacher's prediction on the candidate, its gradient counts too (AdaAD).
            Some(_) => teacher(),
            None => no_grad(teacher),
        };
        self.logits.borrow_mut().insert((network.to_string(), images), logits.shallow_clone());
        logits
    }

    /// A pass of the student that nothing asks for, for its running statistics.
    pub fn pass(&self, images: Images) {
        let logits = no_grad(|| self.forward(&self.networks.student, self.pixels(images), self.mode));
        self.seen.borrow_mut().insert((STUDENT.to_string(), images), logits);
    }

    /// Logits for looking at, without gradient: known ones, or the student's by the batch's statistics, which stay.
    pub fn look(&self, network: &str, images: Images) -> Tensor {
        let key = (network.to_string(), images);
        let seen = || self.seen.borrow().get(&key).map(Tensor::shallow_clone);
        if let Some(logits) = self.known(network, images).or_else(seen) {
            return logits.detach();
        }
        if network != STUDENT {
            return self.logits(network, images);
        }
        let logits = no_grad(|| self.forward(&self.networks.student, self.pixels(images), Mode::TrainFrozen));
        self.seen.borrow_mut().insert(key, logits.shallow_clone());
        logits
    }

    fn forward(&self, network: &Model, images: &Tensor, mode: Mode) -> Tensor {
        self.networks.precision.logits(network, images, mode)
    }

    fn teacher(&self, name: &str, images: &Tensor) -> Tensor {
        let pass = || self.forward(&self.networks.teachers[name], images, Mode::Eval);
        self.networks.timeline.during(Phase::Teacher, name, pass)
    }

    /// A teacher's predictions on natural and adversarial images, unless it has said something of one of them before.
    fn both(&self, teacher: &str) {
        let kinds = [Images::Natural, Images::Adversarial];
        if kinds.iter().any(|images| self.known(teacher, *images).is_some()) {
            return;
        }
        let images = Tensor::cat(&kinds.map(|images| self.pixels(images)), 0);
        let logits = no_grad(|| self.teacher(teacher, &images));
        for (images, logits) in kinds.into_iter().zip(logits.chunk(2, 0)) {
            self.logits.borrow_mut().insert((teacher.to_string(), images), logits);
        }
    }

    fn pixels(&self, images: Images) -> &Tensor {
        match images {
            Images::Natural => self.natural,
            Images::Adversarial => self.adversarial,
        }
    }

    /// The logits, if something asked for them before.
    pub fn known(&self, network: &str, images: Images) -> Option<Tensor> {
        self.logits.borrow().get(&(network.to_string(), images)).map(Tensor::shallow_clone)
    }

    /// Takes the logits as given, for tests of losses alone.
    #[cfg(test)]
    pub(crate) fn give(&self, network: &str, images: Images, logits: Tensor) {
        self.logits.borrow_mut().insert((network.to_string(), images), logits);
    }
}
