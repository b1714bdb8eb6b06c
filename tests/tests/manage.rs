//! What surrounds runs: lists and comparisons of them, forms of their results, the resolved configuration and every key,
//! help, completions, manual pages, and `--quiet`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World, checkout};

fn said(arguments: &[&str]) -> Result<String> {
    Ok(Program::alone().within(checkout()).args(arguments).run()?.expect(0).said)
}

fn json(arguments: &[&str]) -> Result<Value> {
    let said = said(arguments)?;
    serde_json::from_str(&said).with_context(|| said)
}

/// Two finished runs of different seeds, `runs/one` and `runs/two`, and one that was stopped, `runs/more/three`.
fn three_runs(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(40))?;
    let config = world.config("short", &data, &[("evaluation.suite", "[\"natural\", \"fgsm_rs\"]")])?;
    let runs = world.path("runs");
    Program::alone().train(&config, &runs.join("one")).run()?.expect(0);
    Program::alone().train(&config, &runs.join("two")).set("seed", 2).run()?.expect(0);
    Program::alone().train(&config, &runs.join("more/three")).stop_after(1).run()?.expect(85);
    Ok(runs)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn runs_are_listed_compared_and_reported_as_data() -> Result<()> {
    let world = World::new()?;
    let runs = three_runs(&world)?;
    let (folder, one, two) = (text(&runs), text(&runs.join("one")), text(&runs.join("two")));
    let evaluation: Value = serde_json::from_str(&fs::read_to_string(runs.join("one/evaluation.json"))?)?;
    let right = |attack: usize| evaluation["attacks"][attack]["correct"].as_f64().context("correct");
    let of = evaluation["attacks"][0]["of"].as_f64().context("of")?;

    let listed = json(&["runs", &folder, "--json"])?;
    let states: Vec<&str> =
        listed.as_array().context("a list")?.iter().filter_map(|run| run["state"].as_str()).collect();
    assert_eq!(states, ["stopped", "finished", "finished"], "{listed:#}");
    let natural = listed[1]["natural"]["percent"].as_f64().context("natural")?;
    assert!((natural - 100.0 * right(0)? / of).abs() < 1e-9, "{listed:#}");
    assert!(listed[1]["bytes"].as_u64().context("bytes")? > 10_000);
    let shown = said(&["runs", &folder])?;
    assert!(shown.contains("more/three") && shown.contains("stopped") && shown.contains("1 of 1"), "{shown}");

    fs::write(runs.join("two/metrics.jsonl"), "nothing of ours\n")?;
    let listed = json(&["runs", &folder, "--json"])?;
    assert_eq!(listed[2]["state"], "damaged");
    fs::remove_dir_all(runs.join("two"))?;
    let config = world.path("short.toml");
    Program::alone().train(&config, &runs.join("two")).set("seed", 2).run()?.expect(0);

    let compared = json(&["compare", &one, &two, "--json"])?;
    assert_eq!(compared["keys"], serde_json::json!([{ "key": "seed", "values": ["1", "2"] }]));
    let values = &compared["accuracies"][0]["values"];
    let difference = compared["accuracies"][0]["difference"]["percent"].as_f64().context("difference")?;
    let percent = |run: usize| values[run]["percent"].as_f64().context("percent");
    assert!((difference - (percent(1)? - percent(0)?)).abs() < 1e-9, "{compared:#}");
    let shown = said(&["compare", &one, &two])?;
    assert!(shown.contains("seed") && shown.contains("difference"), "{shown}");

    let page = runs.join("two/report.html");
    fs::remove_file(&page)?;
    let results = json(&["report", &one, &two, "--json"])?;
    assert_eq!(results[0]["attacks"]["fgsm_rs"]["correct"].as_f64(), Some(right(1)?));
    let csv = said(&["report", &one, &two, "--csv"])?;
    let row = csv.lines().nth(1).context("a row")?;
    assert!(csv.starts_with("run,weights,step,split,norm,eps,natural_correct,natural_of"), "{csv}");
    assert!(row.contains(&format!(",{},{of},", right(0)?)), "{csv}");
    let latex = said(&["report", &one, "--latex"])?;
    assert!(latex.contains(&format!("${:.2} \\pm", 100.0 * right(0)? / of)) && latex.contains("fgsm\\_rs"), "{latex}");
    assert!(!page.exists(), "a form of the results wrote a page");
    Program::alone().args(["report", &one, "--csv", "--json"]).run()?.expect(2);
    Ok(())
}

#[test]
fn a_run_under_way_is_listed_as_running() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let config = world.config("long", &data, &[("epochs", "5000"), ("metrics", "{ every = 1 }")])?;
    let runs = world.path("runs");
    let mut running = Program::alone().train(&config, &runs.join("long")).start()?;
    let recorded = || fs::read_to_string(runs.join("long/metrics.jsonl")).unwrap_or_default();
    running.wait_until("step 3", || recorded().contains("\"step\":3,"))?;
    let state = || Ok::<_, anyhow::Error>(json(&["runs", &text(&runs), "--json"])?[0]["state"].clone());
    let under_way = state()?;
    running.signal("USR1", &[running.process()]);
    running.wait()?.expect(85);
    assert_eq!((under_way, state()?), ("running".into(), "stopped".into()));
    Ok(())
}

#[test]
fn a_folder_without_runs_says_so() -> Result<()> {
    let world = World::new()?;
    let empty = text(&world.path(""));
    Program::alone().args(["runs", &empty]).run()?.expect(2).expect_error(&["run folders", "iad-launch CONFIG"]);
    assert_eq!(json(&["runs", &empty, "--json"])?, serde_json::json!([]));
    Ok(())
}

#[test]
fn a_configuration_is_printed_as_a_run_would_keep_it() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let config = world.config("short", &data, &[])?;
    let run = world.run("kept");
    Program::alone().train(&config, &run).set("seed", 3).stop_after(1).run()?.expect(85);
    let printed = said(&["config", &text(&config), "--set", "seed=3"])?;
    assert_eq!(printed, fs::read_to_string(run.join("run.toml"))?);
    assert_eq!(json(&["config", &text(&config), "--json"])?["epochs"], 1);

    let keys = json(&["config", "--keys", "--json"])?;
    let find = |path: &str| keys.as_array().and_then(|keys| keys.iter().find(|key| key["path"] == path));
    assert_eq!(find("optimizer.momentum").context("momentum")?["default"], "0.9");
    let shown = said(&["config", "--keys"])?;
    assert!(shown.contains("teachers.NAME.checkpoint (path, required") && shown.contains("    passes over"), "{shown}");
    Program::alone().args(["config"]).run()?.expect(2);
    Ok(())
}

#[test]
fn quiet_runs_show_results_and_warnings_alone() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let config = world.config("short", &data, &[("evaluation.selection", "\"test\"")])?;
    for (name, program) in [("alone", Program::alone()), ("two", Program::alone().starting_ranks(2))] {
        let run = world.run(name);
        let ended = program.train(&config, &run).args(["--quiet"]).run()?.expect(0);
        assert!(!ended.said.contains("epoch 1/1") && !ended.said.contains("training images of"), "{}", ended.said);
        assert!(ended.said.contains("warning: the best checkpoint is chosen on the test set"), "{}", ended.said);
        assert!(ended.said.contains("natural"), "no results: {}", ended.said);
        assert!(fs::read_to_string(run.join("console.log"))?.contains("epoch 1/1"));
    }
    Ok(())
}

/// A scheduler that keeps what it is given, in the place of the real one.
fn stand_in(world: &World, name: &str) -> Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = world.path("bin");
    fs::create_dir_all(&folder)?;
    let program = folder.join(name);
    fs::write(
        &program,
        format!("#!/bin/sh\necho handed in \"$1\"\ncat \"${{1:--}}\" > '{}'\n", text(&world.path("handed-in"))),
    )?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(format!("{}:{}", text(&folder), std::env::var("PATH")?))
}

#[test]
fn a_job_script_is_printed_written_and_submitted() -> Result<()> {
    let world = World::new()?;
    let config = world.config("short", &world.path("missing.h5"), &[])?;
    let words = ["sbatch", &text(&config), "--nodes", "2", "--gpus-per-node", "4", "--set", "attack.eps=4/255"];
    let printed = said(&words)?;
    assert!(printed.contains("#SBATCH --ntasks-per-node=4") && printed.contains("--set attack.eps=4/255"), "{printed}");
    for (scheduler, program, ending) in [("slurm", "sbatch", "slurm"), ("pbs", "qsub", "pbs"), ("lsf", "bsub", "lsf")] {
        let path = stand_in(&world, program)?;
        let submit = || {
            let sets = Program::alone().within(&world.path("")).variable("PATH", &path).args(words);
            sets.args(["--scheduler", scheduler, "--submit"])
        };
        let ended = submit().run()?.expect(0);
        assert!(ended.said.contains("handed in"), "{}", ended.said);
        let script = fs::read_to_string(world.path(&format!("short.{ending}")))?;
        assert_eq!(script, fs::read_to_string(world.path("handed-in"))?);
        // A shell understands it.
        let checked = Command::new("bash").arg("-n").arg(world.path(&format!("short.{ending}"))).output()?;
        assert!(checked.status.success(), "{checked:?}\n{script}");
        submit().run()?.expect(2).expect_error(&["does not exist yet"]);
    }
    let wrong = Program::alone().args(words).args(["--set", "optimiser.lr=1"]).run()?.expect(2);
    wrong.expect_error(&["did you mean `optimizer.lr`?"]);
    let without = Program::alone()
        .args(words)
        .args(["--to", &text(&world.path("x.slurm")), "--submit"])
        .variable("PATH", "/nowhere");
    without.run()?.expect(2).expect_error(&["--submit", "login node"]);
    Ok(())
}

#[test]
fn a_job_of_several_seeds_has_time_for_all_of_them() -> Result<()> {
    let world = World::new()?;
    let config = world.config("short", &world.images("data", Images::colour(40))?, &[])?;
    let script = |more: &[&str]| said(&[&["sbatch", &text(&config), "--gpus-per-node", "1"][..], more].concat());
    let minutes = |script: &str| -> Result<u32> {
        let clock = script.split("--time=").nth(1).and_then(|rest| rest.lines().next()).context("a limit")?;
        let parts: Vec<u32> = clock.split(':').map(str::parse).collect::<Result<_, _>>()?;
        Ok(60 * parts[0] + parts[1])
    };
    let seeds = script(&["--seeds", "1,2,3", "--run", "runs/three"])?;
    assert!(seeds.contains("short.toml --seeds 1,2,3 --run runs/three\n"), "{seeds}");
    let limit = |more: &[&str]| {
        let run = ["sbatch", "configs/paper/runs/cifar10_resnet18_at.toml", "--gpus-per-node", "1", "--gpu", "h100"];
        minutes(&said(&[&run[..], more].concat())?)
    };
    let (one, three) = (limit(&[])?, limit(&["--seeds", "1,2,3"])?);
    assert!(one >= 60 && (3 * one - 90..=3 * one).contains(&three), "{one} minutes for a seed, {three} for three");
    let wrong = Program::alone().args(["sbatch"]).args([&config]).args(["--seeds", "2,2"]).run()?.expect(2);
    wrong.expect_error(&["--seeds is 2, twice"]);
    Ok(())
}

/// The names of the commands in a help text.
fn commands_in(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or("").split("\n\n").next().unwrap_or("");
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_string).collect()
}

#[test]
fn every_command_has_help() -> Result<()> {
    let (mut waiting, mut seen) = (vec![vec![]], 0);
    while let Some(path) = waiting.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let help = said(&[&words[..], &["--help"]].concat())?;
        assert!(
            help.contains("Usage: iad-launch") && help.lines().next().is_some_and(|line| !line.is_empty()),
            "{help}"
        );
        // What an option does is said.
        let lonely = help.lines().zip(help.lines().skip(1)).find(|(line, next)| {
            let option = line.trim_start().starts_with('-') && !line.trim_start().contains("  ");
            option && next.trim().is_empty()
        });
        assert!(lonely.is_none(), "{words:?}: {lonely:?} says nothing");
        seen += 1;
        waiting.extend(commands_in(&help).into_iter().map(|name| [path.clone(), vec![name]].concat()));
    }
    assert!(seen >= 25, "{seen} commands");
    Ok(())
}

#[test]
fn shells_complete_and_manual_pages_are_written() -> Result<()> {
    let world = World::new()?;
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&["completions", shell])?;
        assert!(script.contains("iad-launch") && script.contains("doctor"), "{shell}: {script}");
        if shell == "bash" {
            let file = world.path("completions.bash");
            fs::write(&file, script)?;
            let complete = format!(
                "source '{}'; COMP_WORDS=(iad-launch do); COMP_CWORD=1; f=$(complete -p iad-launch | sed 's/.* -F //; s/ .*//'); \
                 $f iad-launch do iad-launch; echo ${{COMPREPLY[@]}}",
                file.display()
            );
            let output = Command::new("bash").args(["-c", &complete]).output()?;
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "doctor", "{output:?}");
        }
    }
    let pages = world.path("man");
    fs::create_dir(&pages)?;
    said(&["man", "--to", &text(&pages)])?;
    for page in ["iad-launch.1", "iad-launch-plan.1", "iad-launch-data-fetch.1"] {
        assert!(fs::read_to_string(pages.join(page))?.contains(".SH"), "{page}");
    }
    assert!(said(&["man"])?.contains(".TH iad-launch"));
    Program::alone().args(["man", "--to", "/no/such/folder"]).run()?.expect(2).expect_error(&["--to", "mkdir -p"]);
    Ok(())
}
