//! What a configuration needs from the disk, opened and checked before any rank trains.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use datasets::{Choice, Container, DATASETS, OFFICIAL, Source, Split, Subset, UserError, hold_out};

use crate::checkpoint::{self, read_header};
use crate::config::{Reading, RunConfig, Selection, Teacher};
use crate::evaluate::{Protocol, Suite};
use crate::folder::RunFolder;
use crate::foreign::import_command;
use crate::model::Form;

/// The opened inputs of a run.
pub struct Prepared {
    /// The images to train on.
    pub train: Arc<dyn Source>,
    /// The images that choose the best checkpoint, and the name of their split.
    pub selection: Option<(Arc<dyn Source>, &'static str)>,
    /// The images of the final evaluation.
    pub test: Arc<dyn Source>,
    /// The student's form.
    pub form: Form,
    /// The teachers' files of weights.
    pub teachers: BTreeMap<String, PathBuf>,
}

/// Opens data and teachers. With `verify`, images and teachers are compared with the checksums in their files: once per
/// node is enough.
///
/// # Errors
/// A [`UserError`] for anything missing, damaged or of another shape, with the command that makes it.
pub fn prepare(config: &RunConfig, verify: bool) -> Result<Prepared> {
    let reading = config.data.reading;
    let train = open_data("data.train", &config.data.train, Split::Train, reading, verify)?;
    let train = match &config.data.subset {
        Some(choice) => choice.of(train, config.seed).map_err(|error| error.file(&config.data.train))?,
        None => train,
    };
    let test = open_test(&config.data.test, config.data.subset.as_ref(), config.data.reading, verify)?;
    let shape = train.shape();
    if test.shape() != shape || test.class_names() != train.class_names() {
        let expected = format!("images of {shape:?} and {} classes, as in data.train", train.class_names().len());
        let found = format!("{:?} and {} classes", test.shape(), test.class_names().len());
        return Err(UserError::expected(expected).file(&config.data.test).key("data.test").value(found).into());
    }
    if let Some(augment) = &config.data.augment {
        augment.check(shape).map_err(|error| error.file(&config.data.train))?;
    }
    let form = student_form(config, train.as_ref())?;
    let suite = Suite::named(config.evaluation.suite.iter().map(String::as_str));
    suite.map_or(Ok(()), |suite| suite.check(&Protocol::of(config), form.classes))?;
    let mut teachers = BTreeMap::new();
    for (name, teacher) in &config.teachers {
        let weights = find_teacher(name, teacher)?;
        check_teacher(name, &weights, form, verify)?;
        teachers.insert(name.clone(), weights);
    }
    let (train, selection) = select(config, train, &test)?;
    Ok(Prepared { train, selection, test, form, teachers })
}

/// Opens the test images of a run: those of the classes of `data.subset`, where it chooses some.
///
/// # Errors
/// A [`UserError`] that names the file and the command that makes it.
pub fn open_test(path: &Path, subset: Option<&Choice>, reading: Reading, verify: bool) -> Result<Arc<dyn Source>> {
    let test = open_data("data.test", path, Split::Test, reading, verify)?;
    let Some(names) = subset.and_then(|choice| choice.classes.as_ref()) else { return Ok(test) };
    Ok(Arc::new(Subset::of_classes(test, names).map_err(|error| error.file(path))?))
}

/// Opens one split of a container.
///
/// # Errors
/// A [`UserError`] that names the file and the command that makes it.
fn open_data(key: &str, path: &Path, split: Split, reading: Reading, verify: bool) -> Result<Arc<dyn Source>> {
    if !path.exists() {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().replace('_', "-")).unwrap_or_default();
        let to = path.display();
        let command = match name.as_str() {
            known if OFFICIAL.iter().any(|file| file.dataset == known) => {
                format!("iad-launch data fetch {known} --to {to}")
            }
            known if DATASETS.contains(&known) => format!("iad-launch data import {known} --from PATH --to {to}"),
            _ => format!("iad-launch data import NAME --from PATH --to {to}"),
        };
        return Err(UserError::expected("an image container (HDF5)")
            .file(path)
            .key(key)
            .value("missing")
            .hint(format!("make it with `{command}`"))
            .into());
    }
    let container = match reading {
        Reading::Resident => Container::map(path, split)?,
        Reading::Streaming => Container::stream(path, split)?,
    };
    if verify {
        container.verify()?;
    }
    Ok(Arc::new(container))
}

fn student_form(config: &RunConfig, train: &dyn Source) -> Result<Form> {
    let classes = train.class_names().len();
    let chosen = config.student.classes.unwrap_or(classes);
    if chosen < classes {
        return Err(UserError::expected(format!("at least the {classes} classes of {}", config.data.train.display()))
            .key("student.classes")
            .value(chosen)
            .hint("leave the key out to take the number of classes from the data")
            .into());
    }
    let form = Form { architecture: config.student.architecture, image: train.shape(), classes: chosen };
    let smallest = form.architecture.smallest_image();
    if form.image[1].min(form.image[2]) < smallest {
        return Err(UserError::expected(format!("images of at least {smallest}x{smallest} pixels for this network"))
            .file(&config.data.train)
            .key("student.architecture")
            .value(form)
            .into());
    }
    Ok(form)
}

/// The weights a teacher's key names: a file, or the best (else the final) weights of a finished run folder.
///
/// # Errors
/// A [`UserError`] with the command that makes them.
pub fn find_teacher(name: &str, teacher: &Teacher) -> Result<PathBuf> {
    let path = &teacher.checkpoint;
    if path.is_file() {
        return Ok(path.clone());
    }
    let folder = RunFolder::at(path);
    if let Some(weights) = folder.finished_weights() {
        return Ok(weights);
    }
    let found = if path.exists() { "a run folder without finished weights" } else { "missing" };
    let hint = match &teacher.config {
        Some(config) => format!(
            "train it with `iad-launch {} --run {}`, or add --with-teachers to this command",
            config.display(),
            path.display()
        ),
        None => format!("train a teacher, then set teachers.{name}.checkpoint to its run folder"),
    };
    let key = format!("teachers.{name}.checkpoint");
    Err(UserError::expected("a finished run folder or a file of weights")
        .file(path)
        .key(key)
        .value(found)
        .hint(hint)
        .into())
}

fn check_teacher(name: &str, weights: &Path, student: Form, verify: bool) -> Result<()> {
    let key = format!("teachers.{name}.checkpoint");
    let error = |found: String, expected: String| UserError::expected(expected).file(weights).key(&key).value(found);
    let read = if verify { checkpoint::read(weights).map(|(header, _)| header) } else { read_header(weights) };
    let header = read.map_err(|problem| {
        let error = error(format!("{problem:#}"), "weights of this program".into());
        match import_command(weights, student.image) {
            Some(command) => error.hint(format!("import it once with `{command}`, and name the file it makes")),
            None => error.hint("copy the file again, or train the teacher again"),
        }
    })?;
    let form = header.form;
    if (form.image, form.classes) != (student.image, student.classes) {
        let [channels, height, width] = student.image;
        let expected =
            format!("a teacher for {channels}x{height}x{width} images and {} classes, as the student", student.classes);
        return Err(error(form.to_string(), expected).hint("choose a teacher trained on the same data set").into());
    }
    Ok(())
}

/// What training and selection look at: the training set, and its images or the test set's that choose a checkpoint.
type Selected = (Arc<dyn Source>, Option<(Arc<dyn Source>, &'static str)>);

fn select(config: &RunConfig, train: Arc<dyn Source>, test: &Arc<dyn Source>) -> Result<Selected> {
    match config.evaluation.selection {
        Selection::None => Ok((train, None)),
        Selection::Test => Ok((train, Some((Arc::clone(test), "test")))),
        Selection::HeldOut => {
            if train.len() < 2 {
                return Err(UserError::expected("at least 2 training images to hold some out")
                    .file(&config.data.train)
                    .key("evaluation.selection")
                    .value("held_out")
                    .hint("set evaluation.selection = \"none\"")
                    .into());
            }
            let evaluation = &config.evaluation;
            let (kept, held_out) = hold_out(train.as_ref(), evaluation.held_out, evaluation.stratified, config.seed);
            let held_out: Arc<dyn Source> = Arc::new(Subset::new(Arc::clone(&train), held_out));
            Ok((Arc::new(Subset::new(train, kept)), Some((held_out, "held_out"))))
        }
    }
}
