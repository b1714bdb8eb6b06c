//! Published layouts from their files to their numbers: imported, attacked, and judged by PyTorch image by image.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Program, World, python, tell};

/// The networks of `fixtures/layouts.py`, what their files do not tell, the attacks, and a radius that breaks some of their
/// images: random networks are brittle. The last network is large.
const NETWORKS: [(&str, &[&str], &str, &str); 3] = [
    ("deepmind", &["--architecture", "dm-wrn-10-1", "--normalize", "cifar10"], "natural,pgd3,apgd_ce", "1/255"),
    ("trades", &[], "natural,pgd3", "0.0005"),
    ("preact", &["--id", "Andriushchenko2020Understanding"], "natural,pgd3", "0.0005"),
];

fn numbers(value: &Value) -> Vec<i64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_i64).collect()
}

/// A column of a table of samples.
fn column(table: &str, place: usize) -> Vec<i64> {
    table.lines().skip(1).filter_map(|line| line.split(',').nth(place)?.parse().ok()).collect()
}

fn run(arguments: &[&str], paths: &[&Path]) -> Result<tests::Ended> {
    let mut paths = paths.iter();
    let words = arguments.iter().map(|word| match *word {
        "PATH" => paths.next().map(|path| path.as_os_str()).unwrap_or_default(),
        word => word.as_ref(),
    });
    Ok(Program::alone().args(words).run()?.expect(0))
}

#[test]
fn published_layouts_are_attacked_and_judged_as_in_pytorch() -> Result<()> {
    let Some(python) = python("import torch, h5py, numpy") else {
        tell("skipped: published layouts (no python with torch, h5py and numpy)");
        return Ok(());
    };
    let world = World::new()?;
    let folder = world.path("");
    python.script("layouts.py", &["make".as_ref(), folder.as_ref()])?;
    for (name, stated, suite, eps) in NETWORKS {
        let [given, arrays] = ["pt", "npz"].map(|ending| world.path(&format!("{name}.{ending}")));
        let (data, weights) = (world.path(&format!("{name}.h5")), world.path(&format!("{name}.safetensors")));
        let adversarial = world.path(&format!("{name}-found.h5"));
        run(&["data", "import", "npz", "--from", "PATH", "--to", "PATH"], &[&arrays, &data])?;
        let import = ["weights", "import", "PATH", "--to", "PATH", "--data", "PATH"];
        let said = run(&[&import[..], stated].concat(), &[&given, &weights, &data])?.said;
        assert!(said.contains("right on 24 of the first 24 images"), "{name}: {said}");
        assert!(!said.contains("warning"), "{name}: {said}");

        let eval = ["eval", "PATH", "--data", "PATH", "--suite", suite, "--eps", eps, "--batch", "16"];
        run(&[&eval[..], &["--save-adversarial", "PATH"]].concat(), &[&weights, &data, &adversarial])?;
        let (suite, eps) = (suite.replace(',', "+"), eps.replace('/', "_"));
        let file = format!("{name}-evaluation-{suite}-{name}-eps{eps}-batch16");
        let table = fs::read_to_string(world.path(&format!("{file}.samples.csv"))).context(file)?;
        let words = ["judge".as_ref(), folder.as_ref(), name.as_ref(), data.as_ref(), adversarial.as_ref()];
        let judged: Value = serde_json::from_str(&python.script("layouts.py", &words)?)?;

        let (labels, natural) = (column(&table, 1), column(&table, 2));
        assert_eq!(natural, numbers(&judged["natural"]), "{name}: predictions of the images");
        assert_eq!(natural, labels, "{name}: the labels are the network's own answers");
        let stands: Vec<bool> =
            table.lines().skip(1).map(|line| line.split(',').skip(3).all(|field| field == "stands")).collect();
        let right: Vec<bool> =
            labels.iter().zip(numbers(&judged["adversarial"])).map(|(label, found)| *label == found).collect();
        assert_eq!(stands, right, "{name}: predictions of the adversarial images");
        let count = stands.iter().filter(|stands| **stands).count();
        assert!(count > 0 && count < 24, "{name}: nothing to tell apart, {count} of 24 stand");
    }
    Ok(())
}
