//! Every command that README, the docs, the configurations and the scripts show is one that this program understands.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::Parser as _;
use clap::error::ErrorKind::{
    DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion, InvalidValue, MissingRequiredArgument,
};

use super::line::{CommandLine, with_implied_train};

/// The arguments of each `iad-launch ...` in `text`, and whether they are a whole line: in code and comments, and not between
/// backquotes, where a sentence may name a command without all of its arguments.
fn shown(text: &str) -> Vec<(Vec<String>, bool)> {
    let mut all = vec![];
    // A backslash at the end of a line joins it to the next one.
    for line in text.replace("\\\n", " ").lines() {
        let line = line.trim_start_matches(['#', ' ', '$', '|']);
        let pieces: Vec<&str> = line.split('`').collect();
        let code = line.starts_with("iad-launch ") || line.starts_with("mpirun ") || line.starts_with("srun ");
        let quoted = pieces.iter().skip(1).step_by(2).copied();
        let candidates: Vec<&str> = if code { vec![line] } else { quoted.collect() };
        for candidate in candidates {
            let words = candidate
                .split_once("iad-launch ")
                .filter(|(before, _)| before.is_empty() || before.ends_with([' ', '/']));
            let found = words.map(|(_, after)| arguments(after)).filter(|arguments| !arguments.is_empty());
            all.extend(found.map(|arguments| (arguments, code)));
        }
    }
    all
}

/// The words of a command as a shell would pass them, with numbers and shapes in the places of their names.
fn arguments(text: &str) -> Vec<String> {
    let end = text.find([';', '|', '>', '&']).unwrap_or(text.len());
    // A second program under the same mpirun.
    let text = text[..end].split(" : ").next().unwrap_or("").split(" # ").next().unwrap_or("").replace("    #", " # ");
    let mut words = vec![String::new()];
    let mut quote = None;
    for letter in text.split(" # ").next().unwrap_or("").chars() {
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (mark, Some(open)) if mark == open => quote = None,
            (' ', None) => words.push(String::new()),
            (letter, _) => words.last_mut().unwrap_or(&mut String::new()).push(letter),
        }
    }
    words.retain(|word| !word.is_empty() && word != "...");
    words.iter().map(|word| filled(word)).collect()
}

fn filled(word: &str) -> String {
    match word {
        "N" | "COUNT" | "STEPS" => "2".into(),
        "CONFIG" => "a.toml".into(),
        "CxHxW" => "3x32x32".into(),
        "I/N" => "1/2".into(),
        "KEY=VALUE" => "seed=2".into(),
        word => word.replace("=N", "=2").replace("$SLURM_ARRAY_TASK_ID", "1"),
    }
}

#[test]
fn every_command_that_is_shown_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = vec![root.join("README.md"), root.join("scripts/demo"), root.join("CHANGELOG.md")];
    let mut folders = vec![root.join("docs"), root.join("configs")];
    while let Some(folder) = folders.pop() {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let (inner, found): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
        folders.extend(inner);
        // The others are pictures and tables of numbers.
        files.extend(found.into_iter().filter(|file| file.extension().is_some_and(|end| end == "md" || end == "toml")));
    }
    let (mut count, mut wrong) = (0, vec![]);
    for file in files.iter().filter(|file| file.is_file()) {
        for (arguments, whole) in shown(&fs::read_to_string(file).unwrap()) {
            count += 1;
            let words = std::iter::once("iad-launch".to_string()).chain(arguments.clone());
            let parsed = CommandLine::try_parse_from(with_implied_train(words.map(OsString::from).collect()));
            let Err(error) = parsed else { continue };
            let named = arguments.last().is_some_and(|last| last.starts_with('-'));
            let allowed = match error.kind() {
                DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand => true,
                MissingRequiredArgument => !whole,
                InvalidValue => !whole && named,
                _ => false,
            };
            if !allowed {
                wrong.push(format!("{}: {arguments:?}\n{error}", file.display()));
            }
        }
    }
    assert!(count > 60, "{count} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_are_found_in_code_comments_and_sentences() {
    let text = "    mpirun -n 8 iad-launch a.toml --set 'x=[1, 2]' \\\n  --ranks N   # why\nsee `iad-launch eval RUN` and\n# iad-launch data info x.h5\nthe iad-launch program";
    let expected: [(&[&str], bool); 3] = [
        (&["a.toml", "--set", "x=[1, 2]", "--ranks", "2"], true),
        (&["eval", "RUN"], false),
        (&["data", "info", "x.h5"], true),
    ];
    let expected =
        expected.map(|(words, whole)| (words.iter().map(|word| (*word).to_string()).collect::<Vec<_>>(), whole));
    assert_eq!(shown(text), expected);
}
