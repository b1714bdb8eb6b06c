//! Parameters and their gradients as two flat buffers, and the sum of the gradients over the ranks.

mod buckets;

use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Result, anyhow};
use comm::Communicator;
use tch::Tensor;

use self::buckets::Buckets;
use crate::config::Comm;
use crate::model::{Model, Named, flatten, piece};
use crate::timeline::Timeline;

/// With this variable in the environment, sums start during the backward pass over every transport: for tests on CPUs.
const OVERLAP: &str = "IAD_TEST_OVERLAP";

/// The parameters of a network in one buffer, their gradients in another, in the network's order.
pub struct Gradients {
    /// All parameters, which are views of this buffer.
    pub values: Tensor,
    /// All gradients; backward passes add into it.
    pub gradients: Tensor,
    names: Vec<(String, usize)>,
    ranks: Arc<dyn Communicator>,
    buckets: Arc<Mutex<Buckets>>,
    overlaps: bool,
}

impl Gradients {
    /// Moves the parameters of `model` into one buffer, gives every rank those of rank 0, and directs their gradients
    /// into another. Where the transport works beside the backward pass, sums start in it, bucket by bucket.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn flatten(model: &mut Model, ranks: Arc<dyn Communicator>, comm: &Comm) -> Result<Self> {
        let overlaps = ranks.overlaps() || std::env::var_os(OVERLAP).is_some();
        let (kind, device) = (model.kind(), model.device());
        let values = flatten(&mut model.parameters, kind, device);
        ranks.broadcast(&values)?;
        let gradients = values.zeros_like();
        let mut offset = 0;
        let mut names = vec![];
        for Named { name, tensor } in &model.parameters {
            let count = tensor.numel();
            let view = piece(&gradients, offset as i64, tensor);
            torch_ext::set_gradient(tensor, &view).map_err(|message| anyhow!("gradient of {name}: {message}"))?;
            offset += count;
            names.push((name.clone(), offset));
        }
        let ends: Vec<usize> = names.iter().map(|(_, end)| *end).collect();
        let most = if overlaps { comm.bucket_values(kind) } else { usize::MAX };
        let travelling = comm.travelling(kind, ranks.as_ref());
        let buckets = Buckets::new(&gradients, &ends, most, travelling, Arc::clone(&ranks));
        let buckets = Arc::new(Mutex::new(buckets));
        for (index, Named { name, tensor }) in model.parameters.iter().enumerate().filter(|_| overlaps) {
            let buckets = Arc::clone(&buckets);
            // A panic poisons the mutex, which `finish` sees.
            let ready = move || buckets.lock().into_iter().for_each(|mut buckets| buckets.filled(index));
            torch_ext::on_gradient(tensor, ready).map_err(|message| anyhow!("gradient of {name}: {message}"))?;
        }
        Ok(Self { values, gradients, names, ranks, buckets, overlaps })
    }

    /// The starts of sums take their time from `timeline` from here on.
    ///
    /// # Errors
    /// A panic in an earlier backward pass.
    pub fn take_time_from(&self, timeline: &Timeline) -> Result<()> {
        self.buckets()?.timeline = timeline.clone();
        Ok(())
    }

    /// From here on sums start when the backward pass is over: what is recorded and replayed cannot start them.
    pub fn sum_at_the_end(&mut self) {
        self.overlaps = false;
    }

    /// Forgets the gradients of the last step.
    pub fn zero(&mut self) {
        let _ = self.gradients.zero_();
    }

    /// Says that the next backward pass is the last before [`finish`](Self::finish): the gradients that it leaves are whole,
    /// and may leave for their sum.
    ///
    /// # Errors
    /// A panic in an earlier backward pass.
    pub fn expect_last_pass(&self) -> Result<()> {
        if self.overlaps {
            self.buckets()?.expect();
        }
        Ok(())
    }

    /// Replaces the gradients by their sums over the ranks: waits for the sums under way, and starts those of buckets that
    /// no pass has filled. A loss divides by the number of samples on all ranks, so these are the gradients of the mean over
    /// the global batch.
    ///
    /// # Errors
    /// A failure of the transport, now or since the backward pass began.
    pub fn finish(&self) -> Result<()> {
        let mut buckets = self.buckets()?;
        buckets.start_rest()?;
        self.ranks.finish_sums()?;
        buckets.take_sums();
        Ok(())
    }

    fn buckets(&self) -> Result<MutexGuard<'_, Buckets>> {
        self.buckets.lock().map_err(|_| anyhow!("a panic in the backward pass, while gradients left for their sum"))
    }

    /// The name of the parameter that holds the `place`-th value of the flat buffers.
    pub fn name_at(&self, place: usize) -> &str {
        let index = self.names.partition_point(|(_, end)| *end <= place);
        self.names.get(index).map_or("?", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests;
