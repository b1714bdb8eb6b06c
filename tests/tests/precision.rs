//! Training in lower precision and other layouts: whole runs, their checkpoints and their measurements.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World, assert_same_run, metrics, student, tensors};

/// A world with one epoch of introspective distillation, four steps, in the precision of each test.
struct Distillation {
    world: World,
    data: PathBuf,
    teacher: PathBuf,
}

impl Distillation {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let data = world.images("data", Images::colour(60))?;
        let teacher = world.teacher(&data)?;
        Ok(Self { world, data, teacher })
    }

    fn config(&self, dtype: &str, channels_last: bool) -> Result<PathBuf> {
        self.config_with(dtype, channels_last, &[])
    }

    fn config_with(&self, dtype: &str, channels_last: bool, more: &[(&'static str, &str)]) -> Result<PathBuf> {
        let mut changes = World::distil(&self.teacher);
        changes.extend(more.iter().map(|(key, value)| (*key, value.to_string())));
        changes.push(("precision", format!("{{ dtype = {dtype:?}, channels_last = {channels_last} }}")));
        changes.push(("evaluation.selection", "\"held_out\"".into()));
        changes.push(("evaluation.held_out", "0.1".into()));
        let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
        self.world.config(&format!("{dtype}-{channels_last}"), &self.data, &changes)
    }

    fn trained(&self, name: &str, config: &Path, ranks: usize) -> Result<PathBuf> {
        let run = self.world.run(name);
        Program::on(ranks).train(config, &run).run()?.expect(0);
        Ok(run)
    }
}

fn losses(run: &Path) -> Result<Vec<f64>> {
    let events = metrics(run)?;
    let steps = events.iter().filter(|event| event["event"] == "step");
    steps.map(|step| step["loss"].as_f64().context("a loss that is not a number")).collect()
}

/// The first step has the weights of float32, and an attack this small leaves it the same images. Later steps follow the
/// signs of rounded gradients, so no distance between their losses means anything.
#[test]
fn bfloat16_trains_on_one_and_two_ranks() -> Result<()> {
    let distillation = Distillation::new()?;
    let still = [("attack.eps", "1e-6"), ("attack.step", "1e-6")];
    let config = |dtype: &str, channels_last| distillation.config_with(dtype, channels_last, &still);
    let exact = losses(&distillation.trained("exact", &config("float32", false)?, 1)?)?;
    for channels_last in [false, true] {
        let config = config("bfloat16", channels_last)?;
        for ranks in [1, 2] {
            let run = distillation.trained(&format!("{ranks}-{channels_last}"), &config, ranks)?;
            let found = losses(&run)?;
            assert_eq!(found.len(), exact.len());
            assert!(found.iter().all(|loss| loss.is_finite()), "{found:?}");
            assert!(found.iter().zip(&exact).all(|(found, exact)| found != exact), "it computed in float32");
            let apart = (found[0] - exact[0]).abs() / exact[0];
            assert!(apart <= 0.03, "{ranks} ranks: a first loss of {}, {} in float32", found[0], exact[0]);
            for (name, stored) in student(&run.join("checkpoints/final.safetensors"))? {
                let counter = name.ends_with("num_batches_tracked");
                assert!(counter || stored.bytes.len() == 4 * stored.shape.iter().product::<usize>(), "{name}");
            }
        }
    }
    Ok(())
}

#[test]
fn an_interrupted_run_in_bfloat16_ends_as_the_unbroken_one() -> Result<()> {
    let distillation = Distillation::new()?;
    let config = distillation.config("bfloat16", true)?;
    for ranks in [1, 2] {
        let whole = distillation.trained(&format!("whole-{ranks}"), &config, ranks)?;
        let broken = distillation.world.run(&format!("broken-{ranks}"));
        for steps in [1, 3] {
            Program::on(ranks).train(&config, &broken).stop_after(steps).run()?.expect(85);
        }
        Program::on(ranks).train(&config, &broken).run()?.expect(0);
        assert_same_run(&whole, &broken, &format!("in bfloat16 on {ranks} ranks"))?;
    }
    Ok(())
}

/// Weights without a run are evaluated in the default type, float32. A run reports the same for them.
#[test]
fn networks_are_measured_in_float32_whatever_they_were_trained_in() -> Result<()> {
    let distillation = Distillation::new()?;
    let run = distillation.trained("run", &distillation.config("bfloat16", false)?, 1)?;
    let weights = distillation.world.path("weights.safetensors");
    std::fs::copy(run.join("checkpoints/best.safetensors"), &weights)?;
    let attacks = |path: PathBuf| -> Result<Value> {
        let evaluation: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        Ok(evaluation["attacks"].clone())
    };
    let eval = Program::alone()
        .args(["eval".as_ref(), weights.as_os_str()])
        .args(["--data".as_ref(), distillation.data.as_os_str()]);
    eval.args(["--suite", "natural,pgd2", "--batch", "16"]).run()?.expect(0);
    let alone = attacks(distillation.world.path("weights-evaluation-natural+pgd2-data-batch16.json"))?;
    assert_eq!(attacks(run.join("evaluation.json"))?, alone);
    Ok(())
}

#[test]
fn tf32_on_a_processor_is_float32_to_the_bit() -> Result<()> {
    let distillation = Distillation::new()?;
    let exact = distillation.trained("exact", &distillation.config("float32", false)?, 1)?;
    let rounded = distillation.trained("rounded", &distillation.config("tf32", false)?, 1)?;
    let file = "checkpoints/final.safetensors";
    assert_eq!(tensors(&exact.join(file))?, tensors(&rounded.join(file))?);
    Ok(())
}

/// The names on a processor: two are the same bits as no name, and the third is float32 in another layout. Records say which.
#[test]
fn names_on_a_processor_are_float32_and_every_record_says_so() -> Result<()> {
    let distillation = Distillation::new()?;
    let named = |name: &str| {
        let config = distillation.config("float32", false)?;
        let run = distillation.world.run(name);
        let ended =
            Program::alone().train(&config, &run).args(["--set", &format!("precision={name}")]).run()?.expect(0);
        Ok::<_, anyhow::Error>((run, ended.said))
    };
    let plain = distillation.trained("plain", &distillation.config("float32", false)?, 1)?;
    let last = distillation.trained("last", &distillation.config("float32", true)?, 1)?;
    let weights = |run: &Path| tensors(&run.join("checkpoints/final.safetensors"));
    for (name, same, words) in [
        ("reference", &plain, "reference: float32; "),
        ("strict", &plain, "strict: float32; "),
        ("fast", &last, "fast: float32, channels last; "),
    ] {
        let (run, said) = named(name)?;
        assert_eq!(weights(&run)?, weights(same)?, "{name}");
        assert!(said.contains(&format!("precision {words}")), "{said}");
        let environment: toml::Table = std::fs::read_to_string(run.join("environment.toml"))?.parse()?;
        let precision = environment["session"][0]["precision"].as_str().context("no precision")?;
        let instructions = precision.strip_prefix(words).context(precision.to_string())?;
        let evaluation: Value = serde_json::from_str(&std::fs::read_to_string(run.join("evaluation.json"))?)?;
        assert_eq!(evaluation["timing"]["precision"], format!("float32; {instructions}"));
        Program::alone().args(["report".as_ref(), run.as_os_str()]).run()?.expect(0);
        assert!(std::fs::read_to_string(run.join("report.html"))?.contains(precision), "{precision}");
    }
    let config = distillation.config("float32", false)?;
    let plan = Program::alone().args(["plan".as_ref(), config.as_os_str()]).args(["--set", "precision=fast"]);
    let planned = plan.run()?.expect(0).said;
    assert!(planned.contains("precision fast: float32, channels last; "), "{planned}");
    let bench = Program::alone().args(["bench", "step"]).args([config.as_os_str()]);
    let lines = bench.args(["--steps", "1", "--image", "3x16x16", "--set", "precision=strict"]).run()?.expect(0).said;
    assert!(lines.contains(r#""precision":"strict: float32; "#), "{lines}");
    Ok(())
}
