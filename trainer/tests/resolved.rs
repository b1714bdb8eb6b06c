//! The resolved form of every configuration that comes with the program, byte for byte. Its digest names a run, so a
//! change here makes every earlier run folder one of another configuration.
//!
//! After a change on purpose, `IAD_BLESS=1 cargo test -p trainer --test resolved` writes the files anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use trainer::config::{Override, RunConfig, preset_names};

/// The configuration that each preset is resolved in: it has all teachers that presets name.
const UNDER_PRESETS: &str = "cifar10_resnet18_akd2.toml";

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names of the TOML files in `folder`.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".toml")).collect()
}

/// The resolved text of every configuration and of every preset, by the name of its golden file.
fn resolved() -> BTreeMap<String, String> {
    let configs = checkout().join("configs");
    let of = |name: &str, overrides: &[Override]| {
        let path = configs.join(name);
        RunConfig::read(&path, overrides).unwrap_or_else(|error| panic!("{name}: {error:#}")).resolved()
    };
    let files = names(&configs).into_iter().map(|name| (name.clone(), of(&name, &[])));
    let presets = preset_names().map(|preset| {
        let set: Override = format!("loss.preset={preset}").parse().unwrap();
        (format!("preset_{preset}.toml"), of(UNDER_PRESETS, &[set]))
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
