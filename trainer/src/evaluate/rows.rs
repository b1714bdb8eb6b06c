//! The rows of a batch with few images: fewer than the protocol's number where the device computes the same bits for them.

use anyhow::Result;
use tch::{Tensor, no_grad};

use crate::evaluate::Classifier;
use crate::evaluate::adaptive::through_stand_in;
use crate::method::loss::log_probability_of;
use crate::step::batch::Batch;

/// Numbers of rows are multiples of this.
pub(super) const UNIT: usize = 16;

/// The numbers of rows that were tried on this device.
///
/// A matrix product or a convolution may add in another order when the batch has another size. Then an image's outcome
/// would depend on the other images. So each size is tried once, on logits and their gradient, and refused unless all
/// bits agree with those of a whole batch.
pub struct Rows<'a> {
    network: &'a dyn Classifier,
    /// The rows of a whole batch.
    whole: usize,
    trial: Option<Trial>,
    /// What was found: the size, and whether it gives the bits of a whole batch.
    tried: Vec<(usize, bool)>,
}

/// A whole batch, its logits and their gradient.
struct Trial {
    batch: Batch,
    found: Vec<Tensor>,
}

impl<'a> Rows<'a> {
    /// Nothing tried yet. A whole batch has `whole` rows.
    pub fn new(network: &'a dyn Classifier, whole: usize) -> Self {
        Self { network, whole, trial: None, tried: vec![] }
    }

    /// The smallest number of rows for `samples` images that gives the bits of a whole batch. `read` gives a whole batch to
    /// try sizes with, once.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn for_samples(&mut self, samples: usize, read: impl Fn() -> Result<Batch>) -> Result<usize> {
        // No GPU has been measured yet; its libraries choose other kernels for other sizes.
        if self.network.device().is_cuda() {
            return Ok(self.whole);
        }
        for size in (samples.next_multiple_of(UNIT)..self.whole).step_by(UNIT) {
            if self.agrees(size, &read)? {
                return Ok(size);
            }
        }
        Ok(self.whole)
    }

    /// The sizes that were found to give the bits of a whole batch.
    pub fn agreeing(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.tried.iter().filter(|(_, agrees)| *agrees).map(|(size, _)| *size).collect();
        sizes.sort_unstable();
        sizes
    }

    fn agrees(&mut self, size: usize, read: impl Fn() -> Result<Batch>) -> Result<bool> {
        if let Some((_, agrees)) = self.tried.iter().find(|(tried, _)| *tried == size) {
            return Ok(*agrees);
        }
        let Trial { batch, found } = match self.trial.take() {
            Some(trial) => self.trial.insert(trial),
            None => {
                let batch = read()?;
                let found = logits_and_gradient(self.network, &batch.images, &batch.labels);
                self.trial.insert(Trial { batch, found })
            }
        };
        // The last rows, so that no row keeps its place.
        let last = |tensor: &Tensor| tensor.narrow(0, (self.whole - size) as i64, size as i64);
        let part = logits_and_gradient(self.network, &last(&batch.images), &last(&batch.labels));
        let agrees = found.iter().zip(&part).all(|(whole, part)| last(whole).equal(part));
        self.tried.push((size, agrees));
        Ok(agrees)
    }
}

/// The logits and their gradient, the network's own and that through its stand-in if it has one.
fn logits_and_gradient(network: &dyn Classifier, images: &Tensor, labels: &Tensor) -> Vec<Tensor> {
    let of = |forward: &dyn Fn(&Tensor) -> Tensor| {
        let images = images.detach().set_requires_grad(true);
        let logits = forward(&images);
        let loss = log_probability_of(&logits, labels).sum(logits.kind());
        let gradient = Tensor::run_backward(&[loss], &[&images], false, false).remove(0);
        [logits.detach(), gradient]
    };
    let mut found = Vec::from(of(&|images| network.logits(images)));
    if no_grad(|| network.stand_in(images)).is_some() {
        found.extend(of(&|images| through_stand_in(network, images)));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tch::{Device, Kind};

    use super::*;

    /// Classifies by a fixed matrix. With fewer than `noisy_below` rows the logits are a little larger.
    struct Linear {
        weight: Tensor,
        noisy_below: usize,
        sizes: RefCell<Vec<usize>>,
    }

    impl Classifier for Linear {
        fn classes(&self) -> usize {
            4
        }
        fn kind(&self) -> Kind {
            Kind::Float
        }
        fn device(&self) -> Device {
            Device::Cpu
        }
        fn logits(&self, images: &Tensor) -> Tensor {
            let rows = images.size()[0] as usize;
            self.sizes.borrow_mut().push(rows);
            let products = images.flatten(1, -1).unsqueeze(2) * &self.weight;
            let logits = products.sum_dim_intlist([1i64].as_slice(), false, None);
            if rows < self.noisy_below { logits * (1.0 + 1e-6) } else { logits }
        }
    }

    fn batch() -> Batch {
        let images = Tensor::arange(64 * 12, (Kind::Float, Device::Cpu)).view([64, 3, 2, 2]) / 768.0;
        let labels = Tensor::arange(64, (Kind::Int64, Device::Cpu)).remainder(4);
        Batch { images, labels, samples: (0..64).collect(), global_count: 64 }
    }

    fn network(noisy_below: usize) -> Linear {
        let weight = (Tensor::arange(48, (Kind::Float, Device::Cpu)).view([1, 12, 4]) * 0.7).sin();
        Linear { weight, noisy_below, sizes: RefCell::default() }
    }

    #[test]
    fn few_images_take_few_rows_where_the_bits_agree() {
        let network = network(0);
        let mut rows = Rows::new(&network, 64);
        let sizes = [1, 16, 17, 33, 48, 49, 64].map(|samples| rows.for_samples(samples, || Ok(batch())).unwrap());
        assert_eq!(sizes, [16, 16, 32, 48, 48, 64, 64]);
        // Each size is tried once, and the whole batch once.
        assert_eq!(*network.sizes.borrow(), [64, 16, 32, 48]);
        assert_eq!(rows.agreeing(), [16, 32, 48]);
    }

    #[test]
    fn a_size_of_other_bits_is_passed_over() {
        let network = network(40);
        let mut rows = Rows::new(&network, 64);
        let sizes = [1, 17, 33, 49].map(|samples| rows.for_samples(samples, || Ok(batch())).unwrap());
        assert_eq!(sizes, [48, 48, 48, 64]);
        assert_eq!(rows.agreeing(), [48]);
    }
}
