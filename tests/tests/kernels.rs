//! The fused kernels, without a GPU: their source in Triton's interpreter, and their place in the program.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tests::{
    Images, Program, World, assert_same_run, checkout, largest_difference, metrics, python, stand_in, tell, tensors,
};

#[test]
fn kernels_agree_with_pytorch_in_triton_s_interpreter() -> Result<()> {
    let Some(python) = python("import numpy, torch, triton") else {
        tell("skipped: kernels in Triton's interpreter (no python with torch and triton)");
        return Ok(());
    };
    let said = python.run(&checkout().join("torch-ext/kernels/check.py"), &[])?;
    assert_eq!(said.trim(), "all kernels agree with PyTorch in float64");
    Ok(())
}

/// A short distillation in float32, channels last, whose kernels a stand-in for the driver computes on the host.
struct Fused {
    world: World,
    config: PathBuf,
}

impl Fused {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let data = world.images("data", Images::colour(44))?;
        let mut changes = World::distil(&world.teacher(&data)?);
        changes.push(("precision", "{ channels_last = true, fused = true }".into()));
        changes.push(("evaluation.suite", "[]".into()));
        let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let config = world.config("fused", &data, &changes)?;
        Ok(Self { world, config })
    }

    /// The program on some ranks, with the kernels where `fused`.
    fn program(&self, ranks: usize, run: &str, fused: bool) -> (Program, PathBuf) {
        let run = self.world.run(run);
        let program = Program::on(ranks).train(&self.config, &run);
        let folder = stand_in().to_string_lossy();
        let with = |program: Program| program.variable("IAD_TEST_KERNELS", "1").variable("LD_LIBRARY_PATH", &folder);
        (if fused { with(program) } else { program }, run)
    }
}

/// Whether a run warned of something with these `words`.
fn warned_of(run: &Path, words: &str) -> Result<bool> {
    let message = |event: &serde_json::Value| event["message"].as_str().is_some_and(|text| text.contains(words));
    Ok(metrics(run)?.iter().any(message))
}

fn apart(one: &Path, other: &Path) -> Result<f64> {
    let last = |run: &Path| tensors(&run.join("checkpoints/final.safetensors"));
    let (apart, name) = largest_difference(&last(one)?, &last(other)?)?;
    tell(&format!("tensors differ by {apart:.2e} ({name})"));
    Ok(apart)
}

/// Rounding alone sets the two apart, and the signs of gradients near 0 that it decides.
#[test]
fn a_run_with_fused_kernels_is_the_run_without() -> Result<()> {
    let fused = Fused::new()?;
    let (program, without) = fused.program(1, "without", false);
    program.run()?.expect(0);
    assert!(warned_of(&without, "only GPUs have them")?);
    let trace = fused.world.path("trace");
    std::fs::create_dir(&trace)?;
    let (program, with) = fused.program(1, "with", true);
    program.trace(&trace).run()?.expect(0);
    if warned_of(&with, "built without Triton")? {
        tell("left out: fused kernels in the program (it was built without Triton)");
        return Ok(());
    }
    assert!(apart(&without, &with)? < 1e-2);
    let losses = |run: &Path| -> Result<Vec<f64>> {
        let events = metrics(run)?;
        Ok(events.iter().filter(|event| event["event"] == "step").filter_map(|step| step["loss"].as_f64()).collect())
    };
    let (plain, found) = (losses(&without)?, losses(&with)?);
    assert!(plain.len() == 3 && plain.len() == found.len());
    assert!((plain[0] - found[0]).abs() < 1e-4 * plain[0], "{plain:?} {found:?}");
    let calls = std::fs::read_to_string(trace.join("rank-0"))?;
    for kernel in [
        // 16 images of 3x16x16 in blocks of 1,024.
        "attack_step on torch, grid 12 1 1, threads 128 1 1, shared 0",
        "sgd_judge on torch",
        "sgd_update on torch",
        "divergence on torch, grid 1 1 1",
        "batch_norm_statistics on torch",
        "batch_norm_combine on torch",
        // 16 maps of 8x8 pixels, in blocks of 16 rows.
        "batch_norm_apply on torch, grid 64 1 1, threads 128 1 1, shared 0",
        "batch_norm_backward_sums on torch",
        "batch_norm_backward_combine on torch",
        "batch_norm_backward_apply on torch, grid 64 1 1",
    ] {
        assert!(calls.contains(&format!("launch {kernel}")), "no {kernel} in:\n{calls:.3000}");
    }
    Ok(())
}

#[test]
fn ranks_with_fused_kernels_learn_together_and_resume_to_the_bit() -> Result<()> {
    let fused = Fused::new()?;
    let (program, alone) = fused.program(1, "alone", true);
    program.run()?.expect(0);
    for ranks in [2, 3] {
        let (program, together) = fused.program(ranks, &format!("{ranks}-ranks"), true);
        program.run()?.expect(0);
        assert!(apart(&alone, &together)? < 1e-2, "{ranks} ranks");
    }
    fused.program(2, "stopped", true).0.stop_after(2).run()?.expect(85);
    let (program, stopped) = fused.program(2, "stopped", true);
    program.run()?.expect(0);
    assert_same_run(&fused.world.run("2-ranks"), &stopped, "stopped after step 2")
}
