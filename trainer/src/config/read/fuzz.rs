//! Changed configurations: a configuration that can be used, or a mistake of the user.

use std::fs;

use datasets::damage::{Dice, change_text, inputs};

use super::*;

const INPUTS: u64 = 2_000;

#[test]
fn changed_configurations_are_read_or_refused_by_name() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let folders = ["", "quickstart", "paper/runs", "fast", "leading", "large_batch"].map(|part| configs.join(part));
    let mut names: Vec<_> =
        folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    names.sort();
    let files: Vec<Vec<u8>> = names.iter().map(|path| fs::read(path).unwrap()).collect();
    let (path, mut taken) = (Path::new("changed.toml"), 0);
    for input in 0..inputs(INPUTS) {
        let Ok(text) = String::from_utf8(change_text(&files, &mut Dice::new(40, input))) else { continue };
        match RunConfig::parse(&text, path, &[]) {
            Ok(config) => {
                taken += 1;
                // What is written into the run folder is the same configuration.
                let again = RunConfig::parse(&config.resolved(), path, &[]);
                let again = again.unwrap_or_else(|error| panic!("input {input}: {error:#}\n{}", config.resolved()));
                assert_eq!(again.hash(), config.hash(), "input {input}");
                let _ = config.suite();
            }
            Err(error) => assert!(error.is::<UserError>(), "input {input}: {error:#}"),
        }
    }
    assert!(taken > 0, "nothing was accepted");
}
