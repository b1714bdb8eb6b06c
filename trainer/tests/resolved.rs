//! The resolved form of every configuration that comes with the program, byte for byte. Its digest names a run, so a
//! change here makes every earlier run folder one of another configuration.
//!
//! After a change on purpose, `IAD_BLESS=1 cargo test -p trainer --test resolved` writes the files anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use trainer::config::{Override, RunConfig, preset_names};

/// The configuration that each preset is resolved in: it has all teachers that presets name.
const UNDER_PRESETS: &str = "paper/runs/cifar10_resnet18_akd2.toml";

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names of the TOML files in `folder`.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".toml")).collect()
}

/// The folders in configs/, at any depth, that hold configurations of runs: not the presets, clusters and tables.
fn folders_of_runs(folder: &Path) -> Vec<PathBuf> {
    let inside = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let other = ["losses", "clusters", "paper"].map(|name| checkout().join("configs").join(name));
    let itself = (!other.contains(&folder.into())).then(|| folder.to_path_buf());
    itself.into_iter().chain(inside.flat_map(|path| folders_of_runs(&path))).collect()
}

/// The resolved text of every configuration and of every preset, by the name of its golden file.
fn resolved() -> BTreeMap<String, String> {
    let configs = checkout().join("configs");
    let of = |path: &Path, overrides: &[Override]| {
        RunConfig::read(path, overrides).unwrap_or_else(|error| panic!("{}: {error:#}", path.display())).resolved()
    };
    let folders = folders_of_runs(&configs);
    // The folder of a run has the name of its configuration, so a name stands for one file.
    let mut all: Vec<String> = folders.iter().flat_map(|folder| names(folder)).collect();
    all.sort();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "two configurations have one name: {all:?}");
    let files = folders.iter().flat_map(|folder| {
        names(folder).into_iter().map(|name| (name.clone(), of(&folder.join(name), &[]))).collect::<Vec<_>>()
    });
    let presets = preset_names().map(|preset| {
        let set: Override = format!("loss.preset={preset}").parse().unwrap();
        (format!("preset_{preset}.toml"), of(&configs.join(UNDER_PRESETS), &[set]))
    });
    files.chain(presets).collect()
}

/// The first line in which two texts differ, or nothing.
fn first_difference(golden: &str, now: &str) -> Option<String> {
    let (mut golden_lines, mut now_lines) = (golden.lines(), now.lines());
    for number in 1.. {
        match (golden_lines.next(), now_lines.next()) {
            (None, None) => break,
            (golden, now) if golden == now => {}
            (golden, now) => {
                let text = |line: Option<&str>| line.map_or("the end of the file".into(), |line| format!("{line:?}"));
                return Some(format!("line {number}: {} became {}", text(golden), text(now)));
            }
        }
    }
    (golden != now).then(|| "only the ends of lines differ".into())
}

#[test]
fn every_configuration_resolves_to_its_golden_file() {
    let folder = checkout().join("tests/fixtures/resolved");
    let resolved = resolved();
    assert!(resolved.len() > 20, "{:?}", resolved.keys());
    if std::env::var_os("IAD_BLESS").is_some_and(|value| value == "1") {
        names(&folder).iter().for_each(|name| fs::remove_file(folder.join(name)).unwrap());
        resolved.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
        return;
    }
    let mut wrong = vec![];
    for (name, now) in &resolved {
        match fs::read_to_string(folder.join(name)) {
            Ok(golden) => wrong.extend(first_difference(&golden, now).map(|line| format!("{name}, {line}"))),
            Err(error) => wrong.push(format!("{name} has no golden file: {error}")),
        }
    }
    let without = names(&folder).into_iter().filter(|name| !resolved.contains_key(name));
    wrong.extend(without.map(|name| format!("{name} belongs to no configuration")));
    assert!(wrong.is_empty(), "IAD_BLESS=1 accepts these changes:\n{}", wrong.join("\n"));
}

#[test]
fn the_first_differing_line_is_named() {
    assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
    assert_eq!(first_difference("a\nb\n", "a\nc\n").unwrap(), "line 2: \"b\" became \"c\"");
    assert_eq!(first_difference("a\n", "a\nb\n").unwrap(), "line 2: the end of the file became \"b\"");
    assert_eq!(first_difference("a\n", "a").unwrap(), "only the ends of lines differ");
}
