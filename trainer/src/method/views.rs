//! The predictions of student, teachers and learners that a loss can use, each computed once and on demand.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tch::{Kind, Tensor, no_grad};
use torch_ext::Kernels;

use super::memory::Memory;
use super::networks::Networks;
use super::pass_plan::PassPlan;
use crate::config::{Images, STUDENT};
use crate::model::{Mode, Model};
use crate::system::Phase;

/// Logits by network and images.
pub type Known = HashMap<(String, Images), Tensor>;

/// Predictions on one batch. The student's carry gradients; teachers run in evaluation mode without gradients. Learners do as
/// the student in the loss of a step, and as teachers in an attack.
pub struct Views<'a> {
    networks: &'a Networks,
    mode: Mode,
    /// Whether learners learn from these predictions.
    learning: bool,
    natural: &'a Tensor,
    adversarial: &'a Tensor,
    mirrored: OnceCell<Tensor>,
    helper: OnceCell<Tensor>,
    /// The gradient of a teacher's logit of the label at the natural images.
    slope: OnceCell<Tensor>,
    /// The extremes of what terms ask for, by what it is.
    extremes: RefCell<HashMap<String, Tensor>>,
    logits: RefCell<Known>,
    /// The student's logits from passes without gradient; no loss uses them.
    detached: RefCell<Known>,
    /// The views whose predictions on natural images these views share.
    natural_views: Option<&'a Views<'a>>,
    /// Teachers that are asked for both natural and adversarial images.
    batched_teachers: HashSet<String>,
}

impl<'a> Views<'a> {
    /// Views of a batch `[N, C, H, W]` and its adversarial images, with the student in `mode`.
    pub fn new(networks: &'a Networks, mode: Mode, natural: &'a Tensor, adversarial: &'a Tensor) -> Self {
        let (mirrored, helper, slope, extremes) = Default::default();
        let (logits, detached, natural_views, batched_teachers) = Default::default();
        Self {
            networks,
            mode,
            learning: false,
            natural,
            adversarial,
            mirrored,
            helper,
            slope,
            extremes,
            logits,
            detached,
            natural_views,
            batched_teachers,
        }
    }

    /// Lets learners learn from these predictions: they are made with batch statistics, and carry gradients.
    pub fn learning(self) -> Self {
        Self { learning: true, ..self }
    }

    /// Follows `plan`: a teacher needed on both natural and adversarial images gets one concatenated forward pass. In
    /// evaluation mode an image's logits do not depend on the other images.
    pub fn following(mut self, plan: &PassPlan) -> Self {
        let teachers = plan.batched_teachers().into_iter().filter(|name| self.networks.learning(name).is_none());
        self.batched_teachers = teachers.map(str::to_string).collect();
        self
    }

    /// The teachers' predictions so far, without gradient.
    pub fn teachers(&self) -> Known {
        let known = self.logits.borrow();
        let teachers = known.iter().filter(|((network, _), _)| self.networks.learning(network).is_none());
        teachers.map(|(key, logits)| (key.clone(), logits.detach())).collect()
    }

    /// Reuses predictions from other views of the same batch.
    pub fn knowing(self, known: &Known) -> Self {
        let known = known.iter().map(|(key, logits)| (key.clone(), logits.shallow_clone()));
        self.logits.borrow_mut().extend(known);
        self
    }

    /// Views of another candidate for the adversarial images, with the student in `mode`. All candidates of an attack share the
    /// predictions on natural images, which carry no gradient.
    pub fn with_candidate<'b>(&'b self, candidate: &'b Tensor, mode: Mode) -> Views<'b> {
        Views { natural_views: Some(self), ..Views::new(self.networks, mode, self.natural, candidate) }
    }

    /// Fused kernels, if there are some.
    pub fn kernels(&self) -> Option<&Arc<Kernels>> {
        self.networks.kernels.as_ref()
    }

    /// Logits `[N, classes]` of the student, a named teacher or a learner.
    ///
    /// # Panics
    /// A network that the run does not have; the configuration is checked for it beforehand.
    pub fn logits(&self, network: &str, images: Images) -> Tensor {
        if let Some(known) = self.cached(network, images) {
            return known;
        }
        if let Some(natural_views) = self.natural_views.filter(|_| images == Images::Natural) {
            return no_grad(|| natural_views.logits(network, images));
        }
        if self.batched_teachers.contains(network) {
            self.both(network);
            if let Some(known) = self.cached(network, images) {
                return known;
            }
        }
        let pixels = self.pixels(images);
        let teacher = || self.teacher(network, pixels);
        let logits = match self.natural_views {
            _ if network == STUDENT => self.forward(&self.networks.student, pixels, self.mode),
            _ if self.learning && self.networks.learners.contains_key(network) => self.learner(network, pixels),
            // If the attack's objective uses a teacher's prediction on the candidate, the gradient runs through the
            // teacher (AdaAD).
            Some(_) => teacher(),
            None => no_grad(teacher),
        };
        self.logits.borrow_mut().insert((network.to_string(), images), logits.shallow_clone());
        logits
    }

    /// What the method remembers.
    pub fn memory(&self) -> &Memory {
        &self.networks.memory
    }

    /// The sum of `values` over the ranks; every rank makes the call.
    pub fn sum_over_ranks(&self, values: &Tensor) -> Tensor {
        self.networks.sum_over_ranks(values)
    }

    /// The least and the greatest over the global batch of the `values [N]` called `name`, float64 `[2]`; every rank makes
    /// the call. The values are computed once.
    pub fn extremes(&self, name: &str, values: impl FnOnce() -> Tensor) -> Tensor {
        if let Some(known) = self.extremes.borrow().get(name) {
            return known.shallow_clone();
        }
        let found = self.networks.extremes_over_ranks(&values());
        self.extremes.borrow_mut().insert(name.to_string(), found.shallow_clone());
        found
    }

    /// The distributions `[N, classes]` that stand for `labels`, if the method mixes them (`loss.rectify`).
    pub fn rectified(&self, labels: &Tensor) -> Option<Tensor> {
        let rectified = self.memory().rectified.as_ref()?;
        Some(rectified.labels(&self.logits(rectified.network(), Images::Natural), labels))
    }

    /// The weight of each sample by its class, `[N]`, if the method has such weights; none in an attack.
    pub fn class_weights(&self, labels: &Tensor, kind: Kind) -> Option<Tensor> {
        let survival = self.memory().survival.as_ref().filter(|_| self.natural_views.is_none())?;
        Some(survival.factor(labels, kind))
    }

    /// A teacher's logits on natural images, of which that of the label follows the adversarial images to first order. The
    /// slope is computed once for all candidates of an attack.
    pub fn first_order(&self, teacher: &str, labels: &Tensor) -> Tensor {
        let origin = self.natural_views.unwrap_or(self);
        let slope = origin.slope.get_or_init(|| origin.slope_of_label(teacher, labels));
        first_order(&origin.logits(teacher, Images::Natural), slope, &(self.adversarial - self.natural), labels)
    }

    /// The gradient of the teacher's logit of the label at the natural images. Its logits there are cached on the way.
    fn slope_of_label(&self, teacher: &str, labels: &Tensor) -> Tensor {
        let images = self.natural.detach().set_requires_grad(true);
        let logits = self.teacher(teacher, &images);
        let of_label = logits.gather(1, &labels.unsqueeze(1), false).sum(logits.kind());
        let slope = Tensor::run_backward(&[of_label], &[&images], false, false).remove(0);
        self.logits.borrow_mut().insert((teacher.to_string(), Images::Natural), logits.detach());
        slope
    }

    /// A pass of the student or a learner that only updates its running statistics.
    pub fn forward_for_statistics(&self, network: &str, images: Images) {
        let pixels = self.pixels(images);
        let logits = no_grad(|| match network {
            STUDENT => self.forward(&self.networks.student, pixels, self.mode),
            learner => self.learner(learner, pixels),
        });
        self.detached.borrow_mut().insert((network.to_string(), images), logits);
    }

    /// Logits for diagnostics, without gradient: cached ones, or a new pass of the student by batch statistics that
    /// leaves the running statistics alone.
    pub fn logits_detached(&self, network: &str, images: Images) -> Tensor {
        let key = (network.to_string(), images);
        let seen = || self.detached.borrow().get(&key).map(Tensor::shallow_clone);
        if let Some(logits) = self.cached(network, images).or_else(seen) {
            return logits.detach();
        }
        if network != STUDENT {
            return self.logits(network, images);
        }
        let logits = no_grad(|| self.forward(&self.networks.student, self.pixels(images), Mode::TrainFrozen));
        self.detached.borrow_mut().insert(key, logits.shallow_clone());
        logits
    }

    fn forward(&self, network: &Model, images: &Tensor, mode: Mode) -> Tensor {
        self.networks.precision.logits(network, images, mode)
    }

    fn teacher(&self, name: &str, images: &Tensor) -> Tensor {
        let network = self.networks.teachers.get(name).unwrap_or_else(|| &self.networks.learners[name]);
        let pass = || self.forward(network, images, Mode::Eval);
        self.networks.timeline.during(Phase::Teacher, name, pass)
    }

    /// A pass of a learner from which it learns.
    fn learner(&self, name: &str, images: &Tensor) -> Tensor {
        self.forward(&self.networks.learners[name], images, Mode::Train)
    }

    /// Computes a teacher's predictions on natural and adversarial images, unless one of the two is already cached.
    fn both(&self, teacher: &str) {
        let kinds = [Images::Natural, Images::Adversarial];
        if kinds.iter().any(|images| self.cached(teacher, *images).is_some()) {
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
            Images::Mirrored => self.mirrored.get_or_init(|| self.natural * 2.0 - self.adversarial),
            Images::Helper => self.helper.get_or_init(|| self.adversarial * 2.0 - self.natural),
        }
    }

    /// The logits, if they are cached.
    pub fn cached(&self, network: &str, images: Images) -> Option<Tensor> {
        self.logits.borrow().get(&(network.to_string(), images)).map(Tensor::shallow_clone)
    }

    /// Sets the logits, for tests of losses.
    #[cfg(test)]
    pub(crate) fn give(&self, network: &str, images: Images, logits: Tensor) {
        self.logits.borrow_mut().insert((network.to_string(), images), logits);
    }
}

/// `logits [N, classes]` with the label's raised by the product of its gradient and the displacement, both `[N, C, H, W]`.
pub(super) fn first_order(logits: &Tensor, gradient: &Tensor, displacement: &Tensor, labels: &Tensor) -> Tensor {
    let raised = (gradient * displacement).flatten(1, -1).sum_dim_intlist(1i64, true, logits.kind());
    logits.scatter_add(1, &labels.unsqueeze(1), &raised)
}
