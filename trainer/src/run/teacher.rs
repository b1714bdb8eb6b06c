//! A teacher's file held against the student: images, classes, and whether it can be read.

use std::path::Path;

use anyhow::Result;
use datasets::UserError;

use crate::config::Teacher;
use crate::model::ModelSpec;
use crate::weights::checkpoint::{self, read_header};
use crate::weights::classes::{ClassMatch, NetworkClasses, match_classes};
use crate::weights::foreign::{import_command, what_it_is};

/// The student, as its teachers must fit it.
pub(super) struct Pupil<'a> {
    /// Its network.
    pub form: ModelSpec,
    /// The names of its classes.
    pub classes: &'a [String],
}

/// Checks the weights of the teacher `name`, and matches their outputs with the student's. With `verify`, every byte is
/// compared with the checksum.
///
/// # Errors
/// A [`UserError`] for weights that cannot be read, are for other images, or lack a class of the student.
pub(super) fn check_teacher(
    name: &str,
    teacher: &Teacher,
    weights: &Path,
    student: Pupil,
    verify: bool,
) -> Result<ClassMatch> {
    let key = format!("teachers.{name}.checkpoint");
    let error = |found: String, expected: String| UserError::expected(expected).file(weights).key(&key).value(found);
    let read = if verify { checkpoint::read(weights).map(|(header, _)| header) } else { read_header(weights) };
    let header = read.map_err(|problem| {
        let error = error(what_it_is(weights, &problem), "weights of this program".into());
        match import_command(weights, student.form.image) {
            Some(command) => error.hint(format!("import it once with `{command}`, and name the file it makes")),
            None => error.hint("copy the file again, or train the teacher again"),
        }
    })?;
    let (form, wanted) = (header.form, student.form);
    let same_data = "choose a teacher trained on the same data set";
    if form.image != wanted.image {
        let [channels, height, width] = wanted.image;
        let expected = format!("a teacher for {channels}x{height}x{width} images, as the student");
        return Err(error(form.to_string(), expected).hint(same_data).into());
    }
    let network = NetworkClasses { outputs: form.classes, names: &header.class_names };
    let order =
        format!("{same_data}; or set teachers.{name}.match_classes = \"order\" if its classes only have other names");
    let matched = match_classes(network, student.classes, teacher.match_classes)
        .map_err(|error| error.file(weights).key(&key).hint(order))?;
    let outputs = matched.outputs().map_or(form.classes, <[usize]>::len);
    if outputs != wanted.classes {
        let expected = format!("a teacher of {} classes, as the student", wanted.classes);
        return Err(error(format!("a network of {outputs} classes"), expected).hint(same_data).into());
    }
    Ok(matched)
}
