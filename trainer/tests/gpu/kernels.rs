//! Each fused kernel beside libtorch's operations, first of all that concerns them on a GPU. With `IAD_TEST_GPU=cpu` and
//! `IAD_TEST_KERNELS=1` they rehearse, on a stand-in for the driver that `LD_LIBRARY_PATH` leads to.

use std::sync::Arc;

use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::{Graph, Kernels, Layer, Queue, Sgd, Trust, fused_sgd};

use super::{Gpu, apart, gpu};

/// The kernels of the GPU, if there is one.
#[allow(clippy::print_stdout)] // A test that tested nothing says so.
fn kernels() -> Option<(Gpu, Arc<Kernels>)> {
    let gpu = gpu()?;
    if gpu.device == Device::Cpu && std::env::var_os("IAD_TEST_KERNELS").is_none() {
        println!("skipped: a CPU has no fused kernels");
        return None;
    }
    let kernels = Kernels::load(0, gpu.device).unwrap_or_else(|reason| panic!("{reason}"));
    Some((gpu, Arc::new(kernels)))
}

/// Values about 0 that differ everywhere, the same on every device.
fn values(shape: &[i64], seed: i64, device: Device) -> Tensor {
    let count: i64 = shape.iter().product();
    let places = Tensor::arange(count, (Kind::Double, Device::Cpu)) + seed * 7919;
    ((places * 12.9898).sin() * 43_758.545).frac().view(shape).to_kind(Kind::Float).to_device(device)
}

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn the_attack_s_step_has_the_bits_of_libtorch_s() {
    let Some((gpu, kernels)) = kernels() else { return };
    for shape in [[2, 3, 16, 16], [7, 3, 32, 32], [1, 1, 4, 4]] {
        let images = values(&shape, 1, gpu.device).abs();
        let candidate = &images + values(&shape, 2, gpu.device) * 0.03;
        let gradient =
            values(&shape, 3, gpu.device).threshold(0.1, 0.0) - values(&shape, 4, gpu.device).threshold(0.5, 0.0);
        let (low, high) = ((&images - 0.03).clamp_min(0.0), (&images + 0.03).clamp_max(1.0));
        let expected = (&candidate + gradient.sign() * 0.007).clamp_tensor(Some(low), Some(high));
        let gradients = [gradient.shallow_clone(), gradient.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])];
        for gradient in gradients {
            let moved = kernels.attack_step(&candidate, &gradient, &images, 0.007, 0.03).unwrap();
            assert_eq!(moved, expected, "{shape:?}");
        }
    }
    let odd = values(&[1, 1, 3, 5], 1, gpu.device);
    assert!(kernels.attack_step(&odd, &odd, &odd, 0.1, 0.1).is_none(), "15 values");
}

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn sgd_judges_and_moves_like_libtorch_s() {
    let Some((gpu, kernels)) = kernels() else { return };
    for count in [1, 5001, 3_000_017] {
        let buffers: Vec<_> = (1..4).map(|seed| values(&[count], seed, gpu.device)).collect();
        let [weights, gradients, velocity] = [0, 1, 2].map(|which: usize| buffers[which].copy());
        let judged = kernels.sgd_judge(&weights, &gradients, &velocity).unwrap();
        let largest = Tensor::stack(&[&gradients, &velocity, &weights].map(|buffer: &Tensor| buffer.abs().max()), 0);
        assert_eq!((judged.largest, judged.place.int64_value(&[])), (largest, count));
        let _ = gradients.get(count / 2).fill_(f64::NAN);
        let judged = kernels.sgd_judge(&weights, &gradients, &velocity).unwrap();
        assert!(judged.largest.double_value(&[0]).is_nan() && judged.place.int64_value(&[]) == count / 2);
        gradients.shallow_clone().copy_(&buffers[1]);
        for nesterov in [false, true] {
            let numbers = Sgd { rate: 0.1, momentum: 0.9, nesterov, weight_decay: 5e-4 };
            let rate = Tensor::full([], 0.1, (Kind::Float, gpu.device));
            for moves in [false, true] {
                let [w, v, expected_w, expected_v] = [&weights, &velocity, &weights, &velocity].map(Tensor::copy);
                let flag = Tensor::full([], i64::from(moves), (Kind::Bool, gpu.device));
                assert!(kernels.sgd_update([&w, &gradients, &v], &flag, &rate, numbers));
                let stay = flag.logical_not().to_kind(Kind::Float);
                fused_sgd(&expected_w, &gradients, &expected_v, &stay, numbers, Some(&rate));
                assert!(apart(&w, &expected_w) < 1e-6 && apart(&v, &expected_v) < 1e-6, "{count} {nesterov} {moves}");
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn the_divergence_and_its_gradients_are_libtorch_s() {
    let Some((gpu, kernels)) = kernels() else { return };
    for shape in [[1, 2], [37, 10], [5, 100], [3, 200], [2, 1000]] {
        let logits = |seed| (values(&shape, seed, gpu.device) * 8.0).set_requires_grad(true);
        let (student, guide, teacher) = (logits(1), logits(2), logits(3));
        let labels = Tensor::arange(shape[0], (Kind::Int64, gpu.device)).remainder(shape[1]);
        for trust in [None, Some(false), Some(true)] {
            let soft = |logits: &Tensor| logits.log_softmax(1, Kind::Float);
            let sum = (soft(&guide).exp() * (soft(&guide) - soft(&student))).sum_dim_intlist(1i64, false, None);
            let alpha = (soft(&teacher.detach()).gather(1, &labels.unsqueeze(1), false).squeeze_dim(1) * 0.1).exp();
            let expected = match trust {
                None => sum,
                Some(inverted) => sum * if inverted { 1.0 - alpha } else { alpha },
            };
            let trust = trust.map(|inverted| Trust { teacher: &teacher, labels: &labels, exponent: 0.1, inverted });
            let found = kernels.divergence(&guide, &student, trust.as_ref()).unwrap();
            assert!(apart(&found, &expected) < 1e-5, "{shape:?}");
            let gradients =
                |of: &Tensor| Tensor::run_backward(&[of.square().sum(Kind::Float)], &[&student, &guide], true, false);
            for (found, expected) in gradients(&found).iter().zip(&gradients(&expected)) {
                assert!(apart(found, expected) < 1e-4, "{shape:?}");
            }
        }
    }
}

/// The output of batch norm with what stands behind it, and the gradients of images, weight, bias and addend.
fn layer(inputs: &[Tensor; 4], adds: bool, relu: bool, kernels: Option<&Arc<Kernels>>) -> Vec<Tensor> {
    let [images, weight, bias, addend] = inputs;
    let output = match kernels {
        Some(kernels) => {
            let addend = adds.then_some(addend);
            let layer = Layer { weight, bias, epsilon: 1e-5, addend, relu, sum: None };
            kernels.batch_norm(images, &layer).unwrap().output
        }
        None => {
            let plain =
                images.batch_norm(Some(weight), Some(bias), None::<&Tensor>, None::<&Tensor>, true, 0.1, 1e-5, false);
            let sum = if adds { plain + addend } else { plain };
            if relu { sum.relu() } else { sum }
        }
    };
    let weighted = (&output * values(&output.size(), 9, output.device())).sum(Kind::Float);
    let wanted = if adds { vec![images, weight, bias, addend] } else { vec![images, weight, bias] };
    let gradients = Tensor::run_backward(&[weighted], &wanted, false, false);
    std::iter::once(output.detach()).chain(gradients).collect()
}

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn batch_norm_with_addition_and_relu_is_libtorch_s() {
    let Some((gpu, kernels)) = kernels() else { return };
    // The stand-in takes maps of float32.
    let kinds = if gpu.device == Device::Cpu { &[Kind::Float][..] } else { &[Kind::Float, Kind::BFloat16] };
    for (&kind, shape) in kinds.iter().flat_map(|kind| {
        [[3, 16, 5, 7], [2, 64, 16, 16], [5, 80, 3, 3], [1, 640, 4, 4]].into_iter().map(move |shape| (kind, shape))
    }) {
        for (adds, relu) in [(false, false), (false, true), (true, true)] {
            let map = |seed| {
                let map = values(&shape, seed, gpu.device).permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
                (map * 2.0 + 3.0).to_kind(kind).set_requires_grad(true)
            };
            let channel = |seed| values(&[shape[1]], seed, gpu.device).set_requires_grad(true);
            let inputs = [map(1), channel(2), channel(3), map(4)];
            let [found, expected] = [Some(&kernels), None].map(|kernels| layer(&inputs, adds, relu, kernels));
            assert_eq!(found.len(), expected.len());
            let tolerance = if kind == Kind::Float { 1e-4 } else { 2e-2 };
            for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let apart = apart(found, expected);
                assert!(apart < tolerance, "{kind:?} {shape:?} {adds} {relu}: {place} is {apart} apart");
            }
        }
    }
}

/// A launch goes to the stream of libtorch, and into the graph that is recorded there.
#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn a_graph_replays_kernels() {
    let Some((gpu, kernels)) = kernels().filter(|(gpu, _)| gpu.device.is_cuda()) else { return };
    let _queue = Queue::own(gpu.device).unwrap();
    let images = values(&[4, 3, 16, 16], 1, gpu.device).abs();
    let (candidate, gradient) = (images.copy(), values(&[4, 3, 16, 16], 2, gpu.device));
    let step = || kernels.attack_step(&candidate, &gradient, &images, 0.01, 0.03).unwrap();
    let expected = step();
    let (graph, moved) = Graph::record(gpu.device, step).unwrap();
    graph.replay().unwrap();
    assert_eq!(moved, expected);
    let _ = no_grad(|| gradient.shallow_clone().neg_());
    graph.replay().unwrap();
    assert_eq!(moved, step());
    assert_ne!(moved, expected);
}
