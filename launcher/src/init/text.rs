//! The text of a new configuration: what is resolved, with words and allowed values above every line.

use std::fmt::Write as _;

use toml::{Table, Value};
use trainer::config::{Key, RunConfig, keys};

use super::words::{self, LEARNER, REMEMBERED, SECTIONS, TEACHER};

const WIDTH: usize = 110;

/// What a reader is told first.
pub(super) struct Head {
    pub(super) title: String,
    /// How the file was made.
    pub(super) command: String,
    /// What to type next.
    pub(super) next: Vec<String>,
    /// The remark for short runs of small networks.
    pub(super) remark: Option<&'static str>,
}

/// The configuration as a file for people. It resolves to `config`.
pub(super) fn text(config: &RunConfig, head: &Head) -> String {
    let resolved: Table = config.resolved().parse().unwrap_or_default();
    let all = keys();
    let mut text = comment(&format!("{}. Made by `{}`.", head.title, head.command), "");
    head.remark.iter().for_each(|remark| text += &comment(remark, ""));
    text += "#\n";
    // Writing to a string cannot fail.
    for command in &head.next {
        let _ = writeln!(text, "#   {command}");
    }
    text += "#\n";
    text += &comment(
        "A key that is left out has its default. `iad-launch config --keys` and docs/configuration.md explain every key; `iad-launch \
         config FILE` shows this file with every default. Paths are relative to the folder in which a command is typed.",
        "",
    );
    for (section, lines) in SECTIONS {
        if section == "attack" {
            networks(&mut text, &resolved, &all, "teachers", &TEACHER);
            networks(&mut text, &resolved, &all, "learners", &LEARNER);
        }
        if section == "optimizer" {
            loss(&mut text, config, &resolved);
        }
        let table = if section.is_empty() { Some(&resolved) } else { resolved.get(section).and_then(Value::as_table) };
        let Some(table) = table.filter(|table| lines.iter().any(|(key, _)| table.contains_key(*key))) else { continue };
        // Without an attack its other keys mean nothing.
        let idle = section == "attack" && table.get("kind").and_then(Value::as_str) == Some("none");
        open(&mut text, section);
        for (key, meaning) in lines {
            let Some(value) = table.get(*key).filter(|_| !idle || *key == "kind") else { continue };
            let path = if section.is_empty() { (*key).to_string() } else { format!("{section}.{key}") };
            line(&mut text, key, meaning, value, all.iter().find(|known| known.path == path));
        }
    }
    text
}

fn open(text: &mut String, section: &str) {
    text.push('\n');
    if !section.is_empty() {
        let _ = writeln!(text, "[{section}]");
    }
}

fn line(text: &mut String, key: &str, meaning: &str, value: &Value, known: Option<&Key>) {
    let range = known.map_or("", |key| key.range.as_str());
    // Those that the manual lists elsewhere.
    let told = !range.is_empty() && !range.contains("below,") && range != "see below";
    let allowed = if told { format!(" Allowed: {range}.") } else { String::new() };
    *text += &comment(&format!("{meaning}{allowed}"), "");
    let _ = writeln!(text, "{key} = {value}");
}

/// The tables `[TABLE.NAME]`, of which each key has words.
fn networks(text: &mut String, resolved: &Table, all: &[Key], table: &str, keys: &[(&str, &str)]) {
    for (name, network) in resolved.get(table).and_then(Value::as_table).into_iter().flatten() {
        open(text, &format!("{table}.{name}"));
        for (key, meaning) in keys {
            let Some(value) = network.get(*key) else { continue };
            line(text, key, meaning, value, all.iter().find(|known| known.path == format!("{table}.NAME.{key}")));
        }
    }
}

fn loss(text: &mut String, config: &RunConfig, resolved: &Table) {
    open(text, "loss");
    *text += &comment("The loss of a step is the mean over its images of the sum of these terms.", "");
    *text += "terms = [\n";
    let terms = resolved.get("loss").and_then(|loss| loss.get("terms")).and_then(Value::as_array);
    for (term, value) in config.loss.terms.iter().zip(terms.into_iter().flatten()) {
        *text += &comment(&words::term(term), "  ");
        let _ = writeln!(text, "  {},", Value::Table(without_defaults(value.as_table().cloned().unwrap_or_default())));
    }
    *text += "]\n";
    for (key, meaning) in REMEMBERED {
        if let Some(value) = resolved.get("loss").and_then(|loss| loss.get(key)) {
            line(text, key, meaning, value, None);
        }
    }
}

/// A term as people write it.
fn without_defaults(term: Table) -> Table {
    let usual = |key: &str, value: &Value| match key {
        "weight" | "temperature" => value.as_float() == Some(1.0),
        "order" => value.as_float() == Some(1.0),
        "stop_gradient" | "inverted" | "complement" => value.as_bool() == Some(false),
        "from_epoch" => value.as_integer() == Some(0),
        _ => false,
    };
    let mut term: Table = term.into_iter().filter(|(key, value)| !usual(key, value)).collect();
    for judge in ["trust", "uncertainty"] {
        if let Some(judge) = term.get_mut(judge).and_then(Value::as_table_mut) {
            judge.retain(|key, value| !usual(key, value));
        }
    }
    term
}

/// Lines of a comment.
fn comment(words: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let last = lines.last().map_or(0, String::len);
        if last > 0 && indent.len() + 2 + last + word.len() >= WIDTH {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            *line += word;
        }
    }
    lines.iter().map(|line| format!("{indent}# {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use trainer::config::{Architecture, preset_names};

    use super::super::names::DataSet;
    use super::super::recipe::{Recipe, teachers_of};
    use super::*;

    fn head() -> Head {
        Head {
            title: "A title".into(),
            command: "iad-launch init x".into(),
            next: vec!["iad-launch x.toml".into()],
            remark: None,
        }
    }

    fn config(method: &str, model: &str) -> RunConfig {
        let dataset = DataSet { name: "cifar10".into(), file: "data/it's \"mine\".h5".into() };
        let folders = |name: &str| {
            (name.to_string(), (PathBuf::from(format!("{name}.toml")), PathBuf::from(format!("runs/{name}"))))
        };
        let teachers: BTreeMap<_, _> = teachers_of(method).unwrap().iter().map(|(name, _)| folders(name)).collect();
        Recipe { dataset: &dataset, method, model: model.parse().unwrap(), teachers: &teachers }.config().unwrap()
    }

    #[test]
    fn what_is_written_reads_back_as_what_was_meant() {
        let cases = preset_names()
            .map(|method| (method, "resnet18"))
            .chain(Architecture::EXAMPLES.map(|model| ("iad-2", model)));
        for (method, model) in cases {
            let meant = config(method, model);
            let text = text(&meant, &head());
            let read = RunConfig::parse(&text, Path::new("new.toml"), &[]);
            assert_eq!(read.unwrap_or_else(|error| panic!("{error:#}\n{text}")), meant, "{text}");
        }
    }

    #[test]
    fn the_terms_of_a_long_run_are_those_of_the_preset() {
        for method in preset_names().filter(|method| *method != "ard-orig") {
            let meant = config(method, "resnet18");
            let mut set = vec![format!("loss.preset={method}").parse().unwrap()];
            if method == "ciard" {
                // The term would begin behind the learner.
                let tutor = &meant.learners["tutor"];
                set.push(format!("loss.terms.tutor-label.from_epoch={}", tutor.from_epoch).parse().unwrap());
            }
            let mut read = RunConfig::parse(&text(&meant, &head()), Path::new("new.toml"), &set).unwrap();
            // A preset knows no length of a run.
            if let (Some(read), Some(meant)) = (&mut read.loss.balance, &meant.loss.balance) {
                read.milestones.clone_from(&meant.milestones);
            }
            assert_eq!(read.resolved(), meant.resolved());
        }
    }

    #[test]
    fn every_line_with_a_value_has_words_above_it() {
        let text = text(&config("iad-2", "wrn-34-10"), &head());
        let lines: Vec<&str> = text.lines().collect();
        let values = lines.windows(2).filter(|pair| pair[1].contains(" = ") && !pair[1].trim_start().starts_with('#'));
        let bare: Vec<_> = values.filter(|pair| !pair[0].trim_start().starts_with('#')).collect();
        assert!(bare.is_empty(), "{bare:?}");
        assert!(lines.iter().all(|line| line.len() <= WIDTH || line.trim_start().starts_with('{')), "{text}");
        let words = text.split_whitespace().filter(|word| *word != "#").collect::<Vec<_>>().join(" ");
        assert!(words.contains("with alpha = P_robust(label on the adversarial image)^0.1."), "{text}");
    }
}
