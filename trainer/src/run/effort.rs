//! How much arithmetic training is, and how much the devices could do: a run's floating-point operations a second, and their
//! share of the peak.

use std::collections::BTreeMap;

use anyhow::Result;
use comm::Communicator;
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::{Moment, Tf32};

use crate::config::{Dtype, RunConfig, STUDENT};
use crate::method::networks::Networks;
use crate::run::cost::{Forward, step_per_image};

/// The arithmetic of a run's steps.
pub(crate) struct Effort {
    networks: BTreeMap<String, Forward>,
    peak: Peak,
}

impl Effort {
    /// Counts the networks' operations, and measures the devices unless the configuration names their peak.
    ///
    /// # Errors
    /// A failure of the transport.
    pub(crate) fn new(config: &RunConfig, networks: &Networks, ranks: &dyn Communicator) -> Result<Self> {
        let device = networks.student.device();
        let precision = networks.precision;
        let kind = if precision.dtype == Dtype::Bfloat16 { Kind::BFloat16 } else { networks.student.kind() };
        let _products = precision.products();
        let mut counted = BTreeMap::from([(STUDENT.to_string(), Forward::through(&networks.student, precision))]);
        counted.extend(
            networks
                .teachers
                .iter()
                .chain(&networks.learners)
                .map(|(name, teacher)| (name.clone(), Forward::through(teacher, precision))),
        );
        // Nearly all of a network's work is convolutions: the peak is that of products which are rounded like them.
        let rounds = precision.rounds_convolutions();
        let measured = || {
            let _products = Tf32::allow(rounds, rounds);
            measured_peak(kind, device)
        };
        let peak = config.metrics.peak_tflops.map_or_else(measured, |peak| peak * 1e12);
        let mut peaks = [peak];
        ranks.sum(&mut peaks)?;
        let peak = Peak { operations: peaks[0], is_named: config.metrics.peak_tflops.is_some() };
        Ok(Self { networks: counted, peak })
    }

    /// Floating-point operations of a step of `epoch` for one image: a multiply-add is two.
    pub(crate) fn per_image(&self, config: &RunConfig, epoch: u64) -> f64 {
        2.0 * step_per_image(config, epoch, &self.networks) as f64
    }

    /// What `rate` operations a second are of the peak.
    pub(crate) fn utilisation(&mut self, rate: f64) -> f64 {
        self.peak.share(rate)
    }
}

/// The floating-point operations a second that all ranks together can do.
struct Peak {
    operations: f64,
    /// Whether the configuration names it.
    is_named: bool,
}

impl Peak {
    /// What `rate` is of the peak. A measured peak may be too low, where other work kept the device busy when the run
    /// started: a faster step is then the peak from there on. A named peak stays, so a share of it may exceed 1.
    fn share(&mut self, rate: f64) -> f64 {
        if !self.is_named {
            self.operations = self.operations.max(rate);
        }
        rate / self.operations
    }
}

/// The rate at which `device` multiplies large matrices of `kind`, in floating-point operations a second: what convolutions
/// can hope for.
fn measured_peak(kind: Kind, device: Device) -> f64 {
    // Large enough to fill the device, small enough to take a fraction of a second.
    let (size, repeats) = match (device, kind) {
        (Device::Cpu, _) => (768, 12),
        // Most GPUs are slow in double precision.
        (_, Kind::Double) => (4096, 8),
        _ => (8192, 20),
    };
    let matrix = (Tensor::ones([size, size], (Kind::Float, device)) / size as f64).to_kind(kind);
    let product = || no_grad(|| matrix.matmul(&matrix));
    let moment = || Moment::now(device).unwrap_or_else(|_| Moment::of_host());
    // The fastest of a few, so that a disturbance does not count.
    let rates = (0..4).map(|_| {
        let began = moment();
        let products: Vec<Tensor> = (0..repeats / 4).map(|_| product()).collect();
        let ended = moment();
        let _ = ended.wait();
        products.len() as f64 * 2.0 * (size as f64).powi(3) / ended.seconds_since(&began).max(1e-9)
    });
    rates.fold(0.0, f64::max)
}

#[cfg(test)]
impl Effort {
    /// Devices that can do `operations` a second by the configuration, and no networks.
    pub(crate) fn of_peak(operations: f64) -> Self {
        Self { networks: BTreeMap::new(), peak: Peak { operations, is_named: true } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_raise_a_measured_peak_and_leave_a_named_one() {
        let mut measured = Peak { operations: 10.0, is_named: false };
        assert_eq!([5.0, 20.0, 10.0].map(|rate| measured.share(rate)), [0.5, 1.0, 0.5]);
        let mut named = Peak { operations: 10.0, is_named: true };
        assert_eq!([5.0, 20.0, 10.0].map(|rate| named.share(rate)), [0.5, 2.0, 1.0]);
    }

    #[test]
    fn a_measured_peak_is_that_of_a_computer() {
        let peak = measured_peak(Kind::Float, Device::Cpu);
        assert!((1e8..1e15).contains(&peak), "{peak} operations a second");
    }
}
