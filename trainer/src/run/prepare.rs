//! What a configuration needs from the disk, opened and checked before any rank trains.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use datasets::{Choice, Container, Extra, Source, Split, Subset, UserError, hold_out};
use tch::Kind;

use crate::config::{Protocol, Reading, RunConfig, STUDENT, Selection, Teacher};
use crate::model::{ModelSpec, outline};
use crate::run::container::{add_sha256, open_container};
use crate::run::extra::{RunClasses, extra_images};
use crate::run::folder::RunFolder;
use crate::run::initial::{InitialWeights, initial_weights};
use crate::run::teacher::{Pupil, check_teacher};
use crate::system::memory::total_memory;

/// A network that learns beside the student, before it is built.
pub struct Learned {
    /// Its form.
    pub form: ModelSpec,
    /// The weights that it begins with, if not random ones.
    pub initial: Option<InitialWeights>,
}

/// The opened inputs of a run.
pub struct Prepared {
    /// The images to train on.
    pub train: Arc<dyn Source>,
    /// The images of `data.extra` beside them.
    pub extra: Option<Extra>,
    /// The images that choose the best checkpoint, and the name of their split.
    pub selection: Option<(Arc<dyn Source>, &'static str)>,
    /// The test images.
    pub test: Arc<dyn Source>,
    /// Those of the final evaluation: the first `evaluation.images`, or all.
    pub evaluated: Arc<dyn Source>,
    /// The student's form.
    pub form: ModelSpec,
    /// The weights that the student begins with, if not random ones.
    pub initial: Option<InitialWeights>,
    /// The networks that learn beside the student.
    pub learners: BTreeMap<String, Learned>,
    /// The teachers' files of weights.
    pub teachers: BTreeMap<String, PathBuf>,
    /// For each teacher whose classes are the student's in another order, or more of them: the outputs to use.
    pub teacher_outputs: BTreeMap<String, Vec<usize>>,
    /// What the user should know of them.
    pub notes: Vec<String>,
    /// SHA-256 of images and labels as their containers state them, by what they are of.
    pub sha256: BTreeMap<String, String>,
}

/// Opens data and teachers. With `verify`, images and teachers are compared with the checksums in their files: once per
/// node is enough.
///
/// # Errors
/// A [`UserError`] for anything missing, damaged or of another shape, with the command that makes it.
pub fn prepare(config: &RunConfig, verify: bool) -> Result<Prepared> {
    let reading = config.data.reading;
    let train = open_container("data.train", &config.data.train, Split::Train, reading, verify)?;
    let mut sha256 = BTreeMap::new();
    add_sha256(&mut sha256, "data.train", &train);
    let train: Arc<dyn Source> = Arc::new(train);
    let all_classes = train.class_names().to_vec();
    let train = match &config.data.subset {
        Some(choice) => choice.of(train, config.seed).map_err(|error| error.file(&config.data.train))?,
        None => train,
    };
    let test = open_container("data.test", &config.data.test, Split::Test, reading, verify)?;
    add_sha256(&mut sha256, "data.test", &test);
    let test = of_classes(&config.data.test, test, config.data.subset.as_ref())?;
    let evaluated = match config.evaluation.images {
        Some(count) => first_images(&test, count, &config.data.test, "evaluation.images")?,
        None => Arc::clone(&test),
    };
    let shape = train.shape();
    if test.shape() != shape {
        let found = format!("images of {:?}", test.shape());
        let error = UserError::expected(format!("images of {shape:?}, as in data.train"));
        return Err(error.file(&config.data.test).key("data.test").value(found).into());
    }
    if let Some(difference) = class_difference(test.class_names(), train.class_names()) {
        let error = UserError::expected("the classes of data.train in the same order").value(difference);
        return Err(error.file(&config.data.test).key("data.test").into());
    }
    if let Some(augment) = &config.data.augment {
        augment.check(shape).map_err(|error| error.file(&config.data.train))?;
    }
    let form = student_form(config, train.as_ref())?;
    config.suite()?.check(&Protocol::of(config), form.classes)?;
    let (mut teachers, mut teacher_outputs, mut notes) = (BTreeMap::new(), BTreeMap::new(), vec![]);
    for (name, teacher) in &config.teachers {
        let weights = find_teacher(name, teacher)?;
        let matched = check_teacher(name, teacher, &weights, Pupil { form, classes: train.class_names() }, verify)?;
        notes.extend(matched.note().map(|note| format!("teacher {name}: {note}")));
        teacher_outputs.extend(matched.outputs().map(|outputs| (name.clone(), outputs.to_vec())));
        teachers.insert(name.clone(), weights);
    }
    let initial = initial_weights(STUDENT, &config.student, form, train.class_names())?;
    let mut learners = BTreeMap::new();
    for (name, learner) in &config.learners {
        let (key, network) = (format!("learners.{name}"), learner.network(&config.student));
        let form = ModelSpec::of(&network, form.image, form.classes);
        check_form(&key, config, form)?;
        let initial = initial_weights(&key, &network, form, train.class_names())?;
        notes.extend(initial.as_ref().and_then(|initial| initial.note.clone()));
        learners.insert(name.clone(), Learned { form, initial });
    }
    notes.extend(initial.as_ref().and_then(|initial| initial.note.clone()));
    let mut extra = None;
    if let Some(wanted) = &config.data.extra {
        // It may be larger than memory, whatever the training set is.
        let (key, reading) = ("data.extra.file", Reading::Streaming);
        let container = open_container(key, &wanted.file, Split::Train, reading, verify)?;
        add_sha256(&mut sha256, key, &container);
        let classes = RunClasses { all: &all_classes, chosen: train.class_names() };
        let (images, said) = extra_images(wanted, container, shape, classes)?;
        notes.extend(said);
        extra = Some(images);
    }
    let (train, selection) = select(config, train, &test)?;
    Ok(Prepared {
        initial,
        train,
        extra,
        selection,
        test,
        evaluated,
        form,
        learners,
        teachers,
        teacher_outputs,
        notes,
        sha256,
    })
}

/// Opens the test images of a run: those of the classes of `data.subset`, where it chooses some.
///
/// # Errors
/// A [`UserError`] that names the file and the command that makes it.
pub fn open_test(path: &Path, subset: Option<&Choice>, reading: Reading, verify: bool) -> Result<Arc<dyn Source>> {
    of_classes(path, open_container("data.test", path, Split::Test, reading, verify)?, subset)
}

/// The first `count` images of `test`, which lie in `file`. `key` asked for them.
///
/// # Errors
/// A [`UserError`] where there are fewer.
pub fn first_images(
    test: &Arc<dyn Source>,
    count: usize,
    file: &Path,
    key: &str,
) -> Result<Arc<dyn Source>, UserError> {
    if count > test.len() {
        let expected = format!("at most the {} images of the test set", test.len());
        return Err(UserError::expected(expected).file(file).key(key).value(count));
    }
    Ok(Arc::new(Subset::new(Arc::clone(test), (0..count).collect())))
}

fn of_classes(path: &Path, test: Container, subset: Option<&Choice>) -> Result<Arc<dyn Source>> {
    let test: Arc<dyn Source> = Arc::new(test);
    let Some(names) = subset.and_then(|choice| choice.classes.as_ref()) else { return Ok(test) };
    Ok(Arc::new(Subset::of_classes(test, names).map_err(|error| error.file(path))?))
}

fn student_form(config: &RunConfig, train: &dyn Source) -> Result<ModelSpec> {
    let classes = train.class_names().len();
    let chosen = config.student.classes.unwrap_or(classes);
    if chosen < classes {
        return Err(UserError::expected(format!("at least the {classes} classes of {}", config.data.train.display()))
            .key("student.classes")
            .value(chosen)
            .hint("leave the key out to take the number of classes from the data")
            .into());
    }
    let form = ModelSpec::of(&config.student, train.shape(), chosen);
    check_form(STUDENT, config, form)?;
    Ok(form)
}

/// Refuses a network, that of the table `key`, that this machine cannot hold, or for which the images are too small.
fn check_form(key: &str, config: &RunConfig, form: ModelSpec) -> Result<()> {
    check_memory(key, form, config.precision.dtype.kind())?;
    let smallest = form.architecture.smallest_image();
    if form.image[1].min(form.image[2]) < smallest {
        return Err(UserError::expected(format!("images of at least {smallest}x{smallest} pixels for this network"))
            .file(&config.data.train)
            .key(format!("{key}.architecture"))
            .value(form)
            .into());
    }
    Ok(())
}

/// Refuses a network that this machine cannot hold even once.
fn check_memory(key: &str, form: ModelSpec, kind: Kind) -> Result<()> {
    let values =
        outline(form).iter().map(|(_, shape)| shape.iter().map(|size| *size as u128).product::<u128>()).sum::<u128>();
    let wanted = values * kind.elt_size_in_bytes() as u128;
    match total_memory() {
        Some(there) if wanted > there.into() => Err(UserError::expected("a network that fits in memory")
            .key(format!("{key}.architecture"))
            .value(format!("{form}, whose weights alone are {wanted} bytes; this machine has {there}"))
            .hint("choose a smaller network, or fewer student.classes")
            .into()),
        _ => Ok(()),
    }
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
        Some(config) if path.extension().is_none_or(|ending| ending != "safetensors") => format!(
            "train it with `iad-launch {} --run {}`; without --no-teachers this command trains it first, where that file is \
             found from the current directory",
            config.display(),
            path.display()
        ),
        _ => format!(
            "train a teacher, then set teachers.{name}.checkpoint to its run folder; or import one of PyTorch with \
             `iad-launch weights import FILE --to {}`",
            path.display()
        ),
    };
    let key = format!("teachers.{name}.checkpoint");
    Err(UserError::expected("a finished run folder or a file of weights")
        .file(path)
        .key(key)
        .value(found)
        .hint(hint)
        .into())
}

/// What differs between two lists of class names.
fn class_difference(found: &[String], expected: &[String]) -> Option<String> {
    if found.len() != expected.len() {
        return Some(format!("{} classes instead of {}", found.len(), expected.len()));
    }
    let place = found.iter().zip(expected).position(|(found, expected)| found != expected)?;
    Some(format!("class {place} {:?} instead of {:?}", found[place], expected[place]))
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
            if kept.is_empty() {
                return Err(UserError::expected("a share that leaves images to train on")
                    .file(&config.data.train)
                    .key("evaluation.held_out")
                    .value(format!("{} of {} images", evaluation.held_out, train.len()))
                    .hint("hold out a smaller share")
                    .into());
            }
            let held_out: Arc<dyn Source> = Arc::new(Subset::new(Arc::clone(&train), held_out));
            Ok((Arc::new(Subset::new(train, kept)), Some((held_out, "held_out"))))
        }
    }
}
