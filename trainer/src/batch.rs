//! A batch on the device of its rank.

use datasets::HostBatch;
use tch::{Device, Kind, Tensor};

/// The images and labels of one rank in one step.
pub struct Batch {
    /// `[N, C, H, W]` in [0, 1]; N may be 0.
    pub images: Tensor,
    /// `[N]`, int64.
    pub labels: Tensor,
    /// The number of each sample in its data set, by which random numbers know it.
    pub samples: Vec<u64>,
    /// The number of samples of the step over all ranks.
    pub global_count: usize,
}

impl Batch {
    /// Brings bytes to the device and scales them to [0, 1], as torchvision's ToTensor does.
    pub fn upload(host: &HostBatch, shape: [usize; 3], kind: Kind, device: Device) -> Self {
        let [channels, height, width] = shape.map(|size| size as i64);
        let pixels = Tensor::from_slice(&host.images).view([host.labels.len() as i64, channels, height, width]);
        Self {
            images: on_device(&pixels, device).to_kind(kind) / 255.0,
            labels: on_device(&Tensor::from_slice(&host.labels), device),
            samples: host.samples.clone(),
            global_count: host.global_count,
        }
    }
}

/// A copy on `device`. A GPU takes it from page-locked memory while the host goes on; libtorch keeps that memory until then.
pub(crate) fn on_device(host: &Tensor, device: Device) -> Tensor {
    if device.is_cuda() {
        host.pin_memory(device).to_device_(device, host.kind(), true, false)
    } else {
        host.to_device(device)
    }
}
