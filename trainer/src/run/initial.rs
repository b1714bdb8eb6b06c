//! The weights that a network begins with instead of random ones: `student.checkpoint`, `learners.NAME.checkpoint`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datasets::UserError;

use crate::config::{ClassMatching, STUDENT, Student};
use crate::model::{Model, ModelSpec, outline};
use crate::run::folder::RunFolder;
use crate::weights::checkpoint::{self, read_header};
use crate::weights::classes::{NetworkClasses, classifier_layer, match_classes, select_outputs};
use crate::weights::foreign::{import_command, what_it_is};
use crate::weights::student::load_student;

/// The weights that a network begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialWeights {
    /// Their file.
    pub file: PathBuf,
    /// For each class of the student the output that stands for it, if they are not in order.
    outputs: Option<Vec<usize>>,
    /// Whether the last layer keeps its random values.
    resets_classifier: bool,
    /// What the user should know of them.
    pub note: Option<String>,
}

/// Finds and checks the initial weights of `student`, the network of the configuration's table `table`, of the given form and
/// classes; `None` if it names none.
///
/// # Errors
/// A [`UserError`] for weights that are missing, of another network, or of other classes without `reset_classifier`.
pub(super) fn initial_weights(
    table: &str,
    student: &Student,
    form: ModelSpec,
    classes: &[String],
) -> Result<Option<InitialWeights>> {
    let Some(path) = &student.checkpoint else {
        if student.reset_classifier {
            let error =
                UserError::expected("student.checkpoint beside it").key("student.reset_classifier").value("true");
            return Err(error.hint("a student without initial weights has a random last layer anyway").into());
        }
        return Ok(None);
    };
    let key = format!("{table}.checkpoint");
    let file = find(path, &key)?;
    let error = |expected: String| UserError::expected(expected).file(&file).key(&key);
    let header = read_header(&file).map_err(|problem| {
        let refused = error("weights of this program".into()).value(what_it_is(&file, &problem));
        match import_command(&file, form.image) {
            Some(command) => refused.hint(format!("import it once with `{command}`, and name the file it makes")),
            None => refused.hint("`iad-launch weights info FILE` says what it is"),
        }
    })?;
    let mut found = header.form;
    let (mut outputs, mut note) = (None, None);
    if !student.reset_classifier {
        let network = NetworkClasses { outputs: found.classes, names: &header.class_names };
        let hint = match table {
            STUDENT => "set student.reset_classifier = true to begin with a new last layer",
            _ => "name weights that were trained on the classes of data.train",
        };
        let matched = match_classes(network, classes, ClassMatching::Name)
            .map_err(|error| error.file(&file).key(&key).hint(hint))?;
        outputs = matched.outputs().map(<[usize]>::to_vec);
        note = matched.note().map(|note| format!("{key}: {note}"));
        found.classes = outputs.as_ref().map_or(found.classes, Vec::len);
        if found.classes != form.classes {
            let refused =
                error(format!("weights of {} classes", form.classes)).value(format!("{} classes", found.classes));
            return Err(refused.hint(hint).into());
        }
    }
    let normalization = |form: ModelSpec| form.normalization();
    if found.architecture != form.architecture || normalization(found) != normalization(form) {
        let expected = format!("weights of the network of [{table}], {form}");
        return Err(error(expected)
            .value(header.form)
            .hint(format!("set {table}.architecture and {table}.normalize as the weights have them"))
            .into());
    }
    let layer = classifier_layer(form);
    let body = |form: ModelSpec| -> Vec<_> {
        outline(form).into_iter().filter(|(name, _)| !name.starts_with(&layer)).collect()
    };
    if body(found) != body(form) {
        return Err(error(format!("weights for images as those of data.train, {form}")).value(header.form).into());
    }
    Ok(Some(InitialWeights { file, outputs, resets_classifier: student.reset_classifier, note }))
}

/// The file of weights at `path`: itself, or the best (else the final) weights of a finished run folder.
fn find(path: &Path, key: &str) -> Result<PathBuf, UserError> {
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    RunFolder::at(path).finished_weights().ok_or_else(|| {
        let found = if path.exists() { "a folder without finished weights" } else { "missing" };
        UserError::expected("a finished run folder or a file of weights").file(path).key(key).value(found).hint(
            "train that run to its end, name one of its checkpoints, or import weights of PyTorch with `iad-launch weights \
             import`",
        )
    })
}

impl InitialWeights {
    /// Loads them into `student`, whose last layer keeps its values if it is reset.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn load(&self, student: &Model) -> Result<()> {
        let (header, mut tensors) = checkpoint::read(&self.file)?;
        let mut form = header.form;
        if let Some(outputs) = &self.outputs {
            select_outputs(&mut form, &mut tensors, outputs);
        }
        if self.resets_classifier {
            let layer = classifier_layer(form);
            for named in student.tensors().filter(|named| named.name.starts_with(&layer)) {
                tensors.insert(format!("student/{}", named.name), named.tensor.copy());
            }
        }
        load_student(student, &tensors).with_context(|| self.file.display().to_string())
    }
}
