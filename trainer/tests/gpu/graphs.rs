//! CUDA graphs: a replayed step is the called one, to the bit. (To rehearse, operations of the CPU are recorded.)

use tch::{Device, Kind, Tensor};
use torch_ext::{Graph, Queue};
use trainer::config::preset_names;
use trainer::step::diagnostics::Seen;
use trainer::step::graph_capture::{WARM_UP, can_record};
use trainer::system::Phase;

use crate::{Gpu, Taking, config, gpu};

/// A device that records.
#[allow(clippy::print_stdout)] // A test that tested nothing says so.
fn recorder() -> Option<Gpu> {
    let found = gpu()?;
    if !can_record(found.device) {
        println!("skipped: to rehearse graphs, IAD_TEST_GRAPHS must be set");
        return None;
    }
    Some(found)
}

fn numbers(seen: &Seen) -> Vec<(String, u64)> {
    seen.sums.named().into_iter().map(|(name, sum)| (name, sum.to_bits())).collect()
}

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn replayed_steps_of_every_preset_are_the_called_ones_to_the_bit() {
    let Some(gpu) = recorder() else { return };
    let types = [
        &["precision.dtype=float32"][..],
        &["precision.dtype=tf32"],
        &["precision.dtype=bfloat16", "precision.channels_last=true"],
    ];
    let recorded = |preset: &&str| config(preset, types[0]).not_recordable().is_none();
    for preset in preset_names().filter(recorded) {
        for changes in types {
            let of = |graphs: &'static str| {
                let mut taking = Taking::new(config(preset, &[changes, &[graphs]].concat()), gpu.device);
                let seen: Vec<_> =
                    (0..WARM_UP as u64 + 4).map(|number| numbers(&taking.step(number).read().unwrap())).collect();
                (taking, seen)
            };
            let (called, expected) = of("precision.cuda_graphs=false");
            let (mut replayed, found) = of("precision.cuda_graphs=true");
            assert_eq!(replayed.step.take_warning(), None, "{preset} {changes:?}");
            let seconds = replayed.step.work.networks.timeline.lap().seconds();
            assert!(seconds[Phase::Replay as usize] > 0.0, "{preset} {changes:?}: nothing was replayed");
            assert_eq!(found, expected, "{preset} {changes:?}");
            for (found, expected) in replayed.step.work.trained().zip(called.step.work.trained()) {
                for (what, found, expected) in [
                    ("parameters", &found.parameters.values, &expected.parameters.values),
                    ("momentum", &found.optimizer.velocity, &expected.optimizer.velocity),
                    ("statistics", &found.model.flat_statistics, &expected.model.flat_statistics),
                ] {
                    assert!(found.equal(expected), "{preset} {changes:?}: {what} differ");
                }
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn a_replayed_step_does_not_wait_for_the_gpu() {
    let Some(gpu) = recorder() else { return };
    let mut taking =
        Taking::new(config("iad-1", &["precision.dtype=float32", "precision.cuda_graphs=true"]), gpu.device);
    (0..WARM_UP as u64 + 1).for_each(|number| drop(taking.step(number).read().unwrap()));
    taking.step.work.networks.timeline.pause();
    let mut replays = || [taking.step(7), taking.step(8)];
    let observed = if gpu.device.is_cuda() { torch_ext::without_waits(replays).unwrap() } else { replays() };
    observed.into_iter().for_each(|observed| assert!(observed.read().unwrap().not_finite.is_none()));
    assert_eq!(taking.step.take_warning(), None);
    assert!(taking.step.work.networks.timeline.lap().seconds()[Phase::Replay as usize] > 0.0);
}

/// What a failed recording leaves behind is a thread that computes and records as before.
#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn a_recording_that_fails_is_forgotten() {
    let Some(gpu) = recorder() else { return };
    let _queue = Queue::own(gpu.device).unwrap();
    let tensor = Tensor::ones([64, 64], (Kind::Float, gpu.device)).set_requires_grad(true);
    let work = || (tensor.matmul(&tensor) * 2.0).sum(Kind::Float);
    let waits = || tch::no_grad(|| work().is_nonzero());
    for _ in 0..3 {
        let Err(reason) = Graph::record(gpu.device, waits) else { panic!("a recording waited") };
        assert!(!reason.is_empty());
        let found = work();
        assert!(found.requires_grad());
        assert_eq!(f64::try_from(found.detach().to_device(Device::Cpu)).unwrap(), 2.0 * 64f64.powi(3));
        let (graph, found) = Graph::record(gpu.device, work).unwrap();
        graph.replay().unwrap();
        assert_eq!(f64::try_from(found.detach().to_device(Device::Cpu)).unwrap(), 2.0 * 64f64.powi(3));
    }
}
