//! Adversarial weight perturbation (Wu, Xia and Wang, NeurIPS 2020): the gradient of a step is taken at weights that were
//! moved up the loss, and the move is taken back after the update.
//!
//! A weight tensor w moves by gamma ||w|| g / ||g||, where g is the gradient of the loss over the global batch. It is summed
//! over the ranks before its norm is taken, so all ranks move alike. As in the authors' code, weight decay sees the moved
//! weights.

use anyhow::Result;
use datasets::Shard;
use tch::{Kind, Tensor, no_grad};

use super::Work;
use super::batch::Batch;
use super::gradients::Gradients;
use super::graph_capture::Inputs;
use super::optimizer::norm;
use super::stopping::Ask;
use crate::config::{RunConfig, Term};
use crate::method::attack::Noise;
use crate::method::pass_plan::PassPlan;
use crate::method::views::{Known, Views};
use crate::model::{Mode, Model};
use crate::system::Phase;

/// Keeps a weight without a gradient where it is. The constant is that of the authors' code.
const TINY: f64 = 1e-20;

/// The perturbation of a run's steps.
#[derive(Default)]
pub struct WeightPerturbation {
    gamma: f64,
    /// Whether steps perturb now.
    pub(super) active: bool,
    moved: Option<Moved>,
}

/// The parameters before the perturbation, and what was added to them, both flat.
struct Moved {
    before: Tensor,
    by: Tensor,
}

/// What the attack on a part of the batch leaves for its loss.
pub(super) struct Attacked {
    pub(super) adversarial: Tensor,
    pub(super) teachers: Known,
    /// How many steps of the attack each sample survived, `[N]`, if the method asks for it.
    pub(super) survived: Option<Tensor>,
}

impl WeightPerturbation {
    /// The perturbation that `config` asks for.
    pub(super) fn new(config: &RunConfig) -> Self {
        let gamma = config.awp.map_or(0.0, |awp| awp.gamma);
        Self { gamma, active: config.perturbs_weights(0), moved: None }
    }

    /// Moves each weight of more than one axis along its gradient. Biases and batch norm stay.
    pub(super) fn perturb(&mut self, parameters: &Gradients, model: &Model) {
        let Gradients { values, gradients, .. } = parameters;
        let (before, by) = (values.copy(), values.zeros_like());
        let mut offset = 0;
        for named in &model.parameters {
            let count = named.tensor.numel() as i64;
            if named.tensor.dim() > 1 && named.name.contains("weight") {
                let of = |flat: &Tensor| flat.narrow(0, offset, count);
                let gradient = of(gradients);
                let share = norm(&of(&before)) / (norm(&gradient) + TINY) * self.gamma;
                of(&by).copy_(&(gradient.to_kind(Kind::Double) * share));
            }
            offset += count;
        }
        let _ = no_grad(|| values.shallow_clone().g_add_(&by));
        self.moved = Some(Moved { before, by });
    }

    /// Takes the perturbation back from updated parameters. Where the step does not move (`moves` is a bool scalar), they are
    /// those before it, to the bit.
    pub(super) fn take_back(&mut self, parameters: &Gradients, moves: &Tensor) {
        if let Some(Moved { before, by }) = self.moved.take() {
            let values = &parameters.values;
            no_grad(|| values.shallow_clone().copy_(&(values - by).where_self(moves, &before)));
        }
    }

    /// Gives the parameters of a step that was given up the values before it.
    pub(super) fn give_up(&mut self, parameters: &Gradients) {
        if let Some(Moved { before, .. }) = self.moved.take() {
            no_grad(|| parameters.values.shallow_clone().copy_(&before));
        }
    }
}

impl Work {
    /// Perturbs the weights, if this epoch does so, and returns what the attacks on the parts of the batch left: each part is
    /// attacked once, at the weights before. Otherwise returns nothing.
    pub(super) fn ascend(&mut self, inputs: &Inputs, terms: &[Term], ask: Ask) -> Result<Vec<Attacked>> {
        if !self.perturbation.active {
            return Ok(vec![]);
        }
        let Inputs { batch, noise, .. } = inputs;
        self.parameters.zero();
        let shard = Shard { rank: self.ranks.rank(), world_size: self.ranks.world_size() };
        let parts = batch.parts(self.accumulate, shard);
        let mut attacked = vec![];
        for (index, rows) in parts.iter().enumerate() {
            ask()?;
            let last = index + 1 == parts.len();
            attacked.push(self.ascend_part(&batch.rows(rows), &noise.rows(rows), terms, last, ask)?);
        }
        let timeline = self.networks.timeline.clone();
        timeline.during(Phase::Communication, "gradients of the ascent", || self.parameters.finish())?;
        timeline.during(Phase::Update, "perturbation", || {
            self.perturbation.perturb(&self.parameters, &self.networks.student)
        });
        Ok(attacked)
    }

    /// Attacks a part of the batch, perhaps the last one, and adds the gradient of `terms` to those of earlier parts. Batch norm
    /// takes the statistics of the batch, and only the attack moves the running ones.
    fn ascend_part(&self, batch: &Batch, noise: &Noise, terms: &[Term], last: bool, ask: Ask) -> Result<Attacked> {
        let _casts = self.precision.casts();
        let timeline = &self.networks.timeline;
        let Attacked { adversarial, teachers, survived } = self.attack(batch, noise, ask)?;
        if last {
            self.parameters.expect_last_pass()?;
        }
        let plan = PassPlan::new(terms, &self.observer.diagnosed);
        let views = Views::new(&self.networks, Mode::TrainFrozen, &batch.images, &adversarial);
        let views = views.knowing(&teachers).following(&plan);
        let weighted = terms.iter().filter(|term| term.weight != 0.0);
        let summands = weighted.map(|term| term.evaluate(&views, &batch.labels, batch.global_count as f64));
        let total: Tensor = timeline.during(Phase::Forward, "forward of the ascent", || summands.sum());
        timeline.during(Phase::Backward, "backward of the ascent", || total.backward());
        let teachers = views.teachers();
        Ok(Attacked { adversarial, teachers, survived })
    }
}
