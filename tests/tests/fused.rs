//! Batch norm over the ranks by the fused kernels, here by their formulas on the CPU: whole runs, and the sums of a step.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World, assert_same_run, largest_difference, metrics, tensors};

/// Where a CPU computes the formulas of the kernels.
const COMPUTES: &str = "IAD_TEST_FUSED";

fn warnings(run: &Path) -> Result<Vec<String>> {
    let events = metrics(run)?;
    let told = events.iter().filter(|event| event["event"] == "warned").filter_map(|event| event["message"].as_str());
    Ok(told.filter(|message| message.contains("batch_norm.fused")).map(str::to_string).collect())
}

#[test]
fn a_run_with_fused_batch_norm_is_that_of_one_rank_and_resumes_to_the_bit() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(61))?;
    let mut changes = World::distil(&world.teacher(&data)?);
    changes.retain(|(key, _)| !["student.architecture", "epochs"].contains(key));
    for (key, value) in [
        ("student.architecture", "\"resnet8\""),
        ("attack.steps", "2"),
        ("precision.dtype", "\"float64\""),
        ("batch_norm.fused", "true"),
        ("epochs", "2"),
        ("optimizer.lr", "0.01"),
    ] {
        changes.push((key, value.into()));
    }
    let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let config = world.config("fused", &data, &changes)?;
    let program =
        |ranks: usize, name: &str| Program::on(ranks).train(&config, &world.run(name)).variable(COMPUTES, "1");
    let last = |name: &str| tensors(&world.run(name).join("checkpoints/final.safetensors"));
    program(1, "alone").run()?.expect(0);
    for ranks in [2, 3] {
        let [straight, halting] = ["straight", "halting"].map(|name| format!("{name}-{ranks}"));
        program(ranks, &straight).run()?.expect(0);
        program(ranks, &halting).stop_after(3).run()?.expect(85);
        program(ranks, &halting).run()?.expect(0);
        assert_same_run(&world.run(&straight), &world.run(&halting), &format!("stopped on {ranks} ranks"))?;
        assert_eq!(warnings(&world.run(&straight))?, Vec::<String>::new());
        let (apart, name) = largest_difference(&last("alone")?, &last(&straight)?)?;
        assert!(apart <= 1e-9, "{name} differs by {apart:e} between 1 and {ranks} ranks");
    }
    // A CPU without the formulas says so, once, and computes as without the key.
    let [warned, without] = ["warned", "without"].map(|name| world.run(name));
    Program::on(2).train(&config, &warned).run()?.expect(0);
    Program::on(2).train(&config, &without).set("batch_norm.fused", false).run()?.expect(0);
    assert!(warnings(&warned)?.len() == 1 && warnings(&without)?.is_empty(), "{:?}", warnings(&warned)?);
    let (apart, name) = largest_difference(&last("warned")?, &last("without")?)?;
    assert_eq!(apart, 0.0, "{name}");
    Ok(())
}

/// What `plan` counts is what a step does.
#[test]
fn a_step_makes_the_sums_that_its_plan_counts() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let config = world.config("small", &data, &[("student.architecture", "\"resnet8\""), ("batch.size", "8")])?;
    let mut bytes = vec![];
    for fused in [false, true] {
        let set = format!("batch_norm.fused={fused}");
        let arguments = ["--ranks", "2", "--gpu", "h100", "--json", "--set", &set];
        let planned = Program::alone().args(["plan"]).args([&config]).args(arguments).run()?.expect(0).said;
        let planned: Value = serde_json::from_str(&planned).context(planned)?;
        let number = |path: &str| planned.pointer(path).and_then(Value::as_f64).with_context(|| path.to_string());
        let step = Program::under_mpirun(2)
            .args(["bench".as_ref(), "step".as_ref(), config.as_os_str()])
            .args(["--steps", "2", "--image", "3x16x16", "--classes", "4", "--set", &set])
            .variable(COMPUTES, "1");
        let said = step.run()?.expect(0).said;
        let mut done = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let done = done.rfind(|line| line.get("seconds").is_some()).context(said.clone())?;
        // Beside batch norm, the gradients over MPI in one and the observed numbers.
        assert_eq!(done["sums"].as_f64(), Some(number("/sums/batch_norm")? + 2.0), "{done}");
        let sent = done["sum_bytes"].as_f64().context("bytes")?;
        let counted = number("/sums/batch_norm_bytes")? + number("/sums/gradient_bytes")?;
        // The observed numbers are few.
        assert!((0.0..4096.0).contains(&(sent - counted)), "{sent} bytes, {counted} counted");
        bytes.push(counted);
        let kernels = ["/kernels/not_fused_and_fused/0", "/kernels/not_fused_and_fused/1"].map(number);
        let [without, with] = kernels;
        let (without, with) = (without?, with?);
        assert!(with < 0.5 * without, "{with} kernels fused, {without} without");
        assert_eq!(number("/kernels/all")?, if fused { with } else { without });
    }
    assert!(bytes[1] < bytes[0], "{bytes:?}");
    Ok(())
}
