//! How much arithmetic training is, and how much the devices could do: a run's floating-point operations a second, and their
//! share of the peak.

use std::collections::BTreeMap;

use anyhow::Result;
use comm::Communicator;
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::Moment;

use crate::config::{Dtype, RunConfig};
use crate::cost::{Forward, step_per_image};
use crate::views::{Networks, STUDENT};

/// The arithmetic of a run's steps.
pub(crate) struct Effort {
    networks: BTreeMap<String, Forward>,
    /// Floating-point operations a second that all ranks together can do.
    peak: f64,
}

impl Effort {
    /// Counts the networks' operations, and measures the devices unless the configuration names their peak.
    ///
    /// # Errors
    /// A failure of the transport.
    pub(crate) fn new(config: &RunConfig, networks: &Networks, ranks: &dyn Communicator) -> Result<Self> {
        let device = networks.student.device();
        let kind = if config.precision.dtype == Dtype::Bfloat16 { Kind::BFloat16 } else { networks.student.kind() };
        let _products = config.precision.products();
        let mut counted =
            BTreeMap::from([(STUDENT.to_string(), Forward::through(&networks.student, config.precision))]);
        counted.extend(
            networks.teachers.iter().map(|(name, teacher)| (name.clone(), Forward::through(teacher, config.precision))),
        );
        let peak = config.metrics.peak_tflops.map_or_else(|| measured_peak(kind, device), |peak| peak * 1e12);
        let mut peaks = [peak];
        ranks.sum(&mut peaks)?;
        Ok(Self { networks: counted, peak: peaks[0] })
    }

    /// Floating-point operations of a step of `epoch` for one image: a multiply-add is two.
    pub(crate) fn per_image(&self, config: &RunConfig, epoch: u64) -> f64 {
        2.0 * step_per_image(config, epoch, &self.networks) as f64
    }

    /// What `rate` operations a second are of the peak.
    pub(crate) fn utilisation(&self, rate: f64) -> f64 {
        rate / self.peak
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
mod tests {
    use super::*;

    #[test]
    fn a_measured_peak_is_that_of_a_computer() {
        let peak = measured_peak(Kind::Float, Device::Cpu);
        assert!((1e8..1e15).contains(&peak), "{peak} operations a second");
    }
}
