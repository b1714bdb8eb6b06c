//! TorchScript networks of PyTorch under attack: the same answers as the eager network's, image by image, on any number of
//! ranks and after an interruption.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World, python, tell};

/// A world with a data set and the networks of `fixtures/torchscript.py`, unless there is no Python for it.
fn networks() -> Result<Option<(World, PathBuf, PathBuf)>> {
    let Some(python) = python("import torch, h5py") else {
        tell("skipped: TorchScript networks (no python with torch and h5py)");
        return Ok(None);
    };
    let world = World::new()?;
    let data = world.images("data", Images { test: 50, ..Images::colour(96) })?;
    let folder = data.parent().context("a folder")?.to_path_buf();
    python.script("torchscript.py", &["make".as_ref(), folder.as_ref(), "4".as_ref()])?;
    Ok(Some((world, data, folder)))
}

fn eval(ranks: usize, network: &Path, data: &Path) -> Program {
    let arguments = ["eval".as_ref(), network.as_os_str(), "--data".as_ref(), data.as_os_str()];
    Program::on(ranks).args(arguments).args(["--batch", "16"])
}

fn json(path: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(path).with_context(|| path.display().to_string())?)?)
}

fn numbers(value: &Value) -> Vec<i64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_i64).collect()
}

/// A column of a table of samples.
fn column(table: &str, place: usize) -> Vec<i64> {
    table.lines().skip(1).filter_map(|line| line.split(',').nth(place)?.parse().ok()).collect()
}

#[test]
fn a_script_is_attacked_as_pytorch_would_and_judged_alike_image_by_image() -> Result<()> {
    let Some((world, data, folder)) = networks()? else { return Ok(()) };
    let python = python("import torch, h5py").context("a python")?;
    let mut first = None;
    for (ranks, network) in
        [(1, "traced.pt"), (2, "traced.pt"), (1, "scripted.ts"), (3, "scripted.ts"), (1, "frozen.ts")]
    {
        let out = world.path(&format!("{network}-{ranks}"));
        let adversarial = out.join("new/found.h5");
        let ended = eval(ranks, &folder.join(network), &data)
            .args(["--suite", "pgd5,apgd_ce", "--eps", "24/255", "--out"])
            .args([out.as_os_str(), "--save-adversarial".as_ref(), adversarial.as_os_str()])
            .run()?
            .expect(0);
        assert!(ended.said.contains("TorchScript"), "{}", ended.said);
        let stem = network.split('.').next().unwrap_or_default();
        let name = format!("{stem}-evaluation-pgd5+apgd_ce-data-eps24_255-batch16");
        let found = json(&out.join(format!("{name}.json")))?;
        assert_eq!(
            found["network"],
            serde_json::json!({"architecture": "torchscript", "image": [3, 16, 16], "classes": 4})
        );
        assert_eq!(found["warnings"], Value::Array(vec![]), "{network}");
        assert_eq!((&found["step"], &found["images"]), (&0.into(), &50.into()));
        let table = fs::read_to_string(out.join(format!("{name}.samples.csv")))?;

        let judged = python
            .script("torchscript.py", &["judge".as_ref(), folder.as_ref(), data.as_ref(), adversarial.as_ref()])?;
        let judged: Value = serde_json::from_str(&judged)?;
        assert_eq!(column(&table, 2), numbers(&judged["natural"]), "{network}: predictions of the test images");
        let labels = column(&table, 1);
        let right: Vec<bool> =
            labels.iter().zip(numbers(&judged["adversarial"])).map(|(label, found)| *label == found).collect();
        let robust: Vec<bool> =
            table.lines().skip(1).map(|line| line.split(',').skip(3).all(|field| field == "stands")).collect();
        let natural: Vec<bool> = labels.iter().zip(column(&table, 2)).map(|(label, found)| *label == found).collect();
        let robust: Vec<bool> = robust.iter().zip(&natural).map(|(robust, natural)| *robust && *natural).collect();
        assert_eq!(right, robust, "{network}: predictions of the adversarial images");
        let count = robust.iter().filter(|robust| **robust).count();
        assert!(count > 0 && count < natural.iter().filter(|right| **right).count(), "nothing to tell apart: {count}");
        let expected = first.get_or_insert_with(|| table.clone());
        assert_eq!(*expected, table, "{network} on {ranks} ranks");
    }
    Ok(())
}

#[test]
fn an_interrupted_script_goes_on_where_it_was() -> Result<()> {
    let Some((world, data, folder)) = networks()? else { return Ok(()) };
    let out = world.path("out");
    let command = |ranks| {
        let program = eval(ranks, &folder.join("traced.pt"), &data).args(["--suite", "pgd200", "--out"]);
        program.args([out.as_os_str()])
    };
    let journal = || {
        let entries = fs::read_dir(&out).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "journal"))
    };
    let mut running = command(1).start()?;
    running.wait_until("a decided batch", || {
        journal().and_then(|path| fs::read_to_string(path).ok()).is_some_and(|text| text.lines().count() >= 3)
    })?;
    running.signal("TERM", &[running.process()]);
    running.wait()?.expect(85);
    let decided = fs::read_to_string(journal().context("a journal")?)?.lines().count();
    assert!(decided >= 3, "nothing was decided before the stop");
    command(2).run()?.expect(0);
    let name = "traced-evaluation-pgd200-data-batch16";
    let resumed = fs::read_to_string(out.join(format!("{name}.samples.csv")))?;
    fs::remove_dir_all(&out)?;
    command(1).run()?.expect(0);
    assert_eq!(fs::read_to_string(out.join(format!("{name}.samples.csv")))?, resumed);
    Ok(())
}

/// Images fall to the gradient of the file's `stand_in`, and to the answers of its `forward`.
#[test]
fn a_script_with_a_stand_in_falls_to_the_adaptive_check() -> Result<()> {
    let Some((world, data, folder)) = networks()? else { return Ok(()) };
    let python = python("import torch, h5py").context("a python")?;
    let mut first = None;
    for (ranks, network) in [(1, "rounded.ts"), (2, "rounded.ts"), (3, "rounded_traced.ts")] {
        let out = world.path(&format!("{network}-{ranks}"));
        let adversarial = out.join("found.h5");
        let ended = eval(ranks, &folder.join(network), &data)
            .args(["--suite", "pgd5,adaptive2", "--eps", "24/255", "--out"])
            .args([out.as_os_str(), "--save-adversarial".as_ref(), adversarial.as_os_str()])
            .run()?
            .expect(0);
        assert!(ended.said.contains("the adaptive check takes"), "{}", ended.said);
        let stem = network.trim_end_matches(".ts");
        let name = format!("{stem}-evaluation-pgd5+adaptive2-data-eps24_255-batch16");
        let found = json(&out.join(format!("{name}.json")))?;
        assert_eq!(found["network"]["stand_in"], true, "{found}");
        let correct = |place: usize| found["attacks"][place]["correct"].as_u64().context("a count");
        assert!(correct(2)? < correct(1)?, "{found}");
        let table = fs::read_to_string(out.join(format!("{name}.samples.csv")))?;
        let arguments = ["judge".as_ref(), folder.as_ref(), data.as_ref(), adversarial.as_ref(), "rounded".as_ref()];
        let judged: Value = serde_json::from_str(&python.script("torchscript.py", &arguments)?)?;
        let labels = column(&table, 1);
        let right =
            labels.iter().zip(numbers(&judged["adversarial"])).filter(|(label, found)| **label == *found).count();
        assert_eq!(right as u64, found["worst_case"]["correct"].as_u64().context("a count")?, "{network}");
        assert_eq!(*first.get_or_insert_with(|| table.clone()), table, "{network} on {ranks} ranks");
    }
    // Without the adaptive check the warning names its command.
    let program = eval(1, &folder.join("rounded.ts"), &data).args(["--suite", "natural,fgsm"]);
    let command = format!("`iad-launch eval {} --data {}", folder.join("rounded.ts").display(), data.display());
    let said = program.run()?.expect(0).said;
    assert!(said.contains(&command) && said.contains("--suite adaptive`"), "{command}: {said}");
    Ok(())
}

#[test]
fn doubtful_scripts_are_warned_of_and_impossible_ones_refused() -> Result<()> {
    let Some((world, data, folder)) = networks()? else { return Ok(()) };
    for (network, parts) in [
        ("softmax.ts", ["look like probabilities", "leave the softmax out"]),
        ("noisy.ts", ["the network is random", "two equal passes"]),
        ("training.ts", ["the network is random", "depend on the other images of its batch"]),
    ] {
        let program = eval(1, &folder.join(network), &data).args(["--suite", "natural"]);
        let said = program.run()?.expect(0).said;
        assert!(parts.iter().all(|part| said.contains(part)), "{network}: {said}");
        let stem = network.trim_end_matches(".ts");
        let found = json(&folder.join(format!("{stem}-evaluation-natural-data-batch16.json")))?;
        assert!(found["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty()), "{network}: {found}");
    }
    for (network, parts) in [
        ("half.ts", ["Half", "model.float()"]),
        ("fixed.ts", ["without", "gradient"]),
        ("wide.ts", ["stand_in", "4 logits"]),
        ("pair.ts", ["did not return a tensor", "the logits alone"]),
    ] {
        let program = |ranks| eval(ranks, &folder.join(network), &data).args(["--suite", "natural"]);
        for ranks in [1, 2] {
            program(ranks).run()?.expect(2).expect_error(&[network]).expect_error(&parts);
        }
    }
    let seven = world.images("seven", Images { classes: 7, ..Images::colour(16) })?;
    let program = eval(1, &folder.join("traced.pt"), &seven).args(["--suite", "natural"]);
    program.run()?.expect(2).expect_error(&["seven.h5", "7 classes", "at most 4 classes"]);
    let small = world.images("small", Images { shape: [3, 8, 8], ..Images::colour(16) })?;
    let program = eval(1, &folder.join("traced.pt"), &small).args(["--suite", "natural"]);
    program.run()?.expect(2).expect_error(&["traced.pt", "[16, 3, 8, 8]", "next:"]);
    // It is no checkpoint, and says what to do with it.
    let (script, made) = (folder.join("traced.pt"), world.path("made.safetensors"));
    let import = ["weights".as_ref(), "import".as_ref(), script.as_os_str()];
    let to = ["--to".as_ref(), made.as_os_str()];
    Program::alone().args(import).args(to).run()?.expect(2).expect_error(&["TorchScript", "iad-launch eval"]);
    Ok(())
}
