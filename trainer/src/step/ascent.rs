//! The first pass of a step with perturbed weights: the attacks, and the gradient along which the weights move.

use anyhow::Result;
use datasets::Shard;
use tch::Tensor;

use super::Work;
use super::batch::Batch;
use super::graph_capture::Inputs;
use super::stopping::Ask;
use super::weight_perturbation::Attacked;
use crate::config::Term;
use crate::method::attack::Noise;
use crate::method::pass_plan::PassPlan;
use crate::method::views::Views;
use crate::model::Mode;
use crate::system::Phase;

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
