//! The known name that a mistyped one most likely means.

use strsim::damerau_levenshtein;

use super::error::UserError;

/// The nearest of the `known` names: another spelling of `name` (case, `-`, `_`), a few typing errors away, or a name that
/// `name` begins. `None` where no name is near.
///
/// ```
/// assert_eq!(datasets::nearest("Pdg20", ["natural", "pgd20"]), Some("pgd20"));
/// assert_eq!(datasets::nearest("cw", ["fgsm", "cw_inf"]), Some("cw_inf"));
/// assert_eq!(datasets::nearest("square", ["none", "pgd"]), None);
/// ```
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = plain(name);
    let errors = |other: &str| {
        let other = plain(other);
        if name.len() >= 2 && other.starts_with(&name) { 0 } else { damerau_levenshtein(&name, &other) }
    };
    let near = known.into_iter().map(|other| (errors(other), other)).filter(|(errors, _)| *errors <= allowed(&name));
    near.min_by_key(|(errors, _)| *errors).map(|(_, other)| other)
}

/// Typing errors that a name of this length may have.
fn allowed(name: &str) -> usize {
    match name.len() {
        0..=2 => 0,
        length => (length / 3).max(1),
    }
}

/// A name without case and separators.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| !matches!(letter, '-' | '_' | '.' | ' ')).flat_map(char::to_lowercase).collect()
}

impl UserError {
    /// Asks for the nearest of the `known` names, where one is near: before the next step that the error already has.
    pub fn did_you_mean<'a>(mut self, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        if let Some(near) = nearest(name, known) {
            let before = self.hint.map_or(String::new(), |hint| format!(" {hint}"));
            self.hint = Some(format!("did you mean {near}?{before}"));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_seen_through_and_other_names_are_not() {
        let networks = ["resnet18", "mobilenet-v2", "wrn-34-10", "convnet"];
        for (typed, meant) in [("resent18", "resnet18"), ("mobilenetv2", "mobilenet-v2"), ("WRN_34_10", "wrn-34-10")] {
            assert_eq!(nearest(typed, networks), Some(meant));
        }
        for typed in ["", "r", "vgg16", "transformer"] {
            assert_eq!(nearest(typed, networks), None, "{typed}");
        }
        // The nearest wins, not the first.
        assert_eq!(nearest("lr_scael", ["lr_policy", "lr", "lr_scale"]), Some("lr_scale"));
    }

    #[test]
    fn a_question_comes_before_the_next_step() {
        let error = UserError::expected("a known name").hint("The manual lists them.");
        let hint = error.clone().did_you_mean("cifar01", ["cifar10"]).hint.unwrap();
        assert_eq!(hint, "did you mean cifar10? The manual lists them.");
        assert_eq!(error.did_you_mean("imagenet", ["cifar10"]).hint.unwrap(), "The manual lists them.");
    }
}
