//! Every key of a configuration with its type, default, range and meaning, read from docs/configuration.md. The page is
//! compiled in, and a test compares its keys with the fields that the program reads.

use datasets::nearest;

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// A key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Key {
    /// Its path. `NAME` stands for a name that the user chooses, as in `teachers.NAME.checkpoint`.
    pub path: String,
    /// The type of its value.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its default in TOML, `required`, or what applies without the key.
    pub default: String,
    /// The allowed values; empty if the type tells them.
    pub range: String,
    /// Its meaning.
    pub meaning: String,
}

/// All keys, in the order of the page.
pub fn keys() -> Vec<Key> {
    let mut keys = vec![];
    // The columns of the current table, and the prefix of its keys' paths.
    let mut table: Option<(Vec<String>, String)> = None;
    for line in PAGE.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            table = None;
            continue;
        };
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_string()).collect();
        match &table {
            None => {
                let prefix = cells[0].strip_prefix("key of ").map_or(String::new(), |of| format!("{}.", unquoted(of)));
                table = Some((cells, prefix));
            }
            Some((columns, prefix)) if columns[0].starts_with("key") && cells[0].starts_with('`') => {
                let cell = |name: &str| {
                    let column = columns.iter().position(|column| column == name);
                    column.and_then(|column| cells.get(column)).map_or(String::new(), |cell| unquoted(cell))
                };
                // Keys of the same meaning share a row.
                let paths = unquoted(&cells[0]);
                keys.extend(paths.split(", ").map(|path| Key {
                    path: format!("{prefix}{path}"),
                    kind: cell("type"),
                    default: cell("default"),
                    range: cell("range"),
                    meaning: cell("meaning"),
                }));
            }
            Some(_) => {}
        }
    }
    keys
}

/// The text without Markdown markup.
fn unquoted(text: &str) -> String {
    let mut plain = text.replace('`', "");
    // [text](address) is shown as its text.
    while let Some(middle) = plain.find("](") {
        let (Some(from), Some(to)) = (plain[..middle].rfind('['), plain[middle..].find(')')) else { break };
        plain = format!("{}{}{}", &plain[..from], &plain[from + 1..middle], &plain[middle + to + 1..]);
    }
    plain
}

/// The key at `path`. `NAME` matches any part; a list's element is matched by its name or number.
pub(super) fn key_at(path: &str) -> Option<Key> {
    keys().into_iter().find(|key| named_like(&key.path, path) == path)
}

/// The known key nearest to a mistyped path, with the user's own names in it.
pub(super) fn nearest_key(typed: &str) -> Option<String> {
    let known: Vec<String> = keys().iter().map(|key| named_like(&key.path, typed)).collect();
    let parts: Vec<&str> = typed.split('.').collect();
    let near_in_every_part = |path: &&String| {
        let others: Vec<&str> = path.split('.').collect();
        others.len() == parts.len()
            && parts.iter().zip(others).all(|(part, other)| *part == other || nearest(part, [other]).is_some())
    };
    let in_every_part: Vec<&str> = known.iter().filter(near_in_every_part).map(String::as_str).collect();
    if let Some(path) = nearest(typed, in_every_part) {
        return Some(path.to_string());
    }
    // The right name in another table or without a table: `lr` means `optimizer.lr`.
    let last = parts.last().copied().unwrap_or_default();
    let mut same = known.iter().filter(|path| path.rsplit('.').next() == Some(last) && path.as_str() != typed);
    match (same.next(), same.next()) {
        (Some(path), None) => Some(path.clone()),
        // Without its dot: `batchsize`.
        _ if parts.len() == 1 => nearest(typed, known.iter().map(String::as_str)).map(str::to_string),
        _ => None,
    }
}

/// `path` with the parts of `typed` in place of `NAME`.
fn named_like(path: &str, typed: &str) -> String {
    let mut typed = typed.split('.');
    let parts = path.split('.').map(|part| {
        let own = typed.next();
        if part == "NAME" { own.unwrap_or(part) } else { part }
    });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::config::RunConfig;

    const ALL: &str = r#"
epochs = 2
batch = { size = 8 }
data = { train = "a.h5", test = "a.h5", augment = { crop = 4, flip = true }, subset = { count = 5 }, extra = { file = "b.h5", fraction = 0.5 } }
student = { architecture = "resnet8" }
optimizer = { lr = 0.1, lr_policy = "reference" }
evaluation = { autoattack = { queries = 5 } }
awp = { gamma = 0.01 }
grad_align = { weight = 0.1 }
averages = { ema = { decay = 0.9 }, swa = { from_epoch = 1 } }
[loss]
terms = [{ name = "teach", of = "adversarial", towards = "label", trust = { teacher = "robust", exponent = 1 }, only = { teacher = "robust", images = "natural", right = true }, uncertainty = { teacher = "robust" } }]
class_weights = { least = 0.5, most = 2 }
class_means = { temperature = 1 }
rectify = { network = "ema", temperature = [2, 1], weight = [0, 1] }
balance = { terms = ["a", "b"], rate = 0.1 }
[teachers.robust]
checkpoint = "runs/teacher"
[learners.peer]
from_epoch = 1
"#;

    /// The names that serde lists after an unknown key in a table.
    fn fields_of(table: &str) -> BTreeSet<String> {
        let change = format!("{table}{}zzzzzz=1", if table.is_empty() { "" } else { "." }).parse().unwrap();
        let message = RunConfig::parse(ALL, Path::new("all.toml"), &[change]).unwrap_err().to_string();
        let list = message.split("expected").nth(1).and_then(|rest| rest.split(" (unknown field").next());
        let list = list.unwrap_or_else(|| panic!("{table}: {message}"));
        list.split('`').skip(1).step_by(2).map(str::to_string).collect()
    }

    #[test]
    fn the_page_lists_every_field_that_the_program_reads_and_no_other() {
        let keys = keys();
        let tables = [
            ("", ""),
            ("batch", "batch."),
            ("data", "data."),
            ("data.augment", "data.augment."),
            ("data.subset", "data.subset."),
            ("data.extra", "data.extra."),
            ("student", "student."),
            ("teachers.robust", "teachers.NAME."),
            ("learners.peer", "learners.NAME."),
            ("attack", "attack."),
            ("awp", "awp."),
            ("grad_align", "grad_align."),
            ("batch_norm", "batch_norm."),
            ("loss.terms.teach", "loss.terms.NAME."),
            ("loss.terms.teach.trust", "loss.terms.NAME.trust."),
            ("loss.terms.teach.only", "loss.terms.NAME.only."),
            ("loss.terms.teach.uncertainty", "loss.terms.NAME.uncertainty."),
            ("loss.class_weights", "loss.class_weights."),
            ("loss.class_means", "loss.class_means."),
            ("loss.rectify", "loss.rectify."),
            ("loss.balance", "loss.balance."),
            ("optimizer", "optimizer."),
            ("precision", "precision."),
            ("evaluation", "evaluation."),
            ("evaluation.autoattack", "evaluation.autoattack."),
            ("averages", "averages."),
            ("averages.ema", "averages.ema."),
            ("averages.swa", "averages.swa."),
            ("checkpoint", "checkpoint."),
            ("metrics", "metrics."),
            ("watchdog", "watchdog."),
            ("guard", "guard."),
            ("comm", "comm."),
        ];
        for (table, prefix) in tables {
            let listed = keys.iter().filter_map(|key| key.path.strip_prefix(prefix));
            let listed: BTreeSet<&str> = listed.filter_map(|path| path.split('.').next()).collect();
            let fields = fields_of(table);
            assert_eq!(listed, fields.iter().map(String::as_str).collect(), "[{table}]");
        }
    }

    #[test]
    fn every_key_has_a_type_a_default_and_a_meaning() {
        for key in keys() {
            assert!(!key.kind.is_empty() && !key.default.is_empty() && !key.meaning.is_empty(), "{key:?}");
        }
        let seed = key_at("seed").unwrap();
        assert_eq!((seed.kind.as_str(), seed.default.as_str(), seed.range.as_str()), ("integer", "1", "0 or more"));
        assert_eq!(key_at("teachers.robust.checkpoint").unwrap().path, "teachers.NAME.checkpoint");
        assert_eq!(key_at("loss.terms.teach.trust.exponent").unwrap().path, "loss.terms.NAME.trust.exponent");
        assert_eq!(key_at("attack.nothing"), None);
    }

    #[test]
    fn a_mistyped_key_is_recognised() {
        for (typed, meant) in [
            ("optimiser.lr", "optimizer.lr"),
            ("optimizer.lr_polcy", "optimizer.lr_policy"),
            ("lr", "optimizer.lr"),
            ("epoch", "epochs"),
            ("batchsize", "batch.size"),
            ("batch_size", "batch.size"),
            ("attack.epsilon_steps", ""),
            ("evalution.suite", "evaluation.suite"),
            ("optimizer.crop", "data.augment.crop"),
            ("teachers.robust.chekpoint", "teachers.robust.checkpoint"),
            ("loss.terms.teach.wieght", "loss.terms.teach.weight"),
            ("attack.nothing", ""),
            ("optimizer.learning_rate", ""),
            ("metrics.other", ""),
        ] {
            assert_eq!(nearest_key(typed).unwrap_or_default(), meant, "{typed}");
        }
    }
}
