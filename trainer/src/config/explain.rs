//! Turns serde's errors into messages for users: the key, its line, what was expected, and the next step.

use datasets::{UserError, nearest};
use serde_path_to_error::Error;

use super::Architecture;
use super::keys::{key_at, nearest_key};
use super::positions::Positions;

/// The page that explains every key.
const MANUAL: &str = "docs/configuration.md lists every key with its meaning";

/// The user's mistake behind `error`. `changes` are the keys that `--set` changed; `positions` has the lines of the
/// others.
pub(super) fn explain(error: &Error<toml::de::Error>, changes: &[String], positions: &Positions) -> UserError {
    let message = error.inner().message().to_string();
    let mut key = error.path().to_string();
    if key == "." {
        key = "the file".to_string();
    }
    let unknown_field = message.split('`').nth(1).filter(|_| message.starts_with("unknown field"));
    let key = match unknown_field {
        Some(field) if key == "the file" => field.to_string(),
        Some(field) if !key.ends_with(field) => format!("{key}.{field}"),
        _ => key,
    };
    let path = dotted(&key);
    let changed = changes.iter().find(|changed| covers(changed, &path));
    let place = match changed {
        Some(_) => " (from --set)".to_string(),
        None => positions.line(&path).map_or(String::new(), |line| format!(" (line {line})")),
    };
    let error = UserError::expected(expectation(&message)).key(format!("{key}{place}"));
    if unknown_field.is_some() {
        // --set optimiser.lr=1 makes a table `optimiser`; the user meant the longer key.
        let typed = changes.iter().find(|change| covers(&path, change)).unwrap_or(&path);
        return match nearest_key(typed) {
            Some(meant) => {
                let expected = format!("a key that exists ({})", message.split(',').next().unwrap_or(&message));
                UserError { expected, ..error }.hint(format!("did you mean `{meant}`? {MANUAL}"))
            }
            None => error.hint(MANUAL),
        };
    }
    error.hint(known_value(&message).or_else(|| what_it_takes(&path)).map_or(MANUAL.into(), |hint| hint))
}

/// A suggestion, if the message names an unknown value and the known ones.
fn known_value(message: &str) -> Option<String> {
    let meant = if let Some(rest) = message.strip_prefix("unknown variant ") {
        let mut quoted = rest.split('`').skip(1).step_by(2);
        let found = quoted.next()?;
        nearest(found, quoted)?
    } else {
        nearest(message.strip_prefix("unknown network \"")?.split('"').next()?, Architecture::EXAMPLES)?
    };
    Some(format!("did you mean `{meant}`? {MANUAL}"))
}

/// The allowed values of the key, from the manual.
fn what_it_takes(path: &str) -> Option<String> {
    let key = key_at(path)?;
    let range = if key.range.is_empty() { String::new() } else { format!(", {}", key.range) };
    Some(format!("`{path}` is of type {}{range}; {MANUAL}", key.kind))
}

/// The expectation in a message of serde or of our own types.
fn expectation(message: &str) -> String {
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {key}, which is missing");
    }
    match message.split_once(", expected ").or_else(|| message.split_once("; expected ")) {
        Some((found, expected)) => {
            // serde names Rust's types.
            let expected = match expected {
                "usize" | "u64" | "u32" => "a whole number of 0 or more",
                "f64" => "a number",
                "a boolean" => "true or false",
                "a sequence" => "a list in brackets, as in [1, 2]",
                other => other,
            };
            format!("{expected} ({found})")
        }
        None => message.to_string(),
    }
}

/// A path with dots only: `loss.terms[0].weight` becomes `loss.terms.0.weight`.
fn dotted(path: &str) -> String {
    path.replace('[', ".").replace(']', "")
}

/// Whether a change of the key `changed` sets the key at `path` or a table around it.
fn covers(changed: &str, path: &str) -> bool {
    path.strip_prefix(changed).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
