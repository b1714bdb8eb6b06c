//! Parameters and their gradients as two flat buffers, and the all-reduce of the gradients.

mod buckets;

use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Result, anyhow};
use comm::Communicator;
use tch::Tensor;

use crate::config::range::must;
use crate::config::{Backend, Comm, GradientDtype};
use crate::model::{Model, Named, flatten, piece};
use crate::step::gradients::buckets::Buckets;
use crate::system::{summing, timeline::Timeline};
use datasets::UserError;
use tch::Kind;

/// This environment variable starts sums during the backward pass over every transport, for tests on CPUs.
const OVERLAP: &str = "IAD_TEST_OVERLAP";

/// The parameters of a network in one buffer and their gradients in another, in the order of the network.
pub struct Gradients {
    /// All parameters. The network's tensors are views of this buffer.
    pub values: Tensor,
    /// All gradients. Backward passes add into this buffer.
    pub gradients: Tensor,
    names: Vec<(String, usize)>,
    ranks: Arc<dyn Communicator>,
    buckets: Arc<Mutex<Buckets>>,
    overlaps: bool,
}

impl Gradients {
    /// Moves the parameters of `model` into one buffer, broadcasts those of rank 0, and directs the gradients into
    /// another buffer. If the transport works beside the backward pass, sums start during it, bucket by bucket.
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
            // A panic poisons the mutex; `finish` reports it.
            let ready = move || buckets.lock().into_iter().for_each(|mut buckets| buckets.filled(index));
            torch_ext::on_gradient(tensor, ready).map_err(|message| anyhow!("gradient of {name}: {message}"))?;
        }
        Ok(Self { values, gradients, names, ranks, buckets, overlaps })
    }

    /// Books the time of starting sums on `timeline`.
    ///
    /// # Errors
    /// A panic in an earlier backward pass.
    pub fn take_time_from(&self, timeline: &Timeline) -> Result<()> {
        self.buckets()?.timeline = timeline.clone();
        Ok(())
    }

    /// Delays all sums until the backward pass is over: captured work cannot start them.
    pub fn sum_at_the_end(&mut self) {
        self.overlaps = false;
    }

    /// Sets the gradients to zero, and forgets sums of a pass that was given up.
    pub fn zero(&mut self) {
        let _ = self.gradients.zero_();
        // A panic poisons the mutex; `finish` reports it.
        self.buckets.lock().into_iter().for_each(|mut buckets| buckets.forget());
    }

    /// Announces the last backward pass before [`finish`](Self::finish): the gradients it leaves are complete, and
    /// their sums may start.
    ///
    /// # Errors
    /// A panic in an earlier backward pass.
    pub fn expect_last_pass(&self) -> Result<()> {
        if self.overlaps {
            self.buckets()?.expect();
        }
        Ok(())
    }

    /// Replaces the gradients by their sums over the ranks: waits for the sums under way, and starts those of buckets
    /// that no pass has filled. The loss divides by the number of samples on all ranks, so the sums are the gradients
    /// of the mean over the global batch.
    ///
    /// # Errors
    /// A failure of the transport, now or since the backward pass began.
    pub fn finish(&self) -> Result<()> {
        let mut buckets = self.buckets()?;
        buckets.start_rest()?;
        summing::finish(&self.ranks)?;
        buckets.take_sums();
        Ok(())
    }

    fn buckets(&self) -> Result<MutexGuard<'_, Buckets>> {
        self.buckets.lock().map_err(|_| anyhow!("a panic in the backward pass, while gradients left for their sum"))
    }

    /// The name of the parameter that contains the `place`-th value of the flat buffers.
    pub fn name_at(&self, place: usize) -> &str {
        let index = self.names.partition_point(|(_, end)| *end <= place);
        self.names.get(index).map_or("?", |(name, _)| name)
    }
}

impl Comm {
    /// Checks that the transport between `ranks` can sum these gradients.
    ///
    /// # Errors
    /// A type of gradients that the transport does not sum.
    pub fn check_transport(&self, ranks: &dyn Communicator) -> Result<(), UserError> {
        let travels = self.gradient_dtype == GradientDtype::Parameters || ranks.sums(Kind::BFloat16);
        must(travels, "comm.gradient_dtype", "bfloat16", "\"parameters\": MPI has no sum of bfloat16, NCCL has")
            .map_err(|error| error.hint("leave comm.gradient_dtype out, or run on GPUs with comm.backend = \"nccl\""))
    }

    /// The number of values of type `kind` in a bucket, at least one.
    pub(crate) fn bucket_values(&self, kind: Kind) -> usize {
        let bytes = self.bucket_mib * f64::from(1 << 20);
        (bytes as usize / kind.elt_size_in_bytes()).max(1)
    }

    /// The type in which gradients of type `kind` are sent between `ranks`, if it is another one.
    pub(crate) fn travelling(&self, kind: Kind, ranks: &dyn Communicator) -> Option<Kind> {
        let narrow = self.gradient_dtype == GradientDtype::Bfloat16 && ranks.world_size() > 1;
        (narrow && kind != Kind::BFloat16).then_some(Kind::BFloat16)
    }
}

impl From<Backend> for comm::Backend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Auto => Self::Auto,
            Backend::Nccl => Self::Nccl,
            Backend::Mpi => Self::Mpi,
        }
    }
}

#[cfg(test)]
mod tests;
