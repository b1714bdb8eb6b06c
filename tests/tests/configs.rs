//! The configurations that come with the program: all are accepted, and those of the paper take steps on CIFAR-10.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tests::{Images, Program, World, checkout, files_below, header, metrics, tell};
use toml::{Table, Value};

/// One image of CIFAR-10's binary files: its label and three colours of 32x32 pixels.
const RECORD: usize = 1 + 3 * 32 * 32;

/// The configurations of runs: what is in configs/ but presets, clusters and tables.
fn configurations() -> Result<Vec<PathBuf>> {
    let configs = checkout().join("configs");
    let mut paths = files_below(&configs)?;
    let others = ["losses", "clusters", "paper"].map(|folder| configs.join(folder));
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    paths.retain(|path| path.parent().is_some_and(|folder| !others.iter().any(|other| other == folder)));
    Ok(paths)
}

#[test]
fn every_configuration_is_accepted_up_to_its_data() -> Result<()> {
    let world = World::new()?;
    let paths = configurations()?;
    assert!(paths.len() >= 20, "{paths:?}");
    for path in paths {
        // Started elsewhere, the data it names are not there, and nothing comes before them.
        let run = world.run("none");
        let ended = Program::alone().within(&world.path("")).train(&path, &run).run()?.expect(2);
        ended.expect_error(&["data.train is missing", "iad-launch data fetch"]);
        assert!(!run.exists());
    }
    Ok(())
}

/// A teacher is trained by the command of its own configuration, into the folder in which the student looks for it.
#[test]
fn every_teacher_that_is_named_has_its_configuration() -> Result<()> {
    let mut count = 0;
    for path in configurations()? {
        let config: Table = fs::read_to_string(&path)?.parse()?;
        for (_, teacher) in config.get("teachers").and_then(Value::as_table).into_iter().flatten() {
            let of = |key: &str| teacher.get(key).and_then(Value::as_str).map(Path::new).context(key.to_string());
            let (file, run) = (of("config")?, of("checkpoint")?);
            ensure!(checkout().join(file).is_file(), "{}: {} is not there", path.display(), file.display());
            let name = file.file_stem().context("a name")?;
            ensure!(run.starts_with(Path::new("runs").join(name)), "{}: {}", path.display(), run.display());
            count += 1;
        }
    }
    assert!(count > 8, "{count} teachers");
    Ok(())
}

#[test]
fn every_configuration_begins_a_run_where_its_data_are_there() -> Result<()> {
    let world = World::new()?;
    let (grey, colour) = ([1, 28, 28], [3, 32, 32]);
    let images = |shape| Images { train: 64, test: 16, shape, classes: 10 };
    let (grey, colour) = (world.images("grey", images(grey))?, world.images("colour", images(colour))?);
    for path in configurations()? {
        let name = path.file_stem().and_then(|name| name.to_str()).context("a name")?;
        let data = if name.contains("cifar10") { &colour } else { &grey };
        let text = fs::read_to_string(&path)?;
        let mut program = Program::alone().train(&path, &world.run(name));
        for teacher_name in ["robust", "standard"] {
            if text.contains(&format!("[teachers.{teacher_name}]")) {
                let weights = world.teacher(data)?;
                program = program.set(&format!("teachers.{teacher_name}.checkpoint"), weights.display());
            }
        }
        // The networks of the paper take their steps in a test of their own.
        let small = [("student.architecture", "convnet"), ("batch.size", "8"), ("attack.steps", "1")];
        let small = small.iter().fold(program, |program, (key, value)| program.set(key, value));
        let mut small = small.set("data.train", data.display()).set("data.test", data.display());
        if text.contains("\nextra = ") {
            small = small.set("data.extra.file", data.display());
        }
        small.stop_after(1).run()?.expect(85);
    }
    Ok(())
}

/// Writes a small CIFAR-10 into `folder`, as published but with 20 images a batch. Says which images they are.
fn small_cifar10(folder: &Path) -> Result<&'static str> {
    fs::create_dir_all(folder)?;
    let (bytes, names, origin) = match real_test_batch(folder)? {
        Some((bytes, names)) => (bytes, names, "real CIFAR-10, from the test batch beside this checkout"),
        None => {
            let byte =
                |place: usize| if place.is_multiple_of(RECORD) { place / RECORD % 10 } else { place * 7919 / 16 };
            let bytes = (0..120 * RECORD).map(|place| byte(place) as u8).collect();
            let names: String = (0..10).map(|class| format!("class {class}\n")).collect();
            (bytes, names, "synthetic: there is no CIFAR-10 beside this checkout, or no python with numpy to unpack it")
        }
    };
    ensure!(bytes.len() >= 120 * RECORD, "the batch is too short");
    let files = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
    for (file, records) in files.iter().zip(bytes.chunks(20 * RECORD)) {
        fs::write(folder.join(format!("{file}.bin")), records)?;
    }
    fs::write(folder.join("batches.meta.txt"), names)?;
    Ok(origin)
}

/// The published test batch and the names of the classes, where they are stored beside this checkout.
fn real_test_batch(folder: &Path) -> Result<Option<(Vec<u8>, String)>> {
    let script = checkout().join("../shared/data/unpack.py");
    // The python that set-up installed beside libtorch has numpy.
    let python = Path::new(option_env!("LIBTORCH").unwrap_or("")).join("../../../../bin/python");
    if !script.is_file() || !python.exists() {
        return Ok(None);
    }
    let out = folder.join("unpacked");
    let mut command = Command::new(python);
    command.arg(script).args(["cifar10", "--files", "test_batch.bin", "--out"]).arg(&out);
    let ended = command.stdin(Stdio::null()).output()?;
    if !ended.status.success() {
        tell(&format!("unpack.py failed: {}", String::from_utf8_lossy(&ended.stderr)));
        return Ok(None);
    }
    let bytes = fs::read(out.join("cifar-10-batches-bin/test_batch.bin"))?;
    let names = fs::read_to_string(checkout().join("../shared/data/texts/batches.meta.txt"))?;
    Ok(Some((bytes, names)))
}

/// The configurations of the paper on two ranks: two steps of the networks they name, on tiny batches.
#[test]
fn the_configurations_of_the_paper_take_steps_on_cifar10() -> Result<()> {
    let world = World::new()?;
    let (folder, data) = (world.path("cifar-10-batches-bin"), world.path("cifar10.h5"));
    tell(&format!("images: {}", small_cifar10(&folder)?));
    let import = Program::alone().args(["data", "import", "cifar10", "--from"]).args([&folder]);
    import.args(["--to".as_ref(), data.as_os_str()]).run()?.expect(0);
    let teacher = world.teacher(&data)?;
    for (name, network) in [("paper/runs/cifar10_resnet18_iad1", "resnet18"), ("wrn_cifar10", "wrn-34-10")] {
        let (config, run) = (checkout().join(format!("configs/{name}.toml")), world.run(network));
        let small = Program::under_mpirun(2).train(&config, &run).set("batch.size", 4).set("attack.steps", 2);
        let small = small.set("data.train", data.display()).set("data.test", data.display());
        let small = small.set("teachers.robust.checkpoint", teacher.display()).set("metrics.every", 1);
        small.stop_after(2).limit(300).run()?.expect(85);
        let losses: Vec<f64> = metrics(&run)?.iter().filter_map(|event| event["loss"].as_f64()).collect();
        assert!(losses.len() == 2 && losses.iter().all(|loss| loss.is_finite()), "{name}: losses {losses:?}");
        let header = header(&run.join("checkpoints/step-00000002.safetensors"))?;
        assert_eq!(header["form"]["architecture"], network, "{header}");
    }
    Ok(())
}
