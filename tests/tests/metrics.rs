//! `iad-launch metrics`: CSV and TensorBoard's event file hold the numbers of metrics.jsonl.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::{Images, Program, World, metrics, python, tell};

/// By event, step and name.
type Numbers = BTreeMap<(String, u64, String), f64>;

/// Two epochs of IAD-I, in which alpha counts from the first one on.
fn distilled(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(40))?;
    let teacher = world.teacher(&data)?;
    let changes = World::distil(&teacher);
    let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let config =
        world.config("student", &data, &[&changes[..], &[("epochs", "2"), ("metrics", "{ every = 1 }")]].concat())?;
    let run = world.run("student");
    Program::alone().train(&config, &run).run()?.expect(0);
    Ok(run)
}

fn from_csv(text: &str) -> Result<Numbers> {
    let mut numbers = Numbers::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let [event, step, name, value] = cells[..] else { anyhow::bail!("{line}") };
        numbers.insert((event.into(), step.parse()?, name.into()), value.parse()?);
    }
    Ok(numbers)
}

/// What the same numbers are in metrics.jsonl.
fn from_jsonl(run: &Path) -> Result<Numbers> {
    let mut numbers = Numbers::new();
    for event in metrics(run)? {
        let kind = event["event"].as_str().context("event")?.to_string();
        let Some(step) = event["step"].as_u64() else { continue };
        let mut add = |name: String, value: Option<f64>| {
            numbers.extend(value.map(|value| ((kind.clone(), step, name), value)));
        };
        add("loss".into(), event["loss"].as_f64());
        for (name, value) in event["terms"].as_object().into_iter().flatten() {
            add(format!("terms/{name}"), value.as_f64());
        }
        for attack in event["attacks"].as_array().into_iter().flatten() {
            let share = attack["correct"].as_f64().context("correct")? / attack["of"].as_f64().context("of")?;
            add(
                format!("{}/{}", event["split"].as_str().context("split")?, attack["name"].as_str().context("name")?),
                Some(share),
            );
        }
        add("alpha/mean".into(), event["trust"]["mean"].as_f64());
    }
    Ok(numbers)
}

/// The records of an event file.
fn records(bytes: &[u8]) -> Result<Vec<&[u8]>> {
    let (mut rest, mut found) = (bytes, vec![]);
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest.get(..8).context("a length")?.try_into()?) as usize;
        found.push(rest.get(12..12 + length).context("a record")?);
        rest = rest.get(16 + length..).context("a checksum")?;
    }
    Ok(found)
}

#[test]
fn csv_and_event_file_hold_the_numbers_of_the_run() -> Result<()> {
    let world = World::new()?;
    let run = distilled(&world)?;
    let printed = Program::alone().args(["metrics"]).args([&run]).run()?.expect(0).said;
    let numbers = from_csv(&printed)?;
    let expected = from_jsonl(&run)?;
    assert!(expected.len() > 20, "{expected:?}");
    for (place, value) in &expected {
        assert_eq!(numbers.get(place), Some(value), "{place:?} in\n{printed}");
    }

    let (folder, file) = (world.path("events"), world.path("metrics.csv"));
    let command = || {
        Program::alone()
            .args(["metrics"])
            .args([&run])
            .args(["--tensorboard"])
            .args([&folder])
            .args(["--csv"])
            .args([&file])
    };
    command().run()?.expect(0);
    assert_eq!(fs::read_to_string(&file)?, printed);
    let events: Vec<PathBuf> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    ensure!(events.len() == 1, "{events:?}");
    let bytes = fs::read(&events[0])?;
    // The version, a record for each number, a histogram for each epoch, the images under attack.
    assert_eq!(records(&bytes)?.len(), 1 + numbers.len() + 2 + 1);
    command().run()?.expect(0);
    assert_eq!(fs::read(&events[0])?, bytes, "a second call wrote something else");
    read_by_tensorboard(&folder, &numbers)
}

const READER: &str = r#"
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "histograms": 0, "images": 0})
events.Reload()
for tag in events.Tags()["scalars"]:
    for scalar in events.Scalars(tag):
        print(tag, scalar.step, repr(scalar.value), sep="\t")
for tag in events.Tags()["histograms"]:
    for found in events.Histograms(tag):
        print("HISTOGRAM", tag, found.step, found.histogram_value.num, sep="\t")
for tag in events.Tags()["images"]:
    for found in events.Images(tag):
        png = found.encoded_image_string
        size = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
        assert png[:8] == b"\x89PNG\r\n\x1a\n" and size == (found.width, found.height), size
        print("IMAGE", tag, found.step, found.width, found.height, sep="\t")
"#;

/// TensorBoard itself reads the same numbers, in single precision.
fn read_by_tensorboard(folder: &Path, numbers: &Numbers) -> Result<()> {
    let Some(python) = python("import tensorboard") else {
        tell("skipped: the event file is not read by TensorBoard (no python with tensorboard)");
        return Ok(());
    };
    let output = Command::new(python.path()).args(["-c", READER]).arg(folder).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut read = Numbers::new();
    let (mut histograms, mut pictures) = (0, vec![]);
    for line in text.lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        match cells[..] {
            ["HISTOGRAM", "alpha", _, images] => {
                assert!(images.parse::<f64>()? > 0.0, "{line}");
                histograms += 1;
            }
            ["IMAGE", tag, step, width, height] => {
                pictures.push((tag.to_string(), step.parse::<u64>()?, width.parse::<u64>()?, height.parse::<u64>()?));
            }
            [tag, step, value] => {
                let (event, name) = tag.split_once('/').context("a tag")?;
                read.insert((event.into(), step.parse()?, name.into()), value.parse()?);
            }
            _ => anyhow::bail!("{line}"),
        }
    }
    assert_eq!(histograms, 2);
    // Eight rows of images of 64 pixels, three in each, and words beside them.
    let [(tag, step, width, height)] = &pictures[..] else { anyhow::bail!("{pictures:?}") };
    assert_eq!((tag.as_str(), *height), ("images/pgd2", 4 + 8 * 68));
    assert!(*width > 3 * 68 + 12 * "student: pattern 0 / pattern 0".len() as u64, "{width}");
    assert!(numbers.keys().any(|(event, known, _)| event == "epoch" && known == step), "{step} is a step of the run");
    assert_eq!(read.keys().collect::<Vec<_>>(), numbers.keys().collect::<Vec<_>>());
    for (place, value) in numbers {
        assert_eq!(read[place] as f32, *value as f32, "{place:?}");
    }
    Ok(())
}
