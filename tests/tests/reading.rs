//! Where the images are read from changes nothing but memory: the same bits from memory and file, on any ranks, resumed.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datasets::{About, Container, Layout, Source, Split, write_from};
use serde_json::Value;
use tests::{Images, Program, World, assert_same_run, metrics, tell};

const AUGMENT: (&str, &str) = ("data.augment", "{ crop = 4, flip = true }");

/// The data set of `path` once more, in chunks of seven images, compressed.
fn compressed(path: &Path) -> Result<PathBuf> {
    let to = path.with_extension("chunks.h5");
    let parts = Split::ALL.map(|split| Container::open(path, split));
    let [train, test] = parts;
    let (train, test) = (train?, test?);
    let about = About { name: "chunks".into(), class_names: train.class_names().to_vec(), ..About::default() };
    let splits: [(Split, &dyn Source); 2] = [(Split::Train, &train), (Split::Test, &test)];
    write_from(&to, &about, &splits, &Layout { chunk: Some(7), compress: Some(4), threads: Some(1) })?;
    Ok(to)
}

#[test]
fn resident_and_streamed_images_train_the_same_network() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images { shape: [3, 64, 64], ..Images::colour(60) })?;
    let chunks = compressed(&data)?;
    let changes = [("student.architecture", "\"resnet8\""), ("epochs", "2"), AUGMENT];
    let (one, other) = (world.config("one", &data, &changes)?, world.config("other", &chunks, &changes)?);
    let resident = world.run("resident");
    Program::alone().train(&one, &resident).run()?.expect(0);
    for (name, config, threads, prefetch) in [("streamed", &one, 3, 1), ("chunks", &other, 2, 5)] {
        let run = world.run(name);
        let program = Program::alone().train(config, &run).set("data.reading", "streaming");
        program.set("data.threads", threads).set("data.prefetch", prefetch).set("data.window_mib", 1).run()?.expect(0);
        assert_same_run(&resident, &run, name)?;
    }
    // Ranks cannot share images that must be unpacked.
    let ended = Program::alone().train(&other, &world.run("refused")).run()?.expect(2);
    ended.expect_error(&["data.chunks.h5", "train/images", "contiguous", "data.reading = \"streaming\""]);
    Ok(())
}

fn losses(run: &Path) -> Result<BTreeMap<u64, f64>> {
    let events = metrics(run)?.into_iter().filter(|event| event["event"] == "step");
    events
        .map(|event| Ok((event["step"].as_u64().context("a step")?, event["loss"].as_f64().context("a loss")?)))
        .collect()
}

/// Five steps an epoch. Stops on two ranks after the third step of the second epoch, and resumes on other ranks.
#[test]
fn a_run_stopped_within_an_epoch_goes_on_in_the_same_order_on_other_ranks() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(75))?;
    let double = ("precision.dtype", "\"float64\"");
    let changes = [("epochs", "3"), double, AUGMENT, ("data.reading", "\"streaming\""), ("data.threads", "2")];
    let config = world.config("moved", &data, &changes)?;
    let whole = world.run("whole");
    Program::alone().train(&config, &whole).run()?.expect(0);
    let expected = losses(&whole)?;
    assert_eq!(expected.len(), 15);
    for ranks in [1, 3] {
        let run = world.run(&format!("on-{ranks}"));
        Program::on(2).train(&config, &run).stop_after(8).run()?.expect(85);
        Program::on(ranks).train(&config, &run).run()?.expect(0);
        let found = losses(&run)?;
        assert!(found.keys().eq(expected.keys()));
        let differences = expected.iter().map(|(step, loss)| ((loss - found[step]) / loss).abs());
        let largest = differences.fold(0.0, f64::max);
        tell(&format!("stopped on 2 ranks, resumed on {ranks}: losses differ by {largest:.2e}"));
        assert!(largest <= 1e-9, "{expected:?} without a break, {found:?} resumed on {ranks} ranks");
    }
    Ok(())
}

#[test]
fn a_file_cut_short_while_it_is_streamed_ends_the_run_with_an_error() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(480))?;
    let changes = [("epochs", "50"), ("data.reading", "\"streaming\""), ("data.window_mib", "1"), AUGMENT];
    let (config, run) = (world.config("cut", &data, &changes)?, world.run("cut"));
    let mut running = Program::alone().train(&config, &run).start()?;
    let events = run.join("metrics.jsonl");
    running.wait_until("step 3", || fs::read_to_string(&events).unwrap_or_default().contains("\"step\":3,"))?;
    OpenOptions::new().write(true).open(&data)?.set_len(5_000)?;
    running.wait()?.expect(1).expect_error(&["data.h5 ends before image", "cut short"]);
    Ok(())
}

/// A field of the mapping of `file` in a process, in bytes.
fn mapped(process: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps")).unwrap_or_default();
    let (mut ours, mut sum) = (false, 0);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some(word) if word.strip_suffix(':') == Some(field) && ours => {
                sum += words.next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024;
            }
            Some(word) if !word.ends_with(':') => ours = line.ends_with(file),
            _ => {}
        }
    }
    sum
}

#[test]
fn ranks_share_one_copy_of_resident_images() -> Result<()> {
    let world = World::new()?;
    let images = Images { shape: [3, 64, 64], ..Images::colour(1500) };
    let data = world.images("data", images)?;
    let (config, run) = (world.config("shared", &data, &[("epochs", "9"), AUGMENT])?, world.run("shared"));
    let mut running = Program::on(3).train(&config, &run).start()?;
    let events = run.join("metrics.jsonl");
    running.wait_until("step 5", || fs::read_to_string(&events).unwrap_or_default().contains("\"step\":5,"))?;
    let processes = running.processes("iad-launch");
    assert_eq!(processes.len(), 3);
    let of = |field: &str| -> Vec<u64> { processes.iter().map(|&process| mapped(process, "data.h5", field)).collect() };
    // They are stopped while their maps are read one after the other.
    running.signal("STOP", &processes);
    let (shares, resident, own) = (of("Pss"), of("Rss"), of("Anonymous"));
    running.kill_all();
    let size = fs::metadata(&data)?.len();
    tell(&format!("a container of {size} bytes: resident in each rank {resident:?}, shares {shares:?}"));
    // The rank that compares checksums has looked at every image.
    assert!(resident.iter().any(|&bytes| bytes > size / 2), "{resident:?} of {size}");
    assert!(resident.iter().all(|&bytes| bytes > 0));
    // Room for the pages at both ends.
    assert!(shares.iter().sum::<u64>() <= size + (1 << 16), "{shares:?} of {size}");
    assert_eq!(own, [0; 3]);
    Ok(())
}

#[test]
fn what_steps_wait_for_their_images_is_counted() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(100))?;
    let (config, run) = (world.config("waits", &data, &[("epochs", "2")])?, world.run("waits"));
    Program::alone().train(&config, &run).run()?.expect(0);
    let text = fs::read_to_string(run.join("metrics.jsonl"))?;
    let events = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let waited = |event: &Value| event["timing"]["waited_for_data"].as_f64().with_context(|| event.to_string());
    for epoch in 0..2 {
        let of = |kind: &str| {
            events.iter().filter(|event| event["event"] == kind && event["epoch"] == epoch).collect::<Vec<_>>()
        };
        let steps = of("step").into_iter().map(waited).collect::<Result<Vec<_>>>()?;
        let whole = waited(of("epoch")[0])?;
        assert_eq!(steps.len(), 7);
        assert!(steps.iter().all(|&seconds| seconds >= 0.0) && whole > 0.0);
        assert!((steps.iter().sum::<f64>() - whole).abs() < 1e-9, "{steps:?} in steps, {whole} in the epoch");
        assert!(whole <= of("epoch")[0]["timing"]["seconds"].as_f64().context("seconds")?);
    }
    Ok(())
}

#[test]
fn a_run_on_a_part_of_the_images_says_which() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(200))?;
    let part = r#"{ classes = ["pattern 2", "pattern 0"], per_class = 20 }"#;
    let held_out =
        [("evaluation.selection", "\"held_out\""), ("evaluation.held_out", "0.2"), ("evaluation.stratified", "true")];
    let changes = [&[("data.subset", part)], &held_out[..]].concat();
    let (config, run) = (world.config("part", &data, &changes)?, world.run("part"));
    Program::alone().train(&config, &run).run()?.expect(0);
    let started = metrics(&run)?.remove(0);
    assert_eq!((&started["classes"], &started["held_out_images"]), (&2.into(), &8.into()), "{started}");
    assert_eq!(started["train_images_per_class"], serde_json::json!([16, 16]));
    let test = started["test_images"].as_u64().context("test images")?;
    assert!((4..28).contains(&test), "{test} of 32 test images");
    // An evaluation takes the same classes.
    Program::alone().args(["eval".as_ref(), run.as_os_str()]).run()?.expect(0);
    let found: Value = serde_json::from_str(&fs::read_to_string(run.join("evaluation.json"))?)?;
    assert_eq!(found["images"], test);

    let wrong = Program::alone().train(&config, &world.run("wrong")).set("data.subset.classes", "[\"cat\"]").run()?;
    wrong.expect(2).expect_error(&["data.h5", "data.subset.classes", "cat", "pattern 0, pattern 1"]);
    let wrong = Program::alone().train(&config, &world.run("wrong")).set("data.subset.per_class", 1000).run()?;
    wrong.expect(2).expect_error(&["data.subset.per_class is 1000", "pattern"]);
    Ok(())
}
