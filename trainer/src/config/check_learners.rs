//! The allowed values of `[learners]`, and of the terms that speak of them.

use datasets::UserError;

use super::range::must;
use super::{EMA, Learner, RunConfig, STUDENT, Term};

impl RunConfig {
    pub(super) fn check_learners(&self) -> Result<(), UserError> {
        for (name, learner) in &self.learners {
            let key = |field: &str| format!("learners.{name}.{field}");
            let taken =
                name == STUDENT || self.teachers.contains_key(name) || name == EMA && self.averages.ema.is_some();
            must(!taken, format!("learners.{name}"), "a network of this run", "another name for a learner")?;
            let Learner { from_epoch, teacher, .. } = learner;
            if let Some(teacher) = teacher {
                let known = self.teachers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                let expected = format!("a teacher of this run: {known}");
                must(self.teachers.contains_key(teacher), key("teacher"), format!("{teacher:?}"), &expected)
                    .map_err(|error| error.hint(format!("add [teachers.{teacher}] with its checkpoint")))?;
                let own = [
                    ("architecture", learner.architecture.is_some()),
                    ("normalize", learner.normalize.is_some()),
                    ("checkpoint", learner.checkpoint.is_some()),
                ];
                for (field, given) in own {
                    let expected = "nothing: the teacher has network and weights";
                    must(!given, key(field), format!("a value beside teacher = {teacher:?}"), expected)?;
                }
            }
            let expected = format!("an epoch of the run, 0 to {}", self.epochs - 1);
            must(*from_epoch < self.epochs, key("from_epoch"), from_epoch, &expected)?;
            let checked = self.optimizer_of(learner).check(self.epochs - from_epoch);
            checked.map_err(|error| match &learner.optimizer {
                Some(_) => within(&key(""), error),
                None => error.hint(format!("learners.{name} learns like the student, from epoch {from_epoch} on")),
            })?;
            let learns = |term: &Term| term.network == *name && term.weight > 0.0;
            let expected = format!(
                "a term with a weight and network = {name:?}; a network that stays as it is belongs in [teachers]"
            );
            let first = self.loss.terms.iter().filter(|term| learns(term)).min_by_key(|term| term.from_epoch);
            must(first.is_some(), format!("learners.{name}"), "a network that nothing trains", &expected)?;
            if let Some(term) = first {
                // Without a loss its weights would decay alone.
                let expected = format!("{from_epoch} or less: learners.{name} learns from epoch {from_epoch} on");
                let key = format!("loss.terms.{}.from_epoch", term.name);
                must(term.from_epoch <= *from_epoch, key, term.from_epoch, &expected)?;
            }
        }
        let Some(name) = self.learners.keys().next() else { return Ok(()) };
        let expected = format!("no [awp] beside [learners.{name}]: the weights of the student alone would move");
        must(self.awp.is_none(), "awp", "a table", &expected)
    }

    /// Refuses terms that ask a learner for what only a network that stays as it is can tell.
    pub(super) fn check_learners_in(&self, term: &Term) -> Result<(), UserError> {
        let key = |field: &str| format!("loss.terms.{}.{field}", term.name);
        let known = term.network == STUDENT || self.learners.contains_key(&term.network);
        let names = std::iter::once(STUDENT).chain(self.learners.keys().map(String::as_str)).collect::<Vec<_>>();
        let expected = format!("a network that this run trains: {}", names.join(", "));
        must(known, key("network"), format!("{:?}", term.network), &expected).map_err(|error| {
            let hint = format!("add [learners.{}], with an architecture or empty", term.network);
            error.hint(hint).did_you_mean(&term.network, names)
        })?;
        for (field, teacher) in [
            ("only.teacher", term.only.as_ref().map(|only| &only.teacher)),
            ("uncertainty.teacher", term.uncertainty.as_ref().map(|one| &one.teacher)),
            ("trust.teacher", term.trust.as_ref().map(|trust| &trust.teacher)),
        ] {
            let Some(teacher) = teacher else { continue };
            must(!self.learners.contains_key(teacher), key(field), teacher, "a teacher: a learner is no judge")?;
        }
        Ok(())
    }
}

/// The error with its key below `prefix`.
fn within(prefix: &str, error: UserError) -> UserError {
    let key = error.key.as_ref().map(|key| format!("{prefix}{key}"));
    UserError { key, ..error }
}
