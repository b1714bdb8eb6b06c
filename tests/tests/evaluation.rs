//! Evaluations of finished weights: the same on any number of ranks and after any interruption, and what they leave behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World};

/// Short searches, towards three classes.
const SHORT: &str = "{ iterations = 3, queries = 10 }";

/// A trained run with `test` test images, and its container.
fn trained(world: &World, test: usize, autoattack: &str) -> Result<(PathBuf, PathBuf)> {
    let data = world.images("data", Images { test, ..Images::colour(96) })?;
    let changes = [
        ("student.architecture", "\"resnet8\""),
        ("evaluation.suite", "[]"),
        ("evaluation.autoattack", autoattack),
        ("evaluation.eps", "\"12/255\""),
    ];
    let (config, run) = (world.config("evaluated", &data, &changes)?, world.run("evaluated"));
    Program::alone().train(&config, &run).run()?.expect(0);
    Ok((data, run))
}

fn eval(ranks: usize, subject: &Path) -> Program {
    Program::on(ranks).args(["eval".as_ref(), subject.as_os_str()])
}

fn json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

/// The numbers of an evaluation without clocks and ranks, and the table of its samples.
fn results(run: &Path, name: &str) -> Result<(Value, String)> {
    let found = json(&run.join(format!("{name}.json")))?;
    let numbers = ["attacks", "components", "worst_case", "warnings"].map(|key| found[key].clone());
    Ok((numbers.to_vec().into(), fs::read_to_string(run.join(format!("{name}.samples.csv")))?))
}

fn journals(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|ending| ending == "journal")).collect()
}

fn forget(run: &Path, name: &str) -> Result<()> {
    fs::remove_file(run.join(format!("{name}.json")))?;
    Ok(fs::remove_file(run.join(format!("{name}.samples.csv")))?)
}

/// `evaluation.images` is what `eval --images` does: the first images, alone and in the same way.
#[test]
fn a_trial_evaluates_the_first_images() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(96))?;
    let changes = [("evaluation.suite", "[\"natural\", \"pgd2\"]")];
    let (config, run, whole) = (world.config("trial", &data, &changes)?, world.run("trial"), world.run("whole"));
    let train = |run: &Path| Program::alone().train(&config, run);
    train(&whole).run()?.expect(0);
    train(&run).set("evaluation.images", 20).run()?.expect(0);
    let (found, all) = (json(&run.join("evaluation.json"))?, json(&whole.join("evaluation.json"))?);
    assert_eq!([&found["images"], &all["images"]], [20, 32]);
    eval(1, &whole).args(["--images", "20"]).run()?.expect(0);
    let expected = results(&whole, "evaluation-first20")?;
    assert_eq!(results(&run, "evaluation")?, expected);
    // An evaluation of the run takes as many, and `--images` others.
    eval(1, &run).args(["--seed", "9"]).run()?.expect(0);
    assert_eq!(json(&run.join("evaluation-seed9.json"))?["images"], 20);
    eval(1, &run).args(["--images", "32"]).run()?.expect(0);
    assert_eq!(json(&run.join("evaluation-first32.json"))?["images"], 32);
    // The key is written where it is set, and nowhere else.
    let resolved = |run: &Path| fs::read_to_string(run.join("run.toml"));
    assert!(resolved(&run)?.contains("images = 20") && !resolved(&whole)?.contains("\nimages ="));
    let too_many = train(&world.run("more")).set("evaluation.images", 33).run()?;
    too_many.expect(2).expect_error(&["evaluation.images", "33", "at most the 32 images"]);
    Ok(())
}

#[test]
fn every_image_counts_once_on_any_number_of_ranks() -> Result<()> {
    let world = World::new()?;
    let (_, run) = trained(&world, 1003, SHORT)?;
    let name = "evaluation-fgsm+autoattack-batch64";
    let suite = ["--suite", "fgsm,autoattack", "--batch"];
    let mut first = None;
    for ranks in [1, 2, 3] {
        eval(ranks, &run).args(suite).args(["64"]).run()?.expect(0);
        let (numbers, table) = results(&run, name)?;
        assert_eq!(table.lines().count(), 1004);
        assert!(numbers[0].as_array().context("attacks")?.iter().all(|attack| attack["of"] == 1003), "{numbers}");
        let (expected, samples) = first.get_or_insert_with(|| (numbers.clone(), table.clone()));
        assert_eq!((&*expected, &*samples), (&numbers, &table), "on {ranks} ranks");
        forget(&run, name)?;
    }
    let (numbers, table) = first.context("three evaluations")?;
    let attacked = numbers[0][2]["correct"].as_u64().context("a count")?;
    assert!(attacked > 0 && attacked < 1003, "nothing to tell apart: {numbers}");
    // Two threads, and batches of another size.
    eval(1, &run).args(suite).args(["64"]).variable("OMP_NUM_THREADS", "2").run()?.expect(0);
    assert_eq!(results(&run, name)?, (numbers.clone(), table.clone()));
    eval(1, &run).args(suite).args(["16"]).run()?.expect(0);
    assert_eq!(results(&run, "evaluation-fgsm+autoattack-batch16")?, (numbers, table));
    Ok(())
}

#[test]
fn an_evaluation_in_l2_is_the_same_on_any_number_of_ranks() -> Result<()> {
    let world = World::new()?;
    let (_, run) = trained(&world, 203, SHORT)?;
    let name = "evaluation-fgsm+pgd10+autoattack-l2-eps1.5-batch32";
    let mut first = None;
    for ranks in [1, 2, 3] {
        let options = ["--norm", "l2", "--eps", "1.5", "--suite", "fgsm,pgd10,autoattack", "--batch", "32"];
        let ended = eval(ranks, &run).args(options).run()?.expect(0);
        assert!(ended.said.contains("attacks of norm l2, eps 1.5"), "{}", ended.said);
        let found = json(&run.join(format!("{name}.json")))?;
        assert_eq!(
            (&found["norm"], &found["eps"], &found["attack_step"]),
            (&"l2".into(), &1.5.into(), &(15.0 / 255.0).into())
        );
        assert_eq!(found["warnings"], Value::Array(vec![]), "{found}");
        let results = results(&run, name)?;
        assert_eq!(&*first.get_or_insert(results.clone()), &results, "on {ranks} ranks");
        forget(&run, name)?;
    }
    let (numbers, _) = first.context("three evaluations")?;
    let of = |attack: usize| numbers[0][attack]["correct"].as_u64().context("a count");
    assert!(of(0)? > of(3)? && of(2)? > 0, "nothing to tell apart: {numbers}");

    eval(1, &run).args(["--suite", "natural"]).run()?.expect(0);
    assert_eq!(json(&run.join("evaluation-natural.json"))?.get("norm"), None);
    eval(1, &run).args(["--norm", "l2", "--suite", "paper"]).run()?.expect(2).expect_error(&["cw_inf", "l2"]);
    eval(1, &run).args(["--norm", "l2", "--eps", "2000"]).run()?.expect(2).expect_error(&["--eps", "1,000"]);
    eval(1, &run).args(["--norm", "l1"]).run()?.expect(2).expect_error(&["linf or l2"]);
    Ok(())
}

/// Each round and image once.
fn assert_nothing_is_repeated(journal: &Path) -> Result<usize> {
    let text = fs::read_to_string(journal)?;
    let mut decided = vec![];
    for line in text.lines().skip(1) {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        for batch in line["step"]["batches"].as_array().context("batches")? {
            for sample in batch["samples"].as_array().context("samples")? {
                decided.push((line["step"]["round"].as_u64(), sample.as_u64()));
            }
        }
    }
    let all = decided.len();
    decided.sort_unstable();
    decided.dedup();
    assert_eq!(decided.len(), all, "an image was decided twice in a round");
    Ok(all)
}

#[test]
fn killed_in_every_attack_it_goes_on_with_what_was_decided() -> Result<()> {
    let world = World::new()?;
    let (_, run) = trained(&world, 80, "{ iterations = 20, queries = 400 }")?;
    let (name, adversarial) = ("evaluation-pgd40+autoattack-eps2_255", world.path("found.h5"));
    let evaluate = |ranks| {
        let saved = ["--save-adversarial".as_ref(), adversarial.as_os_str()];
        eval(ranks, &run).args(["--suite", "pgd40,autoattack", "--eps", "2/255"]).args(saved)
    };
    evaluate(1).run()?.expect(0);
    let whole = results(&run, name)?;
    forget(&run, name)?;
    let images = fs::read(&adversarial)?;
    fs::remove_file(&adversarial)?;

    // natural, pgd40, apgd_ce, three targets of apgd_t and fab_t each, square.
    let mut before = 0;
    for (round, ranks) in [(0, 1), (1, 2), (2, 1), (4, 3), (6, 2), (9, 1)] {
        let mut running = evaluate(ranks).start()?;
        let reached = || {
            let journal = journals(&run).pop().and_then(|path| fs::read_to_string(path).ok());
            journal.is_some_and(|text| text.contains(&format!("\"round\":{round},")))
        };
        running.wait_until("the round", reached)?;
        running.kill_all();
        assert_ne!(running.wait()?.code, Some(0), "it was over before it was killed in round {round}");
        let decided = assert_nothing_is_repeated(&journals(&run)[0])?;
        assert!(decided > before, "nothing was done in round {round}");
        before = decided;
        assert!(!adversarial.exists() && !run.join(format!("{name}.json")).exists());
    }
    // The last line is cut in two, as by a full disk.
    let journal = journals(&run).pop().context("a journal")?;
    let text = fs::read(&journal)?;
    fs::write(&journal, &text[..text.len() - 9])?;
    let ended = evaluate(2).run()?.expect(0);
    assert!(ended.said.contains("damaged line"), "{}", ended.said);
    assert_eq!(results(&run, name)?, whole);
    assert!(journals(&run).is_empty());
    assert!(fs::read(&adversarial)? == images, "other adversarial images");
    evaluate(1).run()?.expect(2).expect_error(&["found.h5", "does not exist yet"]);
    Ok(())
}

#[test]
fn a_request_to_stop_is_heard_between_batches() -> Result<()> {
    let world = World::new()?;
    let (_, run) = trained(&world, 96, "{ iterations = 20, queries = 200 }")?;
    let evaluate = |ranks| eval(ranks, &run).args(["--suite", "autoattack", "--batch", "16"]);
    let mut running = evaluate(1).start()?;
    running.wait_until("the first step", || {
        !journals(&run).is_empty() && fs::metadata(&journals(&run)[0]).is_ok_and(|file| file.len() > 500)
    })?;
    running.signal("TERM", &[running.process()]);
    let ended = running.wait()?.expect(85);
    assert!(ended.said.contains("the same command goes on"), "{}", ended.said);
    // Other weights, seeds and protocols begin journals of their own.
    let journal = journals(&run);
    eval(1, &run).args(["--suite", "natural", "--batch", "16", "--seed", "5"]).run()?.expect(0);
    assert_eq!(journals(&run), journal);
    evaluate(2).run()?.expect(0);
    assert!(journals(&run).is_empty());
    Ok(())
}

#[test]
fn weights_alone_need_data_and_leave_a_table() -> Result<()> {
    let world = World::new()?;
    let (data, run) = trained(&world, 48, SHORT)?;
    let weights = run.join("checkpoints/final.safetensors");
    eval(1, &weights).run()?.expect(2).expect_error(&["final.safetensors", "--data"]);
    let (out, csv) = (world.path("out"), world.path("table.csv"));
    fs::create_dir(&out)?;
    let ended = eval(1, &weights)
        .args(["--data".as_ref(), data.as_os_str(), "--out".as_ref(), out.as_os_str()])
        .args(["--csv".as_ref(), csv.as_os_str()])
        .args(["--suite", "natural,pgd20,cw_inf,apgd_ce", "--eps", "64/255", "--batch", "16", "--images", "40"])
        .run()?
        .expect(0);
    let name = "final-evaluation-first40-natural+pgd20+cw_inf+apgd_ce-data-eps64_255-batch16.json";
    let found = json(&out.join(name))?;
    assert_eq!((&found["images"], &found["batch"], &found["selection"]), (&40.into(), &16.into(), &"none".into()));
    assert_eq!(found["autoattack_standard"], false);
    assert_eq!(found["network"]["classes"], 4);
    assert!(
        ["weights_sha256", "data_sha256"].iter().all(|key| found[*key].as_str().is_some_and(|text| text.len() == 64))
    );
    // Trained at 8/255 for an epoch, it has nothing to set against 64/255.
    assert_eq!(found["worst_case"]["correct"], 0, "{found}");
    let table = fs::read_to_string(&csv)?;
    assert!(table.starts_with("attack,component,correct,of,accuracy,standard_error,seconds\nnatural,,"), "{table}");
    assert_eq!(table.lines().count(), 6);
    assert!(ended.said.contains("worst case") && ended.said.contains("not the standard version"), "{}", ended.said);
    for (option, value) in
        [("--eps", "0"), ("--batch", "17"), ("--suite", "cw"), ("--csv", csv.to_str().context("UTF-8")?)]
    {
        eval(1, &run).args([option, value]).run()?.expect(2).expect_error(&["expected"]);
    }
    Ok(())
}

#[test]
fn too_few_classes_are_found_before_training() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images { classes: 3, ..Images::colour(32) })?;
    let config = world.config("few", &data, &[("evaluation.suite", "[\"paper\"]")])?;
    let run = world.run("few");
    Program::alone().train(&config, &run).run()?.expect(2).expect_error(&["at least 4 classes", "fab_t"]);
    assert!(!run.exists());
    Ok(())
}

/// On a CPU, TF32 is float32; bfloat16 is another evaluation and says so.
#[test]
fn another_precision_is_stated_and_has_a_file_of_its_own() -> Result<()> {
    let world = World::new()?;
    let (_, run) = trained(&world, 32, SHORT)?;
    for precision in ["float32", "tf32", "bfloat16"] {
        eval(1, &run).args(["--suite", "natural,fast", "--precision", precision]).run()?.expect(0);
    }
    let name = |precision: &str| format!("evaluation-natural+fast-{precision}");
    assert_eq!(results(&run, &name("tf32"))?, results(&run, &name("float32"))?);
    let found = |precision: &str| json(&run.join(format!("{}.json", name(precision))));
    assert_eq!(found("float32")?.get("precision"), None);
    assert_eq!([found("tf32")?["precision"].clone(), found("bfloat16")?["precision"].clone()], ["tf32", "bfloat16"]);
    assert_eq!(found("bfloat16")?["autoattack_standard"], Value::Null);
    assert!(found("bfloat16")?["timing"]["precision"].as_str().is_some_and(|name| name.starts_with("bfloat16")));
    let table = fs::read_to_string(run.join(format!("{}.samples.csv", name("bfloat16"))))?;
    assert!(table.contains("fast"), "{table}");
    eval(1, &run).args(["--precision", "float64"]).run()?.expect(2);
    Ok(())
}
