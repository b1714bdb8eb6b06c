//! A short measurement of a network on this machine: its rate, and the memory of one image.

use std::time::Instant;

use tch::{Cuda, Device, Kind, Tensor};
use torch_ext::peak_memory;

use crate::config::Precision;
use crate::method::pass_plan::Passes;
use crate::model::{Mode, Model, ModelSpec};
use crate::run::cost::Forward;

/// The results of the measurement.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// Floating-point operations per second of a training pass on one device: all cores of the CPU, or one GPU.
    pub flops: f64,
    /// Bytes that the forward pass of one image keeps for its backward pass.
    pub bytes_per_image: f64,
    /// Whether the device was a GPU.
    pub gpu: bool,
    /// What the device computed in, and with which instructions.
    pub precision: String,
    /// A warning about the configuration's precision on this device.
    pub warning: Option<&'static str>,
}

/// The least multiply-adds of a forward pass of the measurement: a second or two of work.
const WORK: u64 = 4_000_000_000;

/// Seconds of measuring; the fastest pass counts.
const ENOUGH: f64 = 0.5;

/// Measures training passes of a network of this form on synthetic images, on the GPU if there is one and it is wanted.
pub fn calibrate(form: ModelSpec, precision: Precision, gpu: bool) -> Calibration {
    let device = if gpu { Device::cuda_if_available() } else { Device::Cpu };
    let (at_work, precision) = (precision.at_work(device), precision.on(device.is_cuda()));
    let model = Model::build(form, 0, precision.dtype.kind(), device, None);
    precision.lay_out(&model);
    let _products = precision.products();
    let one = Forward::through(&model, precision);
    let images = (WORK / one.all.max(1)).clamp(2, 64);
    let [channels, height, width] = form.image.map(|size| size as i64);
    let batch = Tensor::zeros([images as i64, channels, height, width], (model.kind(), device));
    // Seconds of a forward and backward pass, and the bytes held between the two.
    let pass = || {
        let (began, before) = (Instant::now(), held(device));
        let logits = precision.logits(&model, &batch, Mode::Train);
        let bytes = held(device) - before;
        logits.sum(Kind::Float).backward();
        if let Device::Cuda(index) = device {
            Cuda::synchronize(index as i64);
        }
        (began.elapsed().as_secs_f64(), bytes)
    };
    // The first pass allocates the gradients and the libraries' caches. Memory that it freed is not counted twice.
    let (_, mut bytes) = pass();
    let (mut seconds, began) = (f64::INFINITY, Instant::now());
    while seconds.is_infinite() || began.elapsed().as_secs_f64() < ENOUGH {
        let (took, held) = pass();
        (seconds, bytes) = (seconds.min(took), bytes.max(held));
    }
    let work = Passes { forward: 1, to_image: 0, to_parameters: 1 }.multiply_adds(one) * images;
    Calibration {
        flops: 2.0 * work as f64 / seconds.max(1e-9),
        bytes_per_image: bytes.max(0.0) / images as f64,
        gpu: device != Device::Cpu,
        precision: at_work,
        warning: precision.warning(device),
    }
}

/// Bytes held now by the process; on a GPU, the most that tensors have held so far.
fn held(device: Device) -> f64 {
    if device != Device::Cpu {
        return peak_memory(device).unwrap_or(0) as f64;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Architecture;

    #[test]
    fn a_machine_has_a_rate_and_images_take_memory() {
        let form = ModelSpec::new(Architecture::ResNet8, [3, 32, 32], 10);
        let found = calibrate(form, Precision::default(), false);
        assert!((1e7..1e15).contains(&found.flops), "{found:?}");
        // The first map alone has 16 channels of 16x16 values.
        assert!((16_384.0..1e8).contains(&found.bytes_per_image), "{found:?}");
    }
}
