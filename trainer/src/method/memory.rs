//! What a method remembers from step to step: small float64 tensors on the device, the same on all ranks and part of a
//! checkpoint. A method that remembers nothing has none.

mod balance;
mod means;
mod rectified;
mod state;
mod survival;

use tch::{Device, Tensor, no_grad};

pub use self::balance::Balance;
pub use self::means::Means;
pub use self::rectified::Rectified;
pub use self::survival::Survival;
use crate::config::LossConfig;
use crate::model::Named;

/// The memory of a method.
#[derive(Default)]
pub struct Memory {
    /// The weights of classes.
    pub survival: Option<Survival>,
    /// The mean predictions of classes.
    pub means: Option<Means>,
    /// The mixture in place of labels.
    pub rectified: Option<Rectified>,
    /// The weights of two terms.
    pub balance: Option<Balance>,
}

impl Memory {
    /// What a run of `loss` remembers at its start, for so many classes.
    pub fn new(loss: &LossConfig, classes: i64, device: Device) -> Self {
        Self {
            survival: loss.class_weights.map(|config| Survival::new(config, classes, device)),
            means: loss.class_means.map(|config| Means::new(config, classes, device)),
            rectified: loss.rectify.clone().map(|config| Rectified::new(config, device)),
            balance: loss.balance.clone().map(|config| Balance::new(config, device)),
        }
    }

    /// Whether steps change nothing of it.
    pub fn is_empty(&self) -> bool {
        self.survival.is_none() && self.means.is_none() && self.balance.is_none()
    }

    /// Sets what follows from the position in the run alone: before `step` of `steps`, in `epoch`.
    pub fn begin_step(&self, epoch: u64, step: u64, steps: u64) {
        if let Some(rectified) = &self.rectified {
            rectified.begin_step(step, steps);
        }
        if let Some(balance) = &self.balance {
            balance.begin_epoch(epoch);
        }
    }

    /// The sums of a part of the batch on this rank, float64 `[K]`: what [`keep`](Self::keep) takes once they are summed over
    /// parts and ranks. `natural [N, classes]` are the student's logits on natural images if there are any, `survived [N]` the
    /// steps of the attack before which the student was right.
    pub fn sums(&self, labels: &Tensor, natural: Option<&Tensor>, survived: Option<&Tensor>) -> Option<Tensor> {
        let survival = self.survival.as_ref().map(|survival| survival.sums(labels, survived));
        let means = self.means.as_ref().map(|means| means.sums(labels, natural));
        let all: Vec<Tensor> = survival.into_iter().chain(means).collect();
        (!all.is_empty()).then(|| Tensor::cat(&all, 0))
    }

    /// The length of those sums.
    pub fn count(&self) -> i64 {
        let survival = self.survival.as_ref().map_or(0, Survival::count);
        survival + self.means.as_ref().map_or(0, Means::count)
    }

    /// Takes in the sums over the global batch and the weights of this step, where the step `moves` (bool scalar).
    pub fn keep(&self, sums: &Tensor, moves: &Tensor) {
        no_grad(|| {
            let mut rest = sums.where_self(moves, &sums.zeros_like());
            let mut take = |count: i64| {
                let taken = rest.narrow(0, 0, count);
                rest = rest.narrow(0, count, rest.size()[0] - count);
                taken
            };
            if let Some(survival) = &self.survival {
                survival.keep(&take(survival.count()));
            }
            if let Some(means) = &self.means {
                means.keep(&take(means.count()));
            }
            if let Some(balance) = &self.balance {
                balance.keep(moves);
            }
        });
    }

    /// Ends an epoch.
    pub fn after_epoch(&self) {
        no_grad(|| {
            if let Some(survival) = &self.survival {
                survival.after_epoch();
            }
            if let Some(means) = &self.means {
                means.after_epoch();
            }
        });
    }

    /// What a checkpoint keeps, under names of its own.
    pub fn tensors(&self) -> Vec<Named> {
        let survival = self.survival.iter().flat_map(Survival::tensors);
        let means = self.means.iter().flat_map(Means::tensors);
        let balance = self.balance.iter().flat_map(Balance::tensors);
        let all = survival.chain(means).chain(balance);
        all.map(|(name, tensor)| Named { name: name.to_string(), tensor: tensor.shallow_clone() }).collect()
    }
}

#[cfg(test)]
mod tests;
