//! Averages of the student's weights, kept beside them: a moving one over steps and a mean over epochs.

use anyhow::{Context, Result};
use comm::Communicator;
use tch::{Tensor, no_grad};

use crate::config::{Ema, EmaStatistics, RunConfig};
use crate::method::networks::Networks;
use crate::model::{Model, Named, cut};
use crate::step::gradients::Gradients;
use crate::weights::checkpoint::{Progress, Tensors};

/// The averages of a run, in the order of their names.
pub struct Averages {
    all: Vec<Average>,
}

/// One average of parameters and running statistics, as flat buffers in the student's order.
pub struct Average {
    /// `ema` or `swa`, under which it is saved.
    pub name: &'static str,
    parameters: Tensor,
    statistics: Tensor,
    kind: Kind,
}

enum Kind {
    /// Each step leaves a share of the average. As a network of the loss it begins as the initial weights, not as those after
    /// the first step (ADR).
    Moving { ema: Ema, teaches: bool },
    /// Each epoch counts the same.
    Mean { from_epoch: u64 },
}

impl Averages {
    /// The averages that `config` asks for, of weights in the shapes of these.
    pub fn new(config: &RunConfig, parameters: &Gradients, student: &Model) -> Self {
        let ema = config.averages.ema.as_ref();
        let ema = ema.map(|ema| ("ema", Kind::Moving { ema: ema.clone(), teaches: config.averages_teach() }));
        let swa = config.averages.swa.as_ref().map(|swa| ("swa", Kind::Mean { from_epoch: swa.from_epoch }));
        let average = |(name, kind)| Average {
            name,
            parameters: parameters.values.copy(),
            statistics: student.flat_statistics.copy(),
            kind,
        };
        Self { all: ema.into_iter().chain(swa).map(average).collect() }
    }

    /// Takes in the weights after the step at `progress`, of a run of `steps` steps.
    pub fn after_step(&mut self, progress: Progress, steps: u64, parameters: &Gradients, student: &Model) {
        for average in &mut self.all {
            if let Kind::Moving { ema, teaches } = &average.kind
                && progress.epoch >= ema.from_epoch
            {
                let share = 1.0 - ema.decay_at(progress, steps, *teaches);
                let of_statistics = if ema.statistics == EmaStatistics::Student { 1.0 } else { share };
                average.take(parameters, student, share, of_statistics);
            }
        }
    }

    /// Takes in the weights after `epoch`, from 0.
    pub fn after_epoch(&mut self, epoch: u64, parameters: &Gradients, student: &Model) {
        for average in &mut self.all {
            if let Kind::Mean { from_epoch } = average.kind
                && epoch >= from_epoch
            {
                let share = 1.0 / (epoch - from_epoch + 1) as f64;
                average.take(parameters, student, share, share);
            }
        }
    }

    /// Gives the moving average to the loss, if it is a network of it.
    pub fn teach(&self, networks: &Networks) {
        for average in self.all.iter().filter(|average| matches!(average.kind, Kind::Moving { teaches: true, .. })) {
            networks.take_average(&average.parameters, &average.statistics);
        }
    }

    /// The averages.
    pub fn iter(&self) -> impl Iterator<Item = &Average> {
        self.all.iter()
    }

    /// The averages' tensors under the names of a checkpoint.
    pub fn tensors(&self, student: &Model) -> Tensors {
        let named = |average: &Average| {
            let name = average.name;
            average.named(student).into_iter().map(move |named| (format!("{name}/{}", named.name), named.tensor))
        };
        self.all.iter().flat_map(named).collect()
    }

    /// Takes up the averages of a checkpoint.
    ///
    /// # Errors
    /// A name that is missing there.
    pub fn load(&self, student: &Model, tensors: &Tensors) -> Result<()> {
        for average in &self.all {
            for Named { name, tensor } in average.named(student) {
                let value = tensors.get(&format!("{}/{name}", average.name));
                let value =
                    value.with_context(|| format!("the newest checkpoint has no {} of {name}", average.name))?;
                no_grad(|| tensor.shallow_clone().copy_(value));
            }
        }
        Ok(())
    }

    /// Gives every rank those of rank 0.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn broadcast(&self, ranks: &dyn Communicator) -> Result<()> {
        self.buffers().try_for_each(|buffer| ranks.broadcast(buffer))
    }

    /// All averaged values.
    pub fn buffers(&self) -> impl Iterator<Item = &Tensor> {
        self.all.iter().flat_map(|average| [&average.parameters, &average.statistics])
    }
}

impl Average {
    /// Moves the average towards the weights by `share` of the way, and its statistics by `of_statistics`.
    fn take(&mut self, parameters: &Gradients, student: &Model, share: f64, of_statistics: f64) {
        no_grad(|| {
            let _ = self.parameters.lerp_(&parameters.values, share);
            let _ = self.statistics.lerp_(&student.flat_statistics, of_statistics);
        });
    }

    fn named(&self, student: &Model) -> Vec<Named> {
        let mut named = cut(&self.parameters, &student.parameters);
        named.extend(cut(&self.statistics, &student.statistics));
        named
    }

    /// Puts the averaged weights into `model`, a network of the student's form; its constants are the student's.
    ///
    /// # Errors
    /// Another form.
    pub fn put_into(&self, model: &Model, student: &Model) -> Result<()> {
        let named = self.named(student);
        model.load(|name| {
            let of = |list: &'_ [Named]| list.iter().position(|named| named.name == name);
            of(&named)
                .map(|place| &named[place].tensor)
                .or_else(|| of(&student.constants).map(|place| &student.constants[place].tensor))
        })?;
        no_grad(|| model.batches_tracked.shallow_clone().copy_(&student.batches_tracked));
        Ok(())
    }

    /// Whether its running statistics are not those of its weights and must be measured again: the mean over epochs.
    pub fn needs_statistics(&self) -> bool {
        matches!(self.kind, Kind::Mean { .. })
    }
}

impl Ema {
    /// What is left of the average after the step at `progress`, of a run of `steps` steps. Without a warm-up the first
    /// step is copied, as torch's `AveragedModel` does, unless the average `teaches` from the initial weights on.
    fn decay_at(&self, progress: Progress, steps: u64, teaches: bool) -> f64 {
        let Some(warm_up) = self.warm_up else {
            let first = (progress.epoch, progress.batch) == (self.from_epoch, 0);
            return if first && !(teaches && self.from_epoch == 0) { 0.0 } else { self.decay };
        };
        let after = (progress.step + 1) as f64 - warm_up * steps as f64;
        if after < 0.0 { 0.0 } else { self.decay.min((1.0 + after) / (10.0 + after)) }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        tau: f64,
        warmup_steps: u64,
        steps: Vec<u64>,
        decay: Vec<f64>,
    }

    /// Source: `ema` of the recipe's golden numbers, which the authors' code computed.
    #[test]
    fn the_warm_up_follows_the_golden_numbers() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/golden_recipe.json")).unwrap();
        let Golden { tau, warmup_steps, steps, decay } = serde_json::from_value(golden["ema"].clone()).unwrap();
        assert!(!steps.is_empty() && steps.len() == decay.len());
        let ema = Ema { decay: tau, from_epoch: 0, warm_up: Some(0.01), statistics: EmaStatistics::Average };
        for (step, expected) in steps.into_iter().zip(decay).filter(|(step, _)| *step > 0) {
            let found = ema.decay_at(Progress { step: step - 1, ..Progress::default() }, warmup_steps * 100, false);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found}, expected {expected}");
        }
    }

    #[test]
    fn without_a_warm_up_the_first_step_is_copied() {
        let ema = Ema { decay: 0.9, from_epoch: 1, warm_up: None, statistics: EmaStatistics::Average };
        let decay = |epoch, batch| ema.decay_at(Progress { epoch, batch, step: 4 * epoch + batch }, 8, false);
        assert_eq!([decay(1, 0), decay(1, 1), decay(2, 0)], [0.0, 0.9, 0.9]);
        // One that teaches is the initial network at first (ADR).
        let teaching = Ema { from_epoch: 0, ..ema };
        assert_eq!([true, false].map(|teaches| teaching.decay_at(Progress::default(), 8, teaches)), [0.9, 0.0]);
    }
}
