//! Whole steps on a GPU: those of the CPU, without a wait.

use tch::Device;
use trainer::config::preset_names;
use trainer::system::transfer;

use crate::{Taking, apart, config, gpu};

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn two_steps_of_every_preset_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for preset in preset_names() {
        let of = |device| {
            let mut taking = Taking::new(config(preset, &["precision.dtype=float64"]), device);
            let losses: Vec<f64> = (0..2)
                .flat_map(|number| {
                    let seen = taking.step(number).read().unwrap();
                    assert_eq!(seen.not_finite, None, "{preset}");
                    seen.sums.losses.into_values()
                })
                .collect();
            (taking.step, losses)
        };
        let ((here, here_losses), (cpu, cpu_losses)) = (of(gpu.device), of(Device::Cpu));
        assert!(!cpu_losses.is_empty());
        for (found, expected) in here_losses.iter().zip(&cpu_losses) {
            assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{preset}: {found}, on the CPU {expected}");
        }
        for (found, expected) in here.work.trained().zip(cpu.work.trained()) {
            for (what, found, expected) in [
                ("parameters", &found.parameters.values, &expected.parameters.values),
                ("momentum", &found.optimizer.velocity, &expected.optimizer.velocity),
                ("statistics", &found.model.flat_statistics, &expected.model.flat_statistics),
            ] {
                let apart = apart(found, expected);
                assert!(apart <= 1e-9, "{preset}: {what} are {apart:.1e} apart");
            }
        }
    }
}

/// From the bytes of a batch to its update and the numbers on their way, nothing makes the host wait. (On a CPU, to rehearse,
/// nothing can.)
#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn no_step_waits_for_the_gpu() {
    let Some(gpu) = gpu() else { return };
    let types = [&["precision.dtype=float32"][..], &["precision.dtype=bfloat16", "precision.channels_last=true"]];
    for preset in preset_names() {
        // In parts, where the loss does not need the whole batch at once.
        let parts = if config(preset, &[]).loss.exchanges() { "batch.accumulate=1" } else { "batch.accumulate=2" };
        for changes in types.map(|changes| [changes, &[parts]].concat()) {
            let mut taking = Taking::new(config(preset, &changes), gpu.device);
            // Libraries set themselves up in the first step.
            let _ = taking.step(0).read().unwrap();
            let before = transfer::waits();
            let observed = match gpu.device {
                Device::Cuda(_) => torch_ext::without_waits(|| [taking.step(1), taking.step(2)]).unwrap(),
                _ => [taking.step(1), taking.step(2)],
            };
            assert_eq!(transfer::waits(), before, "{preset}");
            observed.into_iter().for_each(|observed| assert!(observed.read().unwrap().not_finite.is_none()));
            assert_eq!(transfer::waits(), before + 2, "{preset}");
        }
    }
}

/// Steps in the lower types go where those in float64 go.
#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn losses_in_lower_types_are_near_those_in_float64() {
    let Some(gpu) = gpu() else { return };
    let loss = |dtype: &str| {
        let still = ["attack.eps=1e-6", "attack.step=1e-6"];
        let changes = [&still[..], &[dtype]].concat();
        let mut taking = Taking::new(config("iad-1", &changes), gpu.device);
        let seen = taking.step(0).read().unwrap();
        seen.sums.losses.values().sum::<f64>()
    };
    let exact = loss("precision.dtype=float64");
    // float32 by itself may round the factors of convolutions to TF32; `strict` rounds none.
    for (precision, tolerance) in [
        ("precision=strict", 1e-4),
        ("precision.dtype=float32", 1e-2),
        ("precision.dtype=tf32", 1e-2),
        ("precision.dtype=bfloat16", 2e-2),
    ] {
        let found = loss(precision);
        assert!((found - exact).abs() <= tolerance * exact.abs(), "{precision}: {found}, in float64 {exact}");
    }
}
