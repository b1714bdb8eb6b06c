//! What a run is: which keys and inputs may change when it is resumed, and which are refused by name.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datasets::{Memory, Split};
use serde_json::Value;
use tests::{Images, Program, World, metrics, tensors};

fn config(world: &World, data: &Path) -> Result<PathBuf> {
    world.config("short", data, &[("epochs", "2")])
}

/// A data set in the shapes of `Images::colour(48)` with other pixels.
fn other_images(world: &World) -> Result<PathBuf> {
    let path = world.path("other.h5");
    let classes: Vec<String> = (0..4).map(|class| format!("pattern {class}")).collect();
    let split = |count: usize, shift: usize| {
        let pixels = (0..count * 3 * 16 * 16).map(|place| (place * 7 + shift) as u8).collect();
        Memory::new([3, 16, 16], classes.clone(), pixels, (0..count as i64).map(|label| label % 4).collect())
    };
    let (train, test) = (split(48, 1)?, split(32, 2)?);
    datasets::write(&path, "data", "made for a test", &classes, &[(Split::Train, &train), (Split::Test, &test)])?;
    Ok(path)
}

fn changes(run: &Path) -> Result<Vec<Value>> {
    Ok(metrics(run)?.into_iter().filter(|event| event["event"] == "changed").collect())
}

#[test]
fn swapped_images_are_refused_and_moved_ones_are_not() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(48))?;
    let config = config(&world, &data)?;
    let run = world.run("run");
    Program::alone().train(&config, &run).stop_after(2).run()?.expect(85);
    let before = fs::read(run.join("metrics.jsonl"))?;

    let moved = world.path("moved.h5");
    fs::rename(&data, &moved)?;
    fs::copy(other_images(&world)?, &data)?;
    let swapped = Program::alone().train(&config, &run).run()?.expect(2);
    swapped.expect_error(&["the images of data.test", "other contents", "put the old file back"]);
    assert_eq!(fs::read(run.join("metrics.jsonl"))?, before);

    let program = Program::alone().train(&config, &run).set("data.train", moved.display());
    program.set("data.test", moved.display()).run()?.expect(0);
    let changed = changes(&run)?;
    let keys: Vec<&str> = changed.iter().filter_map(|event| event["key"].as_str()).collect();
    assert_eq!(keys, ["data.train", "data.test"]);
    Ok(())
}

#[test]
fn a_swapped_teacher_is_refused() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(48))?;
    let teacher = world.teacher(&data)?;
    let changes = World::distil(&teacher);
    let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let config = world.config("distil", &data, &changes)?;
    let run = world.run("run");
    Program::alone().train(&config, &run).stop_after(1).run()?.expect(85);

    let network = [("student.architecture", "\"resnet8\""), ("evaluation.suite", "[]"), ("seed", "2")];
    let (another, trained) = (world.config("another", &data, &network)?, world.run("another"));
    Program::alone().train(&another, &trained).run()?.expect(0);
    fs::copy(trained.join("checkpoints/final.safetensors"), &teacher)?;
    let swapped = Program::alone().train(&config, &run).run()?.expect(2);
    swapped.expect_error(&["the weights of teachers.robust", "other contents"]);
    Ok(())
}

#[test]
fn a_finished_run_becomes_longer_and_is_the_long_run_to_the_bit() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(48))?;
    let config = config(&world, &data)?;
    let (run, whole) = (world.run("run"), world.run("whole"));
    Program::alone().train(&config, &whole).set("epochs", 3).run()?.expect(0);
    Program::alone().train(&config, &run).run()?.expect(0);
    let before = fs::read_to_string(run.join("run.toml"))?;

    let longer = || Program::alone().train(&config, &run).set("epochs", 3);
    longer().stop_after(7).run()?.expect(85);
    assert_eq!(fs::read_to_string(run.join("run-1.toml"))?, before);
    assert!(fs::read_to_string(run.join("run.toml"))?.contains("epochs = 3"));
    let ended = longer().run()?.expect(0);
    assert!(ended.said.contains("trained 9 steps") && !ended.said.contains("not finished"), "{}", ended.said);
    let last = |run: &Path| tensors(&run.join("checkpoints/final.safetensors"));
    assert!(last(&run)? == last(&whole)?, "final weights");
    let trained = |run: &Path| -> Result<Vec<Value>> {
        Ok(metrics(run)?
            .into_iter()
            .filter(|event| ["step", "epoch"].map(Value::from).contains(&event["event"]))
            .collect())
    };
    assert_eq!(trained(&run)?, trained(&whole)?);
    let changed = changes(&run)?;
    let change = changed.first().context("a change")?;
    assert_eq!(
        (changed.len(), &change["key"], &change["before"], &change["now"]),
        (1, &"epochs".into(), &"2".into(), &"3".into())
    );

    Program::alone()
        .train(&config, &run)
        .run()?
        .expect(2)
        .expect_error(&["epochs = 3 there, 2 now", "only become longer"]);
    Ok(())
}

#[test]
fn more_epochs_are_added_once_however_often_the_command_is_repeated() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(48))?;
    let config = config(&world, &data)?;
    let (run, whole) = (world.run("run"), world.run("whole"));
    Program::alone().train(&config, &whole).set("epochs", 3).run()?.expect(0);
    let more = || Program::alone().args(["train".as_ref(), run.as_os_str()]).args(["--more-epochs", "1"]);
    more().run()?.expect(2).expect_error(&["--more-epochs", "a run folder in the place of CONFIG"]);
    Program::alone().train(&config, &run).stop_after(4).run()?.expect(85);
    // It has two epochs of its own to finish.
    let said = more().run()?.expect(0).said;
    assert!(said.contains("has not finished its 2 epochs") && said.contains("trained 6 steps"), "{said}");

    let finished = fs::read_to_string(run.join("metrics.jsonl"))?;
    assert!(finished.lines().last().is_some_and(|line| line.contains("\"event\":\"finished\"")), "{finished}");
    let said = more().stop_after(7).run()?.expect(85).said;
    assert!(said.contains("is trained to 3 epochs, 1 more than before"), "{said}");
    // A run that was killed before it cut its metrics has their old end, and is not finished.
    fs::write(run.join("metrics.jsonl"), finished)?;
    fs::remove_file(run.join("checkpoints/step-00000007.safetensors"))?;
    let said = more().run()?.expect(0).said;
    assert!(said.contains("has not finished its 3 epochs") && said.contains("trained 9 steps"), "{said}");
    let last = |run: &Path| tensors(&run.join("checkpoints/final.safetensors"));
    assert!(last(&run)? == last(&whole)?, "final weights");
    Ok(())
}

#[test]
fn another_evaluation_is_made_and_another_method_is_refused() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(48))?;
    let config = config(&world, &data)?;
    let run = world.run("run");
    Program::alone().train(&config, &run).run()?.expect(0);
    let program = || Program::alone().train(&config, &run);
    let weights = fs::read(run.join("checkpoints/final.safetensors"))?;
    program().args(["--set", "evaluation.suite=[\"natural\", \"fgsm\"]"]).run()?.expect(0);
    let text = fs::read_to_string(run.join("evaluation.json"))?;
    assert!(text.contains("fgsm") && !text.contains("pgd2"), "{text}");
    assert_eq!(tensors(&run.join("checkpoints/final.safetensors"))?.len(), safe(&weights)?);
    let refused = program().set("optimizer.lr", "0.06").set("seed", 3).run()?.expect(2);
    refused.expect_error(&["optimizer.lr = 0.05 there, 0.06 now", "seed = 1 there, 3 now", "decides the result"]);
    Ok(())
}

fn safe(bytes: &[u8]) -> Result<usize> {
    Ok(safetensors::SafeTensors::deserialize(bytes)?.len())
}

/// Mistakes of a user are told as such, with the way out.
#[test]
fn mistakes_are_no_bugs() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(48))?;
    let config = config(&world, &data)?;
    let run = world.run("run");
    let program = || Program::alone().train(&config, &run);
    let held_out = program().set("evaluation.selection", "held_out").set("evaluation.held_out", "0.9999");
    held_out.run()?.expect(2).expect_error(&["evaluation.held_out", "0.9999 of 48 images"]);
    let classes = program().set("student.classes", i64::MAX).run()?.expect(2);
    classes.expect_error(&["student.classes", "1 to 1,048,576"]);
    let huge = program().set("student.architecture", "wrn-1000-64").run()?.expect(2);
    huge.expect_error(&["student.architecture", "bytes; this machine has"]);

    let odd = world.path("a").with_file_name(OsStr::from_bytes(b"odd-\xff"));
    Program::alone().train(&config, &odd).run()?.expect(0);
    assert!(odd.join("evaluation.json").is_file());
    Ok(())
}

/// 33 images in batches of 16 leave one, and 8x8 pixels are one value in the last maps of a ResNet-18.
#[test]
fn a_batch_whose_normalisation_is_undefined_is_refused_on_any_number_of_ranks() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images { shape: [3, 8, 8], ..Images::colour(33) })?;
    let config =
        world.config("small", &data, &[("student.architecture", "\"resnet18\""), ("evaluation.suite", "[]")])?;
    for ranks in 1..=3 {
        let run = world.run(&format!("on-{ranks}"));
        let ended = Program::on(ranks).train(&config, &run).run()?.expect(2);
        ended.expect_error(&["batch.size", "33 training images end with a batch of 1"]);
    }
    Program::alone().train(&config, &world.run("whole")).set("batch.size", 11).run()?.expect(0);
    Ok(())
}
