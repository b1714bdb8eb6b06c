//! The first pass of a step with perturbed weights: the attacks, and the gradient along which the weights move.

use anyhow::Result;
use tch::Tensor;

use super::adversary::Attacked;
use super::graph_capture::Inputs;
use super::stopping::Ask;
use super::{Part, Work};
use crate::config::Term;
use crate::model::Mode;
use crate::system::Phase;

impl Work {
    /// Perturbs the weights, if this epoch does so, and returns what the attacks on the parts of the batch left: each part is
    /// attacked once, at the weights before. Otherwise returns nothing.
    pub(super) fn ascend(&mut self, inputs: &Inputs, terms: &[Term], ask: Ask) -> Result<Vec<Attacked>> {
        self.perturbation.begin();
        if !self.perturbation.active {
            return Ok(vec![]);
        }
        self.parameters.zero();
        let mut attacked = vec![];
        for part in self.parts(inputs) {
            ask()?;
            attacked.push(self.ascend_part(&part, terms, ask)?);
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
    fn ascend_part(
        &self,
        Part { batch, noise, last, images_of_all }: &Part,
        terms: &[Term],
        ask: Ask,
    ) -> Result<Attacked> {
        let _casts = self.precision.casts();
        let timeline = &self.networks.timeline;
        self.networks.expect(batch.samples.len(), *images_of_all);
        let attacked = self.adversary.attack(&self.networks, batch, noise, terms, ask)?;
        if *last {
            self.parameters.expect_last_pass()?;
        }
        let views = self.views(Mode::TrainFrozen, batch, &attacked, terms);
        let weighted = terms.iter().filter(|term| term.weight != 0.0);
        let summands = weighted.map(|term| term.evaluate(&views, &batch.labels, batch.global_count as f64));
        let total: Tensor = timeline.during(Phase::Forward, "forward of the ascent", || summands.sum());
        timeline.during(Phase::Backward, "backward of the ascent", || total.backward());
        let teachers = views.teachers();
        Ok(Attacked { teachers, ..attacked })
    }
}
