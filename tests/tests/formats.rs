//! The formats of a run's files: keys, their order and the types of their values, against golden files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use safetensors::SafeTensors;
use tests::{Images, Program, World, assert_golden};

/// JSON with each value replaced by one of its type: keys, order and layout remain, numbers and hashes do not.
fn form(json: &str) -> String {
    let mut found = String::new();
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => 1 + string_length(&rest[1..]),
            '-' | '0'..='9' => rest.find(|next: char| !"+-.eE0123456789".contains(next)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        match first {
            '"' if after.trim_start().starts_with(':') => found.push_str(token),
            '"' => found.push_str("\"text\""),
            '-' | '0'..='9' => found.push_str(if token.contains(['.', 'e', 'E']) { "0.0" } else { "0" }),
            _ => found.push_str(token),
        }
        rest = after;
    }
    found
}

/// The bytes of a JSON string up to its closing quote, which counts.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.find(|next: char| {
        let closes = next == '"' && !escaped;
        escaped = next == '\\' && !escaped;
        closes
    });
    end.map_or(text.len(), |end| end + 1)
}

/// The header of a checkpoint as it is written, a line for each key of its tables. The bins of histograms are left out:
/// which of them are filled depends on how a processor rounds.
fn header_form(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
    let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get("iad")).context("no header")?;
    let is_bin = |line: &&str| {
        let key = line.split('"').nth(1).unwrap_or_default();
        key.rsplit_once('/').is_some_and(|(_, bin)| bin.parse::<u32>().is_ok())
    };
    let lines = form(text).replace(",\"", ",\n\"");
    Ok(lines.lines().filter(|line| !is_bin(line)).map(|line| format!("{line}\n")).collect())
}

#[test]
fn a_form_keeps_keys_and_types_and_no_values() {
    let json = r#"{ "a:\"": "b: 1", "n": [-1.5e-3, 20], "t": true, "z": null }"#;
    assert_eq!(form(json), r#"{ "a:\"": "text", "n": [0.0, 0], "t": true, "z": null }"#);
    assert_eq!(form(r#"{"a":"\\","b":"é"}"#), r#"{"a":"text","b":"text"}"#);
}

#[test]
fn checkpoints_and_evaluations_keep_their_formats() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let teacher = world.teacher(&data)?;
    let changes = World::distil(&teacher);
    let mut changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    changes.push(("evaluation.suite", "[\"natural\", \"pgd2\", \"cw_inf\"]"));
    changes.push(("averages", "{ ema = { decay = 0.9 } }"));
    let (config, run) = (world.config("tiny", &data, &changes)?, world.run("tiny"));
    Program::alone().train(&config, &run).stop_after(2).run()?.expect(85);
    let resumable = header_form(&run.join("checkpoints/step-00000002.safetensors"))?;
    Program::alone().train(&config, &run).run()?.expect(0);
    assert_golden("formats/checkpoint.txt", &resumable)?;
    assert_golden("formats/weights.txt", &header_form(&run.join("checkpoints/final.safetensors"))?)?;
    assert_golden("formats/evaluation.json", &form(&fs::read_to_string(run.join("evaluation.json"))?))
}
