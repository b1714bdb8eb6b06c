//! Guards against collapse: outliers are told, skipped or lead back with a lower rate, on any number of ranks and through stops
//! and kills to the same bits.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World, assert_same_run, has_done, header, metrics, student};

/// Six steps an epoch. With a factor of 1, half of the steps are outliers.
fn config(world: &World, name: &str, changes: &[(&str, &str)]) -> Result<PathBuf> {
    let data = world.images(name, Images::colour(96))?;
    let short = [("epochs", "4"), ("guard.gradient_factor", "1"), ("checkpoint.minutes", "0")];
    world.config(name, &data, &[&short, changes].concat())
}

fn guarded(run: &Path) -> Result<Vec<Value>> {
    Ok(metrics(run)?.into_iter().filter(|event| event["event"] == "guarded").collect())
}

/// The steps of what was found, and what followed.
fn decisions(run: &Path) -> Result<Vec<(u64, String)>> {
    let decision = |event: &Value| Some((event["step"].as_u64()?, event["action"].as_str()?.to_string()));
    guarded(run)?.iter().map(|event| decision(event).context("a step and an action")).collect()
}

#[test]
fn an_outlier_is_told_and_changes_nothing() -> Result<()> {
    let world = World::new()?;
    let config = config(&world, "told", &[])?;
    let (told, silent) = (world.run("told"), world.run("silent"));
    let ended = Program::alone().train(&config, &told).run()?.expect(0);
    assert!(ended.said.contains("warning: step 1") && ended.said.contains("is an outlier"), "{}", ended.said);
    Program::alone().train(&config, &silent).set("guard.gradient_factor", 0).run()?.expect(0);
    let decisions = decisions(&told)?;
    assert!(
        !decisions.is_empty() && decisions.iter().all(|(step, action)| *step > 11 && action == "warn"),
        "{decisions:?}"
    );
    assert!(guarded(&silent)?.is_empty() && !silent.join("offending").exists());
    let last = |run: &Path| student(&run.join("checkpoints/final.safetensors"));
    assert!(last(&told)? == last(&silent)?, "a warning has changed the weights");
    // The first three are kept, and one of them is taken again: its state is a step or two later.
    assert_eq!(std::fs::read_dir(told.join("offending"))?.count(), 3);
    let ended = Program::alone().args(["replay".as_ref(), told.as_os_str()]).run()?;
    assert!(ended.said.contains("the weights are those of a step or two later"), "{}", ended.said);
    let page = std::fs::read_to_string(told.join("report.html"))?;
    assert!(page.contains("is an outlier"), "the report does not tell");
    Ok(())
}

/// AdamW counts its updates, and a skipped step is none.
#[test]
fn an_outlier_is_skipped_through_stops_and_on_two_ranks() -> Result<()> {
    let world = World::new()?;
    let changes = [("guard.on_collapse", "\"skip\""), ("optimizer.kind", "\"adamw\""), ("optimizer.lr", "0.001")];
    let config = config(&world, "skip", &changes)?;
    let (whole, run, two) = (world.run("whole"), world.run("run"), world.run("two"));
    Program::alone().train(&config, &whole).run()?.expect(0);
    let found = decisions(&whole)?;
    assert!(!found.is_empty() && found.iter().all(|(_, action)| action == "skip"), "{found:?}");
    for stop in [found[0].0, 20] {
        Program::alone().train(&config, &run).stop_after(stop).run()?.expect(85);
    }
    let skipped = header(&run.join("checkpoints/step-00000020.safetensors"))?["guarding"]["skipped"].as_u64();
    assert_eq!(skipped, Some(found.iter().filter(|(step, _)| *step <= 20).count() as u64));
    Program::alone().train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, "stopped and resumed")?;
    Program::on(2).train(&config, &two).run()?.expect(0);
    assert_eq!(decisions(&two)?, found, "on two ranks");
    Ok(())
}

#[test]
fn a_rollback_lowers_the_rate_and_survives_stops_and_kills() -> Result<()> {
    let world = World::new()?;
    let changes = [("guard.on_collapse", "\"rollback\""), ("guard.max_rollbacks", "2"), ("checkpoint.keep_last", "1")];
    let config = config(&world, "rollback", &changes)?;
    let (whole, run) = (world.run("whole"), world.run("run"));
    Program::alone().train(&config, &whole).run()?.expect(0);
    let found = decisions(&whole)?;
    let actions: Vec<&str> = found.iter().map(|(_, action)| action.as_str()).collect();
    assert_eq!(actions[..2], ["rollback"; 2], "{found:?}");
    assert!(actions[2..].iter().all(|action| *action == "skip"), "{found:?}");
    let events = metrics(&whole)?;
    let place = events.iter().position(|event| event["event"] == "guarded").context("an event")?;
    assert_eq!(events[place]["to"].as_u64(), Some((found[0].0 - 1) / 6 * 6));
    let next = events[place..].iter().find(|event| event["event"] == "step").context("a step")?;
    assert_eq!(next["step"].as_u64(), events[place]["to"].as_u64().map(|step| step + 1));
    assert_eq!(next["learning_rate"].as_f64(), Some(0.025));
    let last = events.iter().rfind(|event| event["event"] == "step").context("a step")?;
    assert_eq!((last["step"].as_u64(), last["learning_rate"].as_f64()), (Some(24), Some(0.0125)));
    let kept = header(&whole.join("checkpoints/step-00000024.safetensors"))?;
    assert_eq!(kept["guarding"]["rollbacks"], 2);

    // Stops right where it goes back, and after it; a kill.
    for stop in [found[0].0 - 1, found[0].0, found[0].0 + 1] {
        Program::alone().train(&config, &run).stop_after(stop).run()?.expect(85);
    }
    let mut running = Program::alone().train(&config, &run).start()?;
    running.wait_until("a step", || has_done(&run, found[0].0 + 2))?;
    running.kill_all();
    drop(running);
    Program::alone().train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, "stopped, killed and resumed")?;
    let two = world.run("two");
    Program::on(2).train(&config, &two).run()?.expect(0);
    assert_eq!(decisions(&two)?, found, "on two ranks");
    // The step is kept with the state before it.
    let file = whole.join(format!("offending/step-{:08}.safetensors", found[0].0));
    assert_eq!(header(&file)?["offence"]["exact"], true);
    let ended = Program::alone().args(["replay".as_ref(), file.as_os_str()]).run()?.expect(0);
    assert!(ended.said.contains("\nreproduced"), "{}", ended.said);
    Ok(())
}

/// The rate of the third epoch ruins what the first two have learnt.
#[test]
fn an_accuracy_that_falls_to_chance_leads_back() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(320))?;
    let changes = [
        ("epochs", "4"),
        ("student.architecture", "\"resnet8\""),
        ("attack", "{ eps = \"1/255\", step = \"1/255\", steps = 1 }"),
        ("evaluation.selection", "\"held_out\""),
        ("evaluation.held_out", "0.2"),
        ("evaluation.eps", "\"1/255\""),
        ("evaluation.step", "\"1/255\""),
        ("optimizer.lr_policy", "{ step = { at = [2], factor = 1000 } }"),
        ("guard", "{ on_collapse = \"rollback\", gradient_factor = 0, rate_factor = 0.002, max_rollbacks = 1 }"),
    ];
    let config = world.config("ruin", &data, &changes)?;
    let (whole, run) = (world.run("whole"), world.run("run"));
    Program::alone().train(&config, &whole).run()?.expect(0);
    let found = guarded(&whole)?;
    let first = found.first().context("nothing was found")?;
    assert_eq!((first["kind"].as_str(), first["action"].as_str()), (Some("accuracy"), Some("rollback")), "{found:?}");
    // Of 256 images an epoch.
    let (step, to) = (first["step"].as_u64().context("a step")?, first["to"].as_u64().context("a step")?);
    assert!(step > 32 && step.is_multiple_of(16) && to + 16 == step, "{first}");
    assert!(first["value"].as_f64() <= first["limit"].as_f64(), "{first}");
    let events = metrics(&whole)?;
    let place = events.iter().position(|event| event["event"] == "guarded").context("an event")?;
    let next = events[place..].iter().find(|event| event["event"] == "step").context("a step")?;
    assert_eq!((next["step"].as_u64(), next["learning_rate"].as_f64()), (Some(to + 1), Some(50.0 * 0.002)));
    Program::alone().train(&config, &run).stop_after(step - 3).run()?.expect(85);
    Program::alone().train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, "stopped before it fell")
}
