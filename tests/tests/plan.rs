//! `iad-launch plan`: what a run needs, before there is anything to train on.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World, checkout, metrics};

fn plan(config: &Path, arguments: &[&str]) -> Result<Value> {
    let program = Program::alone().within(checkout()).args(["plan"]).args([config]).args(arguments).args(["--json"]);
    let said = program.run()?.expect(0).said;
    serde_json::from_str(&said).with_context(|| said)
}

fn number(plan: &Value, path: &str) -> f64 {
    plan.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} is missing in {plan:#}"))
}

fn warnings(plan: &Value) -> String {
    plan["warnings"].to_string()
}

/// The paper's run on eight GPUs, in a checkout without its data: known counts, and warnings.
#[test]
fn a_run_is_planned_before_there_is_data() -> Result<()> {
    let world = World::new()?;
    let missing = world.path("cifar10.h5").display().to_string();
    let sets = ["data.train", "data.test"].map(|key| format!("{key}={missing}"));
    let folder = format!("teachers.robust.checkpoint={}", world.run("none").display());
    let arguments = ["--ranks", "8", "--gpu", "h100", "--set", &sets[0], "--set", &sets[1], "--set", &folder];
    let found = plan(Path::new("configs/wrn_cifar10.toml"), &arguments)?;
    assert_eq!(number(&found, "/parameters"), 46_160_474.0);
    assert_eq!((number(&found, "/images/train"), number(&found, "/images/selection")), (49_000.0, 1_000.0));
    assert_eq!((number(&found, "/steps/images"), number(&found, "/steps/most")), (128.0, 16.0));
    assert_eq!(number(&found, "/steps/all"), 200.0 * 383.0);
    // Ten steps of the attack are ten passes there and back, of 6.659 giga multiply-adds each.
    let attack = number(&found, "/work/0/attack");
    assert!((attack / (20.0 * 2.0 * 6.659e9) - 1.0).abs() < 0.01, "{attack}");
    assert_eq!(number(&found, "/work/1/from_epoch"), 5.0);
    assert_eq!(number(&found, "/sums/gradient_bytes"), 4.0 * 46_160_474.0);
    // Ten attack steps there and back, and the passes of the loss, through 31 batch norms.
    assert!(number(&found, "/sums/batch_norm") >= 20.0 * 25.0, "{found:#}");
    let said = warnings(&found);
    for part in ["iad-launch data fetch cifar10", "teacher robust is missing", "small sums in a step"] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    assert!(found["resolved"]["optimizer"]["lr"].as_f64() == Some(0.1));

    let local = plan(
        Path::new("configs/wrn_cifar10.toml"),
        &[&arguments[..], &["--set", "batch_norm.across_ranks=local", "--set", "evaluation.selection=test"]].concat(),
    )?;
    assert_eq!(number(&local, "/sums/batch_norm"), 0.0);
    let said = warnings(&local);
    assert!(said.contains("measures 16 images") && said.contains("chosen on the test set"), "{said}");
    assert!(number(&local, "/time/training") < number(&found, "/time/training"), "sums cost nothing");
    Ok(())
}

/// Steps whose sums stand in their middle are in a CUDA graph with `comm.in_graphs` alone, and those of free training never.
#[test]
fn a_plan_tells_whether_steps_are_recorded() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let config = world.config("small", &data, &[("student.architecture", "\"resnet8\""), ("batch.size", "8")])?;
    for (ranks, sets, recorded) in [
        ("1", &[][..], true),
        ("2", &[], false),
        ("2", &["batch_norm.across_ranks=local"], true),
        ("2", &["comm.in_graphs=true"], true),
        ("2", &["comm.in_graphs=true", "comm.backend=mpi"], false),
        ("2", &["comm.in_graphs=true", "precision.dtype=float64"], false),
        ("1", &["attack={ kind = \"free\" }"], false),
    ] {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let asked = ["--ranks", ranks, "--gpu", "h100", "--set", "precision.cuda_graphs=true"];
        let planned = plan(&config, &asked.into_iter().chain(sets).collect::<Vec<_>>())?;
        assert_eq!(planned["kernels"]["recorded"], recorded, "{ranks} ranks: {planned:#}");
    }
    Ok(())
}

/// What is planned is what a run does, and `--dry-run` trains nothing.
#[test]
fn a_plan_tells_what_the_run_does() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let config = world.config("short", &data, &[])?;
    let found = plan(&config, &["--ranks", "2"])?;
    assert!(number(&found, "/time/training") > 0.0 && number(&found, "/memory/activations") >= 0.0);
    assert!(!warnings(&found).contains("missing"), "{found:#}");

    let run = world.run("dry");
    let ended = Program::alone().train(&config, &run).args(["--dry-run"]).run()?.expect(0);
    assert!(ended.said.contains("memory") && ended.said.contains("by a measurement"), "{}", ended.said);
    assert!(!run.exists(), "a run folder was made");
    let ended = Program::under_mpirun(2).args(["plan"]).args([&config]).run()?.expect(0);
    assert_eq!(ended.said.matches("on 2 ranks").count(), 1, "{}", ended.said);

    Program::alone().train(&config, &run).run()?.expect(0);
    let started = metrics(&run)?.into_iter().find(|event| event["event"] == "started").context("started")?;
    for (planned, key) in
        [("/parameters", "parameters"), ("/images/train", "train_images"), ("/steps/per_epoch", "steps_per_epoch")]
    {
        assert_eq!(Some(number(&found, planned)), started[key].as_f64(), "{key}");
    }
    Ok(())
}

#[test]
fn a_plan_adds_up_the_runs_of_several_seeds() -> Result<()> {
    let world = World::new()?;
    let config = world.config("short", &world.images("data", Images::colour(40))?, &[])?;
    let in_file = world.config("in-file", &world.path("data.h5"), &[("seeds", "[3, 4]")])?;
    let gpu = ["--gpu", "h100"];
    let one = plan(&config, &gpu)?;
    assert!(one.get("over_seeds").is_none(), "{one:#}");
    for (found, seeds) in [
        (plan(&config, &[&gpu[..], &["--seeds", "1,2,7"]].concat())?, &[1, 2, 7][..]),
        (plan(&in_file, &gpu)?, &[3, 4]),
    ] {
        let (all, runs) = (&found["over_seeds"], seeds.len() as f64);
        assert_eq!(all["seeds"], serde_json::json!(seeds));
        let once = ["training", "selection", "evaluation"].map(|part| number(&found, &format!("/time/{part}")));
        assert!((number(all, "/seconds") - runs * once.iter().sum::<f64>()).abs() < 1e-9, "{found:#}");
        assert_eq!(number(all, "/disk_bytes"), runs * number(&one, "/disk_bytes"));
    }
    let ask = |seeds: &str| Program::alone().args(["plan"]).args([&config]).args(gpu).args(["--seeds", seeds]).run();
    let said = ask("1,2,7")?.expect(0).said;
    assert!(said.contains("seeds     3 runs (1, 2, 7), one after another: about"), "{said}");
    ask("1,1")?.expect(2).expect_error(&["--seeds is 1, twice"]);
    Ok(())
}

#[test]
fn what_a_plan_cannot_know_is_asked_for() -> Result<()> {
    let world = World::new()?;
    let config = world.config("unknown", &world.path("own.h5"), &[])?;
    let ask = || Program::alone().args(["plan"]).args([&config]);
    ask().run()?.expect(2).expect_error(&["own.h5", "--image CxHxW --classes N --images N"]);
    let told = ["--image", "3x16x16", "--classes", "4", "--images", "40", "--gpu", "a100"];
    let ended = ask().args(told).run()?.expect(0);
    assert!(ended.said.contains("3x16x16, 4 classes (this command)"), "{}", ended.said);
    ask().args(&told[..6]).args(["--gpu", "h10"]).run()?.expect(2).expect_error(&["did you mean h100?"]);
    Ok(())
}
