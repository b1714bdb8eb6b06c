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

#[test]
fn an_outlier_is_skipped_through_stops_and_on_two_ranks() -> Result<()> {
    let world = World::new()?;
    for optimizer in ["sgd", "adamw"] {
        let kind = format!("{optimizer:?}");
        let rate = if optimizer == "sgd" { "0.05" } else { "0.001" };
        let changes = [("guard.on_collapse", "\"skip\""), ("optimizer.kind", &*kind), ("optimizer.lr", rate)];
        let config = config(&world, optimizer, &changes)?;
        let [whole, run, two] = ["whole", "run", "two"].map(|name| world.run(&format!("{optimizer}-{name}")));
        Program::alone().train(&config, &whole).run()?.expect(0);
        let found = decisions(&whole)?;
        assert!(!found.is_empty() && found.iter().all(|(_, action)| action == "skip"), "{found:?}");
        for stop in [found[0].0, found[0].0 + 1, 20] {
            Program::alone().train(&config, &run).stop_after(stop).run()?.expect(85);
        }
        let skipped = header(&run.join("checkpoints/step-00000020.safetensors"))?["guarding"]["skipped"].as_u64();
        assert_eq!(skipped, Some(found.iter().filter(|(step, _)| *step <= 20).count() as u64));
        Program::alone().train(&config, &run).run()?.expect(0);
        assert_same_run(&whole, &run, "stopped and resumed")?;
        Program::on(2).train(&config, &two).run()?.expect(0);
        assert_eq!(decisions(&two)?, found, "{optimizer} on two ranks");
    }
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
        ("evaluation.selection", "\"held_out\""),
        ("evaluation.held_out", "0.2"),
        ("evaluation.eps", "\"1/255\""),
        ("evaluation.step", "\"1/255\""),
        ("optimizer.lr_policy", "{ step = { at = [2], factor = 400 } }"),
        ("guard.on_collapse", "\"rollback\""),
        ("guard.gradient_factor", "0"),
        ("guard.rate_factor", "0.002"),
        ("guard.max_rollbacks", "1"),
    ];
    let config = world.config("ruin", &data, &changes)?;
    let (run, warned) = (world.run("run"), world.run("warned"));
    Program::alone().train(&config, &run).run()?.expect(0);
    let found = guarded(&run)?;
    let evaluated: Vec<Value> = metrics(&run)?.into_iter().filter(|event| event["event"] == "evaluated").collect();
    assert_eq!(found.len(), 1, "{found:?} of {evaluated:?}");
    let steps = 320u64.div_ceil(16) * 4 / 5;
    assert_eq!((found[0]["kind"].as_str(), found[0]["step"].as_u64()), (Some("accuracy"), Some(3 * steps)));
    assert_eq!(found[0]["to"].as_u64(), Some(2 * steps));
    let accuracy = found[0]["value"].as_f64().context("an accuracy")?;
    assert!(accuracy <= found[0]["limit"].as_f64().context("a limit")?);
    Program::alone().train(&config, &warned).set("guard.on_collapse", "warn").run()?.expect(0);
    let warnings = decisions(&warned)?;
    assert!(!warnings.is_empty() && warnings.iter().all(|(_, action)| action == "warn"), "{warnings:?}");
    Ok(())
}
