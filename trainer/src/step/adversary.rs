//! The attack of a training step: what it raises, and what it leaves for the loss.

use std::cell::Cell;
use std::sync::Arc;

use anyhow::Result;
use tch::{Tensor, no_grad};
use torch_ext::Kernels;

use crate::config::{AttackConfig, AttackKind, Images, STUDENT, Term};
use crate::method::attack::{Attack, Free, Noise};
use crate::method::networks::Networks;
use crate::method::views::{Known, Views};
use crate::model::Mode;
use crate::step::batch::Batch;
use crate::step::remembering::Survived;
use crate::step::stopping::{Ask, Interruptible, go_on};
use crate::system::Phase;

/// The training attack.
pub(super) struct Adversary {
    attack: Option<Box<dyn Attack>>,
    /// The attack whose steps are those of the updates on a batch.
    pub(super) free: Option<Free>,
    pub(super) mode: Mode,
    natural_mode: Option<Mode>,
    objective: Term,
    /// The network whose loss the first step raises, if it is not the student.
    lead: Option<String>,
    /// Whether all ranks make the same calls within an attack, so that they can agree there.
    pub(super) asks: bool,
}

/// What the attack on a part of the batch leaves for its loss.
pub(super) struct Attacked {
    pub(super) adversarial: Tensor,
    pub(super) teachers: Known,
    /// How many steps of the attack each sample survived, `[N]`, if the method asks for it.
    pub(super) survived: Option<Tensor>,
}

impl Adversary {
    /// The attack of `[attack]`, by these `kernels` where there are any.
    pub(super) fn new(config: &AttackConfig, kernels: Option<&Arc<Kernels>>) -> Self {
        let attack: Option<Box<dyn Attack>> = match config.kind {
            AttackKind::None | AttackKind::Free => None,
            AttackKind::Pgd | AttackKind::FgsmRs => Some(config.pgd().fused(kernels)),
            AttackKind::NFgsm => Some(Box::new(config.n_fgsm())),
        };
        Self {
            attack,
            free: Free::new(config),
            mode: config.batch_norm,
            natural_mode: config.natural_batch_norm,
            objective: Term {
                first_order: config.first_order,
                divergence: config.divergence,
                ..Term::plain("attack", Images::Adversarial, config.towards.clone())
            },
            lead: config.lead.clone(),
            asks: true,
        }
    }

    /// Attacks the student on a part of the batch. The attack raises its objective, and those of `terms` that say so.
    pub(super) fn attack(
        &self,
        networks: &Networks,
        batch: &Batch,
        noise: &Noise,
        terms: &[Term],
        ask: Ask,
    ) -> Result<Attacked> {
        let mode = self.natural_mode.unwrap_or(self.mode);
        let natural = Views::new(networks, mode, &batch.images, &batch.images);
        let survived = Survived::new(networks, &batch.labels);
        let raised = self.raised(terms);
        let attack = || {
            let mut compared = raised.iter().flatten().flat_map(Term::asks);
            if self.natural_mode.is_some() && compared.any(|asked| asked == (STUDENT, Images::Natural)) {
                // It may move the running statistics, by which the passes of the attack normalise.
                let _ = no_grad(|| natural.logits(STUDENT, Images::Natural));
            }
            self.adversarial(networks, batch, noise, &raised, (&natural, &survived), ask)
        };
        let adversarial = networks.timeline.during(Phase::Attack, "attack", attack)?;
        Ok(Attacked { adversarial, teachers: natural.teachers(), survived: survived.counts() })
    }

    /// What the attack raises in its first step, and in the later ones.
    pub(super) fn raised(&self, terms: &[Term]) -> [Vec<Term>; 2] {
        let raised = terms.iter().filter(|term| term.in_attack && term.weight != 0.0);
        let all = || std::iter::once(&self.objective).chain(raised.clone());
        match &self.lead {
            Some(lead) => [all().map(|term| term.of_network(lead)).collect(), vec![self.objective.clone()]],
            None => [all().cloned().collect(), all().cloned().collect()],
        }
    }

    /// The student's adversarial images of the batch.
    pub(super) fn adversarial(
        &self,
        networks: &Networks,
        batch: &Batch,
        noise: &Noise,
        raised: &[Vec<Term>; 2],
        (natural, survived): (&Views, &Survived),
        ask: Ask,
    ) -> Result<Tensor> {
        let Some(attack) = &self.attack else {
            let free = self.free.as_ref().map(|free| free.images(&batch.images, noise));
            return Ok(free.unwrap_or_else(|| batch.images.shallow_clone()));
        };
        let interruptible = Interruptible::new(if self.asks { ask } else { &go_on });
        let steps = Cell::new(0);
        let adversarial = attack.perturb(&batch.images, noise, &|candidate| {
            let raised = &raised[steps.get().min(1)];
            steps.set(steps.get() + 1);
            networks.timeline.mark("step", steps.get());
            interruptible.evaluate(candidate, |candidate| {
                let views = natural.with_candidate(candidate, self.mode);
                let values = raised.iter().map(|term| term.evaluate(&views, &batch.labels, 1.0));
                let objective = values.reduce(|sum, value| sum + value).expect("an attack has an objective");
                survived.see(&views);
                objective
            })
        });
        interruptible.finish().map(|()| adversarial)
    }
}
