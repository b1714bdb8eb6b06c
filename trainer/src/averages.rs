//! Averages of the student's weights, kept beside them: a moving one over steps and a mean over epochs.

use anyhow::{Context, Result};
use comm::Communicator;
use tch::{Tensor, no_grad};

use crate::checkpoint::Tensors;
use crate::config::RunConfig;
use crate::gradients::Gradients;
use crate::model::{Model, Named, cut};

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
    /// Each step leaves `decay` of the average. The first one is copied, as torch's `AveragedModel` does.
    Moving { decay: f64, from_epoch: u64 },
    /// Each epoch counts the same.
    Mean { from_epoch: u64 },
}

impl Averages {
    /// The averages that `config` asks for, of weights in the shapes of these.
    pub fn new(config: &RunConfig, parameters: &Gradients, student: &Model) -> Self {
        let ema = config.averages.ema.as_ref();
        let ema = ema.map(|ema| ("ema", Kind::Moving { decay: ema.decay, from_epoch: ema.from_epoch }));
        let swa = config.averages.swa.as_ref().map(|swa| ("swa", Kind::Mean { from_epoch: swa.from_epoch }));
        let average = |(name, kind)| Average {
            name,
            parameters: parameters.values.copy(),
            statistics: student.flat_statistics.copy(),
            kind,
        };
        Self { all: ema.into_iter().chain(swa).map(average).collect() }
    }

    /// Takes in the weights after a step: the `batch`-th of `epoch`, both from 0.
    pub fn after_step(&mut self, epoch: u64, batch: u64, parameters: &Gradients, student: &Model) {
        for average in &mut self.all {
            if let Kind::Moving { decay, from_epoch } = average.kind
                && epoch >= from_epoch
            {
                let first = (epoch, batch) == (from_epoch, 0);
                average.take(parameters, student, if first { 1.0 } else { 1.0 - decay });
            }
        }
    }

    /// Takes in the weights after `epoch`, from 0.
    pub fn after_epoch(&mut self, epoch: u64, parameters: &Gradients, student: &Model) {
        for average in &mut self.all {
            if let Kind::Mean { from_epoch } = average.kind
                && epoch >= from_epoch
            {
                average.take(parameters, student, 1.0 / (epoch - from_epoch + 1) as f64);
            }
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
    /// Moves the average towards the weights by `share` of the way.
    fn take(&mut self, parameters: &Gradients, student: &Model, share: f64) {
        no_grad(|| {
            let _ = self.parameters.lerp_(&parameters.values, share);
            let _ = self.statistics.lerp_(&student.flat_statistics, share);
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
