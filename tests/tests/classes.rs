//! Classes by name: a network meets images whose classes have another order, are fewer, are others, or have no names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use datasets::{Memory, Split};
use serde_json::Value;
use tests::{Program, World, header, metrics};

/// Images of one class for each name, told apart by the colour of its letter: `a`, `b` and `c` are red, green and blue.
fn images(world: &World, file: &str, names: &[&str], each: usize) -> Result<PathBuf> {
    let colour = |name: &str| usize::from(name.as_bytes()[0] - b'a');
    let split = |seed: usize| {
        let labels: Vec<i64> = (0..names.len() * each).map(|sample| (sample % names.len()) as i64).collect();
        let pixel = |sample: usize, element: usize| {
            let noise = (seed + 31 * sample + 17 * element + sample * element) % 60;
            let bright = element / 256 == colour(names[labels[sample] as usize]);
            (noise + if bright { 180 } else { 0 }) as u8
        };
        let pixels = (0..labels.len() * 768).map(|place| pixel(place / 768, place % 768)).collect();
        Memory::new([3, 16, 16], names.iter().map(|name| (*name).to_string()).collect(), pixels, labels)
    };
    let (train, test, path) = (split(1)?, split(2)?, world.path(&format!("{file}.h5")));
    let names: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
    datasets::write(&path, file, "made for a test", &names, &[(Split::Train, &train), (Split::Test, &test)])?;
    Ok(path)
}

/// A network that tells ants, bees and cows apart.
fn three(world: &World) -> Result<(PathBuf, PathBuf)> {
    let data = images(world, "three", &["ant", "bee", "cow"], 40)?;
    let changes = [
        ("epochs", "4"),
        ("evaluation.suite", "[\"natural\"]"),
        ("attack.kind", "\"none\""),
        ("loss.preset", "\"st\""),
    ];
    let run = world.run("three");
    Program::alone().train(&world.config("three", &data, &changes)?, &run).run()?.expect(0);
    let weights = run.join("checkpoints/final.safetensors");
    assert_eq!(header(&weights)?["class_names"], serde_json::json!(["ant", "bee", "cow"]));
    Ok((data, weights))
}

fn eval(network: &Path, data: &Path, more: &[&str]) -> Result<tests::Ended> {
    let arguments = ["eval".as_ref(), network.as_os_str(), "--data".as_ref(), data.as_os_str()];
    Program::alone().args(arguments).args(["--suite", "natural", "--batch", "16"]).args(more).run()
}

fn evaluation(network: &Path, data: &str, more: &str) -> Result<Value> {
    let stem = network.file_stem().and_then(|stem| stem.to_str()).context("a name")?;
    let path = network.with_file_name(format!("{stem}-evaluation-natural-{data}{more}-batch16.json"));
    Ok(serde_json::from_str(&fs::read_to_string(&path).with_context(|| path.display().to_string())?)?)
}

fn correct(evaluation: &Value) -> (u64, u64) {
    let count = |key: &str| evaluation["attacks"][0][key].as_u64().unwrap_or_default();
    (count("correct"), count("of"))
}

#[test]
fn outputs_are_taken_by_the_names_of_the_classes() -> Result<()> {
    let world = World::new()?;
    let (data, weights) = three(&world)?;
    let said = eval(&weights, &data, &[])?.expect(0).said;
    assert!(!said.contains("outputs"), "{said}");
    let same = evaluation(&weights, "three", "")?;
    assert_eq!((correct(&same), same.get("outputs")), ((120, 120), None));

    let two = images(&world, "two", &["ant", "cow"], 40)?;
    let said = eval(&weights, &two, &[])?.expect(0).said;
    assert!(said.contains("takes the outputs of ant, cow by name, and leaves 1 other(s) of 3 out"), "{said}");
    let restricted = evaluation(&weights, "two", "")?;
    assert_eq!((correct(&restricted), &restricted["outputs"]), ((80, 80), &serde_json::json!([0, 2])));

    let turned = images(&world, "turned", &["cow", "ant", "bee"], 40)?;
    let said = eval(&weights, &turned, &[])?.expect(0).said;
    assert!(said.contains("reorders the 3 outputs"), "{said}");
    assert_eq!(correct(&evaluation(&weights, "turned", "")?), (120, 120));

    // By order it is wrong about all: the names matter.
    let said = eval(&weights, &turned, &["--match-classes", "order"])?.expect(0).said;
    assert!(said.contains("in their order, as requested"), "{said}");
    assert_eq!(correct(&evaluation(&weights, "turned", "-by_order")?), (0, 120));

    let others = images(&world, "others", &["ant", "bull", "cow", "crow"], 4)?;
    let ended = eval(&weights, &others, &[])?.expect(2);
    ended.expect_error(&[
        "others.h5",
        "2 of 4 classes unknown to it: bull, crow",
        "ant, bee, cow",
        "--match-classes order",
    ]);
    Ok(())
}

#[test]
fn names_that_one_side_lacks_are_warned_of_once() -> Result<()> {
    let world = World::new()?;
    let (data, weights) = three(&world)?;
    // The weights without their names, as versions before wrote them.
    let nameless = world.path("nameless.safetensors");
    let bytes = fs::read(&weights)?;
    let names = br#",\"class_names\":[\"ant\",\"bee\",\"cow\"]"#;
    let at = bytes.windows(names.len()).position(|window| window == names).context("the names in the header")?;
    let length = u64::from_le_bytes(bytes[..8].try_into()?) - names.len() as u64;
    // Spaces fill the JSON up to a multiple of eight bytes.
    let padding = length.next_multiple_of(8) - length;
    let end = 8 + usize::try_from(length)? + names.len();
    let head = [&bytes[8..at], &bytes[at + names.len()..end], &vec![b' '; padding as usize]].concat();
    let mut file = [&(head.len() as u64).to_le_bytes()[..], &head, &bytes[end..]].concat();
    // The hash in the header is that of the file with zeros in its place.
    let key = br#"\"sha256\":\""#;
    let digits =
        file.windows(key.len()).position(|window| window == key).context("the hash in the header")? + key.len();
    file[digits..digits + 64].fill(b'0');
    fs::write(&nameless, &file)?;
    let hash = Command::new("sha256sum").arg(&nameless).output()?.stdout;
    file[digits..digits + 64].copy_from_slice(hash.get(..64).context("sha256sum")?);
    fs::write(&nameless, &file)?;
    let said = eval(&nameless, &data, &[])?.expect(0).said;
    assert_eq!(said.matches("do not name their classes").count(), 1, "{said}");
    let found = evaluation(&nameless, "three", "")?;
    assert_eq!((correct(&found), &found["warnings"]), ((120, 120), &serde_json::json!([])));

    let two = images(&world, "two", &["ant", "bee"], 40)?;
    let said = eval(&nameless, &two, &[])?.expect(0).said;
    assert!(said.contains("1 other output(s) of 3 are wrong answers"), "{said}");
    let four = images(&world, "four", &["ant", "bee", "cow", "c"], 4)?;
    let ended = eval(&nameless, &four, &[])?.expect(2);
    ended.expect_error(&["four.h5", "4 classes", "at most 3 classes, as the network has outputs"]);

    // Classes that are numbers have no names.
    let numbers = world.path("numbers.h5");
    let memory = Memory::new([3, 16, 16], ["0", "1", "2"].map(String::from).to_vec(), vec![0; 768 * 3], vec![0, 1, 2])?;
    datasets::write(
        &numbers,
        "numbers",
        "made for a test",
        &["0", "1", "2"].map(String::from),
        &[(Split::Test, &memory)],
    )?;
    let said = eval(&weights, &numbers, &[])?.expect(0).said;
    assert_eq!(said.matches("the images do not name their classes").count(), 1, "{said}");
    Ok(())
}

/// Trains a student on three classes in another order, and returns what was said and the run.
fn taught(
    world: &World,
    name: &str,
    data: &Path,
    teacher: &Path,
    more: &[(&str, &str)],
) -> Result<(tests::Ended, PathBuf)> {
    let teacher = format!("{:?}", teacher.display().to_string());
    let terms = r#"[{ name = "teach", of = "natural", towards = { network = "robust", images = "natural" } }]"#;
    let changes = [
        ("epochs", "4"),
        ("teachers.robust.checkpoint", teacher.as_str()),
        ("loss.terms", terms),
        ("attack.kind", "\"none\""),
        ("evaluation.suite", "[\"natural\"]"),
    ];
    let config = world.config(name, data, &[&changes, more].concat())?;
    let run = world.run(name);
    Ok((Program::alone().train(&config, &run).run()?, run))
}

#[test]
fn a_teacher_teaches_the_classes_by_name() -> Result<()> {
    let world = World::new()?;
    let (data, weights) = three(&world)?;
    // What the teacher got right of the images that the student trained on.
    let right = |run: &Path| -> Result<(u64, u64)> {
        let all = metrics(run)?;
        let epoch = all.iter().find(|event| event["event"] == "epoch").context("an epoch")?;
        let count = |key: &str| epoch["counts"]["teacher_natural"][key].as_u64().context("a count");
        Ok((count("count")?, count("of")?))
    };
    let subset = ("data.subset.classes", r#"["cow", "bee", "ant"]"#);
    let (ended, run) = taught(&world, "reversed", &data, &weights, &[subset])?;
    let said = ended.expect(0).said;
    assert!(said.contains("teacher robust: reorders the 3 outputs"), "{said}");
    assert_eq!(metrics(&run)?.iter().filter(|event| event["event"] == "warned").count(), 1);
    assert_eq!(right(&run)?, (120, 120));
    assert_eq!(
        header(&run.join("checkpoints/final.safetensors"))?["class_names"],
        serde_json::json!(["cow", "bee", "ant"])
    );

    let by_order = ("teachers.robust.match_classes", "\"order\"");
    let (ended, run) = taught(&world, "by_order", &data, &weights, &[subset, by_order])?;
    ended.expect(0);
    assert_eq!(right(&run)?, (40, 120));

    let (ended, run) = taught(&world, "fewer", &data, &weights, &[("data.subset.classes", r#"["cow", "ant"]"#)])?;
    let said = ended.expect(0).said;
    assert!(said.contains("teacher robust: takes the outputs of cow, ant by name"), "{said}");
    assert_eq!(right(&run)?, (80, 80));

    let others = images(&world, "others", &["ant", "bull", "cow"], 8)?;
    let (ended, run) = taught(&world, "others", &others, &weights, &[])?;
    ended.expect(2).expect_error(&[
        "teachers.robust.checkpoint",
        "unknown to it: bull",
        "teachers.robust.match_classes",
    ]);
    assert!(!run.exists());
    Ok(())
}

#[test]
fn training_and_test_images_of_other_classes_are_refused_by_what_differs() -> Result<()> {
    let world = World::new()?;
    let train = images(&world, "train", &["ant", "bee"], 8)?;
    let test = images(&world, "test", &["ant", "cow"], 8)?;
    let test = format!("{:?}", test.display().to_string());
    let config = world.config("mixed", &train, &[("data.test", &test)])?;
    let ended = Program::alone().train(&config, &world.run("mixed")).run()?.expect(2);
    ended.expect_error(&["data.test", "class 1 \"cow\" instead of \"bee\""]);
    Ok(())
}
