//! Parameters and their gradients as two flat buffers, and the sum of the gradients over the ranks.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use comm::Communicator;
use tch::Tensor;

use crate::model::{Model, Named, flatten};

/// The parameters of a network in one buffer, their gradients in another, in the network's order.
pub struct Gradients {
    /// All parameters, which are views of this buffer.
    pub values: Tensor,
    /// All gradients; backward passes add into it.
    pub gradients: Tensor,
    names: Vec<(String, usize)>,
    ranks: Arc<dyn Communicator>,
}

impl Gradients {
    /// Moves the parameters of `model` into one buffer, gives every rank those of rank 0, and directs their gradients
    /// into another.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn flatten(model: &mut Model, ranks: Arc<dyn Communicator>) -> Result<Self> {
        let (kind, device) = (model.kind(), model.device());
        let values = flatten(&mut model.parameters, kind, device);
        ranks.broadcast(&values)?;
        let gradients = values.zeros_like();
        let mut offset = 0;
        let mut names = vec![];
        for Named { name, tensor } in &model.parameters {
            let count = tensor.numel();
            let view = gradients.narrow(0, offset as i64, count as i64).view_as(tensor);
            torch_ext::set_gradient(tensor, &view).map_err(|message| anyhow!("gradient of {name}: {message}"))?;
            offset += count;
            names.push((name.clone(), offset));
        }
        Ok(Self { values, gradients, names, ranks })
    }

    /// Forgets the gradients of the last step.
    pub fn zero(&mut self) {
        let _ = self.gradients.zero_();
    }

    /// Replaces the gradients by their sums over the ranks. A loss divides by the number of samples on all ranks, so
    /// these are the gradients of the mean over the global batch.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn finish(&self) -> Result<()> {
        self.ranks.start_sum(&self.gradients)?;
        self.ranks.finish_sums()
    }

    /// The name of the parameter that holds the `place`-th value of the flat buffers.
    pub fn name_at(&self, place: usize) -> &str {
        let index = self.names.partition_point(|(_, end)| *end <= place);
        self.names.get(index).map_or("?", |(name, _)| name)
    }
}
