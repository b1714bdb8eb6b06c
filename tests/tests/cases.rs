//! Situations that people reported of other tools: files that wrappers, other projects and other systems leave.
//!
//! The inputs are made by `fixtures/cases.py`. Where a folder `shared` with the reported files themselves lies beside the
//! checkout (or `IAD_SHARED` names it), they are tried as well, with the numbers that PyTorch gives for them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use datasets::{Container, Memory, Source, Split};
use serde_json::Value;
use tests::{Ended, Images, Program, Python, World, checkout, python, tell};

/// The normalisation of the network of `fixtures/cases.py`, and that of the reported one.
const OURS: &str = "0.5,0.25,0.5/0.125,0.0625,0.125";
const REPORTED: &str = "0.4914,0.4822,0.4465/0.2471,0.2435,0.2616";

/// The reported files, if they are there.
fn shared() -> Option<PathBuf> {
    let named = env::var_os("IAD_SHARED").map(PathBuf::from);
    let beside = [checkout().join("shared"), checkout().join("../shared")];
    named.into_iter().chain(beside).find(|folder| folder.join("cases/make.py").is_file())
}

fn pictures(from: &Path, to: &Path, more: &[&str]) -> Result<Ended> {
    let arguments = ["data", "import", "image-folder", "--from"];
    Program::alone().args(arguments).args([from.as_os_str(), "--to".as_ref(), to.as_os_str()]).args(more).run()
}

/// The rows about folders and archives of pictures, made in `folder`.
fn assert_pictures(folder: &Path, out: &Path) -> Result<()> {
    let import = |name: &str, more: &[&str]| pictures(&folder.join(name), &out.join(format!("{name}.h5")), more);
    for name in ["empty_class", "webp_class"] {
        let parts = ["train/b", "without a training image", "--allow-empty-classes"];
        import(name, &[])?.expect(2).expect_error(&parts);
        let said = import(name, &["--allow-empty-classes"])?.expect(0).said;
        assert!(said.contains("3: a, b, c") && said.contains("no image of 1 of 3 classes: b"), "{name}: {said}");
    }
    import("valid_split", &[])?.expect(0);
    let test = Container::open(&out.join("valid_split.h5"), Split::Test)?;
    assert_eq!((test.len(), test.class_names()), (12, &["a", "b", "c"].map(String::from)[..]));

    import("flat", &[])?.expect(2).expect_error(&["flat", "without folders of classes"]);
    assert!(!out.join("flat.h5").exists());

    let said = import("mac.zip", &[])?.expect(0).said;
    assert!(said.contains("left out: 24 (metadata of macOS or Windows)") && said.contains("__MACOSX"), "{said}");
    let count = |split| Ok::<_, anyhow::Error>(Container::open(&out.join("mac.zip.h5"), split)?.len());
    assert_eq!(count(Split::Train)? + count(Split::Test)?, 24);
    Ok(())
}

#[test]
fn pictures_are_taken_whole_or_refused() -> Result<()> {
    let world = World::new()?;
    let Some(python) = python("import zlib, zipfile") else {
        tell("skipped: pictures_are_taken_whole_or_refused (no python)");
        return Ok(());
    };
    let folder = world.path("");
    python.script("cases.py", &["pictures".as_ref(), folder.as_ref()])?;
    assert_pictures(&folder, &world.path("out"))
}

/// What `weights import` says of `file`, measured on `data`; the new file is `to`.
fn import(file: &Path, to: &Path, data: &Path, more: &[&str]) -> Result<String> {
    let import = ["weights".as_ref(), "import".as_ref(), file.as_os_str(), "--to".as_ref(), to.as_os_str()];
    let ended = Program::alone().args(import).args(["--data".as_ref(), data.as_os_str()]).args(more).run()?;
    Ok(ended.expect(0).said)
}

/// The number of images on which an import found its network right.
fn right(said: &str) -> Result<u64> {
    let count = said.split("right on ").nth(1).and_then(|rest| rest.split(' ').next()).context("a count")?;
    Ok(count.parse()?)
}

/// The natural accuracy of weights by `iad-launch eval`: right answers, and images.
fn natural(weights: &Path, data: &Path) -> Result<(u64, u64)> {
    let arguments = ["eval".as_ref(), weights.as_os_str(), "--data".as_ref(), data.as_os_str()];
    Program::alone().args(arguments).args(["--suite", "natural", "--batch", "64"]).run()?.expect(0);
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("{}-evaluation-natural-{}-batch64.json", stem(weights), stem(data));
    let found: Value = serde_json::from_str(&fs::read_to_string(weights.with_file_name(name))?)?;
    let count = |key: &str| found["attacks"][0][key].as_u64().context("a count");
    Ok((count("correct")?, count("of")?))
}

#[test]
fn a_network_is_the_same_under_every_wrapper_and_wrong_without_its_normalisation() -> Result<()> {
    let world = World::new()?;
    let Some(python) = python("import torch") else {
        tell("skipped: a_network_is_the_same_under_every_wrapper_and_wrong_without_its_normalisation (no torch)");
        return Ok(());
    };
    let data = world.images("data", Images { test: 100, ..Images::colour(128) })?;
    let changes = [
        ("student.architecture", "\"wrn-10-1\""),
        ("student.normalize", "{ mean = [0.5, 0.25, 0.5], std = [0.125, 0.0625, 0.125] }"),
        ("epochs", "4"),
        ("attack.kind", "\"none\""),
        ("loss.preset", "\"st\""),
        ("evaluation.suite", "[\"natural\"]"),
    ];
    let run = world.run("normalised");
    Program::alone().train(&world.config("normalised", &data, &changes)?, &run).run()?.expect(0);
    let found: Value = serde_json::from_str(&fs::read_to_string(run.join("evaluation.json"))?)?;
    let expected = found["attacks"][0]["correct"].as_u64().context("a count")?;
    assert!(expected > 70, "it has learned too little to tell anything apart: {expected} of 100");

    let exported = world.path("network.pth");
    let export = ["weights".as_ref(), "export".as_ref(), run.as_os_str(), "--to".as_ref(), exported.as_os_str()];
    Program::alone().args(export).args(["--weights", "final"]).run()?.expect(0);
    python.script("cases.py", &["wrap".as_ref(), world.path("").as_ref()])?;
    for name in ["bare.pt", "compiled.pt", "twice.pt", "averaged.pt", "lightning.ckpt", "beside.pt"] {
        let to = world.path(&format!("{name}.safetensors"));
        // One file tells its normalisation itself.
        let stated = ["--normalize", OURS];
        let said = import(&world.path(name), &to, &data, if name == "beside.pt" { &[] } else { &stated })?;
        assert_eq!(right(&said)?, expected, "{name}: {said}");
        assert!(!said.contains("warning"), "{name}: {said}");
    }
    assert_eq!(natural(&world.path("beside.pt.safetensors"), &data)?, (expected, 100));

    let without = world.path("without.safetensors");
    let said = import(&world.path("bare.pt"), &without, &data, &[])?;
    let wrong = right(&said)?;
    assert!(wrong < expected / 2, "{said}");
    assert!(said.contains("warning: ") && said.contains("--normalize"), "{said}");
    assert_eq!(natural(&without, &data)?, (wrong, 100));
    Ok(())
}

/// The first 1,000 test images of CIFAR-10, out of the published batch.
fn cifar10(shared: &Path, python: &Python, world: &World) -> Result<PathBuf> {
    const RECORD: usize = 1 + 3072;
    let (unpack, out) = (shared.join("data/unpack.py"), world.path("unpacked"));
    let arguments = ["cifar10", "--files", "test_batch.bin", "--out"];
    python.run(&unpack, &[&arguments.map(AsRef::as_ref)[..], &[out.as_ref()]].concat())?;
    let bytes = fs::read(out.join("cifar-10-batches-bin/test_batch.bin"))?;
    let (records, []) = bytes.as_chunks::<RECORD>() else { anyhow::bail!("a torn record") };
    ensure!(records.len() == 10_000, "{} records", records.len());
    let first = &records[..1000];
    let labels = first.iter().map(|record| i64::from(record[0])).collect();
    let pixels = first.iter().flat_map(|record| record[1..].to_vec()).collect();
    let names = "airplane automobile bird cat deer dog frog horse ship truck";
    let names: Vec<String> = names.split(' ').map(String::from).collect();
    let (path, memory) = (world.path("cifar10.h5"), Memory::new([3, 32, 32], names.clone(), pixels, labels)?);
    datasets::write(&path, "cifar10", "the first test images", &names, &[(Split::Test, &memory)])?;
    Ok(path)
}

/// A world with the reported inputs in its folder `cases`, and the folder of the files they are made from.
fn reported(what: &str) -> Result<Option<(World, PathBuf, PathBuf, Python)>> {
    let found = shared().zip(python("import torch, numpy"));
    let Some((shared, python)) = found else {
        tell(&format!("left out: {what} (the reported files, or a python with torch and numpy, are not here)"));
        return Ok(None);
    };
    let world = World::new()?;
    let (cases, inputs) = (shared.join("cases"), world.path("cases"));
    fs::create_dir(&inputs)?;
    let python = python.within(&inputs);
    python.run(&cases.join("make.py"), &[cases.as_ref()])?;
    Ok(Some((world, shared, inputs, python)))
}

#[test]
fn the_reported_networks_are_right_as_often_as_in_pytorch() -> Result<()> {
    let Some((world, shared, inputs, python)) = reported("the reported networks")? else { return Ok(()) };
    let (data, cases) = (cifar10(&shared, &python, &world)?, shared.join("cases"));
    let stated = ["--normalize", REPORTED];
    let rows: [(&Path, &str, &[&str], u64); 8] = [
        (&cases, "wrn_10_2.pt", &[], 623),
        (&inputs, "compiled.pt", &[], 623),
        (&inputs, "twice.pt", &[], 623),
        (&inputs, "averaged.pt", &[], 623),
        (&inputs, "lightning.ckpt", &[], 623),
        (&cases, "wrn_10_2_normalised.pt", &stated, 638),
        (&inputs, "normalizer_beside.pt", &[], 638),
        (&cases, "wrn_10_2_normalised.pt", &[], 168),
    ];
    for (number, (folder, name, more, expected)) in rows.into_iter().enumerate() {
        let said = import(&folder.join(name), &world.path(&format!("{number}.safetensors")), &data, more)?;
        assert!(said.contains("303706 parameters"), "{name}: {said}");
        assert_eq!((right(&said)?, said.contains("warning: ")), (expected, expected == 168), "{name}: {said}");
    }
    assert_eq!(natural(&world.path("1.safetensors"), &data)?, (623, 1000));
    assert_eq!(natural(&world.path("6.safetensors"), &data)?, (638, 1000));

    let to = world.path("preact.safetensors");
    let import = ["weights", "import", "--image", "3x32x32", "--to"];
    let preact = inputs.join("preact_with_last_norm.pt");
    let said = Program::alone().args(import).args([to.as_os_str(), preact.as_os_str()]).run()?.expect(0).said;
    assert!(said.contains("preact-resnet18 for 3x32x32 images and 10 classes"), "{said}");
    Ok(())
}

#[test]
fn the_reported_images_and_classes_get_the_right_answers() -> Result<()> {
    let Some((world, _, inputs, _)) = reported("the reported images and classes")? else { return Ok(()) };
    let out = world.path("out");
    assert_pictures(&inputs, &out)?;
    let [three, two] = ["three", "two"].map(|name| out.join(format!("{name}.h5")));
    pictures(&inputs.join("three"), &three, &[])?.expect(0);
    pictures(&inputs.join("two"), &two, &[])?.expect(0);

    let standard = [
        ("epochs", "4"),
        ("attack.kind", "\"none\""),
        ("loss.preset", "\"st\""),
        ("evaluation.suite", "[\"natural\"]"),
    ];
    let run = world.run("three");
    Program::alone().train(&world.config("three", &three, &standard)?, &run).run()?.expect(0);
    let weights = run.join("checkpoints/final.safetensors");
    assert_eq!(natural(&weights, &two)?, (80, 80));

    let teacher = format!("{:?}", weights.display().to_string());
    let terms = r#"[{ name = "teach", of = "natural", towards = { network = "robust", images = "natural" } }]"#;
    let taught = [
        ("teachers.robust.checkpoint", &teacher[..]),
        ("loss.terms", terms),
        ("data.subset.classes", r#"["cow", "bee", "ant"]"#),
        ("attack.kind", "\"none\""),
        ("evaluation.suite", "[\"natural\"]"),
    ];
    let run = world.run("taught");
    Program::alone().train(&world.config("taught", &three, &taught)?, &run).run()?.expect(0);
    let events = tests::metrics(&run)?;
    let epoch = events.iter().find(|event| event["event"] == "epoch").context("an epoch")?;
    let counts = &epoch["counts"]["teacher_natural"];
    assert_eq!((&counts["count"], &counts["of"]), (&120.into(), &120.into()), "{epoch}");

    let eight = out.join("eight.h5");
    let npz = ["data", "import", "npz", "--from"];
    let npz = Program::alone().args(npz).args([inputs.join("eight.npz").as_os_str()]);
    npz.args(["--to".as_ref(), eight.as_os_str()]).run()?.expect(0);
    let small = [("student.architecture", "\"resnet18\""), ("evaluation.suite", "[]")];
    let config = world.config("eight", &eight, &small)?;
    for ranks in [1, 2] {
        let ended = Program::on(ranks).train(&config, &world.run(&format!("eight-on-{ranks}"))).run()?.expect(2);
        ended.expect_error(&["batch.size", "33 training images end with a batch of 1"]);
    }
    Ok(())
}
