//! Sums over ranks as a GPU's queue orders them: batch norm's, and those of gradients that leave in the backward pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use comm::{Alignment, Communicator, HostSum};
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::{StatisticsRanks, Sum, batch_norm_across_ranks, fused_batch_norm};
use trainer::config::Comm;
use trainer::model::Mode;
use trainer::step::gradients::Gradients;

use crate::{apart, gpu, network};

fn wave(shape: &[i64], scale: f64, device: Device) -> Tensor {
    let count: i64 = shape.iter().product();
    let places = Tensor::arange(count, (Kind::Double, Device::Cpu));
    (((places * 0.7 + scale).sin() * scale) + 0.3).view(shape).to_device(device)
}

/// Batch norm over two ranks that have the same images: output, statistics and gradients.
fn normalised(images: Kind, parameters: Kind, device: Device) -> Vec<Tensor> {
    let twice: Sum = Arc::new(|sums: &mut Tensor| {
        let _ = no_grad(|| sums.g_mul_scalar_(2.0));
        Ok(())
    });
    let shape = [8, 3, 6, 6];
    // Rounded alike, whatever they are computed in.
    let rounded = |shape: &[i64], scale| (wave(shape, scale, device) + 2.0).to_kind(Kind::BFloat16);
    let input = rounded(&shape, 2.0).to_kind(images).set_requires_grad(true);
    let weight = rounded(&[3], 1.5).to_kind(parameters).set_requires_grad(true);
    let bias = rounded(&[3], 0.5).to_kind(parameters).set_requires_grad(true);
    let found = batch_norm_across_ranks(&input, &weight, &bias, 1e-5, &twice);
    (&found.output * rounded(&shape, 3.0).to_kind(images)).sum(parameters).backward();
    assert_eq!(found.output.kind(), images);
    assert_eq!(f64::try_from(&found.count).unwrap(), 2.0 * 8.0 * 36.0);
    vec![found.mean, found.variance, found.output, input.grad(), weight.grad(), bias.grad()]
}

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn batch_norm_across_ranks_is_that_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let exact = normalised(Kind::Double, Kind::Double, Device::Cpu);
    for (found, expected) in normalised(Kind::Double, Kind::Double, gpu.device).iter().zip(&exact) {
        let apart = apart(found, expected);
        assert!(apart <= 1e-10, "{apart:.1e} apart");
    }
    let bounds = [1e-6, 1e-5, 0.01, 0.03, 0.01, 0.01];
    for ((found, expected), bound) in normalised(Kind::BFloat16, Kind::Float, gpu.device).iter().zip(&exact).zip(bounds)
    {
        let apart = apart(found, expected);
        assert!(apart <= bound, "in bfloat16 {apart:.1e} apart, {bound:.0e} allowed");
    }
}

/// The same by libtorch's fused kernels, and the running statistics that took it up: the first of two ranks, of which the second has
/// the same images or none.
fn fused(images: Kind, parameters: Kind, device: Device, channels_last: bool, alone: bool) -> Vec<Tensor> {
    let twin: Sum = Arc::new(move |sums: &mut Tensor| {
        no_grad(|| match (sums.dim(), alone) {
            (2, true) => {
                // What a rank without images sends: reciprocal deviations of 1, and next to no values.
                let channels = (sums.size()[1] - 1) / 2;
                let _ = sums.get(1).narrow(0, channels, channels).fill_(1.0);
                let _ = sums.get(1).narrow(0, 2 * channels, 1).fill_(1e-30);
            }
            (2, false) => sums.get(1).copy_(&sums.get(0)),
            (_, true) => (),
            (_, false) => drop(sums.g_mul_scalar_(2.0)),
        });
        Ok(())
    });
    let shape = [8, 3, 6, 6];
    let rounded = |shape: &[i64], scale| (wave(shape, scale, device) + 2.0).to_kind(Kind::BFloat16);
    let laid_out = |maps: Tensor| match channels_last {
        true => maps.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
        false => maps,
    };
    let input = laid_out(rounded(&shape, 2.0).to_kind(images)).set_requires_grad(true);
    let weight = rounded(&[3], 1.5).to_kind(parameters).set_requires_grad(true);
    let bias = rounded(&[3], 0.5).to_kind(parameters).set_requires_grad(true);
    let running = [0.2, 0.4].map(|scale| rounded(&[3], scale).to_kind(parameters));
    let ranks = StatisticsRanks::new(&twin, 0, 2);
    let output = fused_batch_norm(&input, [&weight, &bias], Some(running.each_ref()), 0.1, 1e-5, &ranks);
    // Frozen statistics stay as they are.
    let frozen = fused_batch_norm(&input, [&weight, &bias], None, 0.1, 1e-5, &ranks);
    assert!(frozen.equal(&output));
    (&output * rounded(&shape, 3.0).to_kind(images)).sum(parameters).backward();
    let [mean, variance] = running;
    vec![output, input.grad(), weight.grad(), bias.grad(), mean, variance]
}

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn fused_batch_norm_is_that_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for alone in [false, true] {
        let exact = fused(Kind::Double, Kind::Double, Device::Cpu, false, alone);
        let merged = normalised(Kind::Double, Kind::Double, Device::Cpu);
        for (fused, merged) in exact[..4].iter().zip(&merged[2..]).filter(|_| !alone) {
            assert!(apart(fused, merged) <= 1e-12, "the formulas differ from the sums in double precision");
        }
        for channels_last in [false, true] {
            for (images, parameters, bounds) in [
                (Kind::Double, Kind::Double, [1e-10; 6]),
                (Kind::Float, Kind::Float, [1e-5, 1e-4, 1e-4, 1e-4, 1e-6, 1e-5]),
                (Kind::BFloat16, Kind::Float, [0.01, 0.03, 0.01, 0.01, 1e-6, 1e-5]),
            ] {
                let found = fused(images, parameters, gpu.device, channels_last, alone);
                for (place, (found, expected)) in found.iter().zip(&exact).enumerate() {
                    let (apart, bound) = (apart(found, expected), bounds[place]);
                    let what = format!("result {place} in {images:?}, channels last {channels_last}, alone {alone}");
                    assert!(apart <= bound, "{what}: {apart:.1e} apart, {bound:.0e} allowed");
                }
            }
        }
    }
}

/// One of two ranks that have the same gradients: a sum is twice its tensor.
#[derive(Default)]
struct Twin {
    overlaps: bool,
    sums: AtomicUsize,
}

impl Communicator for Twin {
    fn rank(&self) -> usize {
        0
    }
    fn world_size(&self) -> usize {
        2
    }
    fn start_sum(&self, tensor: &Tensor) -> Result<()> {
        self.sums.fetch_add(1, Ordering::Relaxed);
        let _ = no_grad(|| tensor.shallow_clone().g_mul_scalar_(2.0));
        Ok(())
    }
    fn overlaps(&self) -> bool {
        self.overlaps
    }
    fn sums(&self, _kind: Kind) -> bool {
        true
    }
    fn finish_sums(&self) -> Result<()> {
        Ok(())
    }
    fn broadcast(&self, _tensor: &Tensor) -> Result<()> {
        Ok(())
    }
    fn sum(&self, values: &mut [f64]) -> Result<()> {
        values.iter_mut().for_each(|value| *value *= 2.0);
        Ok(())
    }
    fn start_host_sum(&self, mut values: Vec<f64>) -> Result<HostSum> {
        self.sum(&mut values)?;
        Ok(HostSum::new(|| Ok(values)))
    }
    fn align(&self, _clock: &dyn Fn() -> f64) -> Result<Alignment> {
        Ok(Alignment::NONE)
    }
    fn gather(&self, text: &str) -> Result<Vec<String>> {
        Ok(vec![text.into(), text.into()])
    }
    fn barrier(&self) -> Result<()> {
        Ok(())
    }
    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn buckets_that_leave_in_the_backward_pass_sum_what_one_sum_does() {
    let Some(gpu) = gpu() else { return };
    let summed = |overlaps: bool| {
        let mut model = network(1, Kind::Double, gpu.device);
        let ranks = Arc::new(Twin { overlaps, ..Twin::default() });
        let comm = Comm { bucket_mib: 0.01, ..Comm::default() };
        let mut gradients = Gradients::flatten(&mut model, Arc::clone(&ranks) as Arc<dyn Communicator>, &comm).unwrap();
        let images = wave(&[4, 3, 16, 16], 1.0, gpu.device);
        let mut left = vec![];
        for _ in 0..2 {
            gradients.zero();
            let before = ranks.sums.load(Ordering::Relaxed);
            gradients.expect_last_pass().unwrap();
            model.logits(&images, Mode::TrainFrozen).square().sum(Kind::Double).backward();
            left.push(ranks.sums.load(Ordering::Relaxed) - before);
            gradients.finish().unwrap();
        }
        (gradients.gradients.copy(), left)
    };
    let ((whole, none), (parts, left)) = (summed(false), summed(true));
    // Hooks fire on the threads of a GPU's backward pass, too: every bucket is full and leaves before the pass returns.
    assert_eq!(none, [0, 0]);
    assert!(left[0] > 3 && left[0] == left[1], "{left:?} buckets left");
    let apart = apart(&parts, &whole);
    assert!(apart <= 1e-12, "{apart:.1e} apart");
    assert!(f64::try_from(whole.norm()).unwrap() > 0.0);
}
