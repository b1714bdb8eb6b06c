//! Import: a checkpoint of another program becomes a file of weights of this one.

use std::path::Path;

use anyhow::Result;
use datasets::{UserError, refuse_existing};
use tch::{Kind, Tensor};

use crate::config::{Architecture, Normalize};
use crate::model::ModelSpec;
use crate::system::files::sha256;
use crate::weights::checkpoint::{self, Header, Source, Tensors};
use crate::weights::foreign::dictionary::choose;
use crate::weights::foreign::fit::{Fitted, Wanted, fit};
use crate::weights::foreign::measure::{Claim, measure};
use crate::weights::foreign::published::published;
use crate::weights::foreign::{Container, Opened, make_folder, read_bytes, unreadable};

/// A request to import weights.
#[derive(Debug, Clone, Copy)]
pub struct ImportRequest<'a> {
    /// The checkpoint.
    pub file: &'a Path,
    /// The file of weights to make.
    pub to: &'a Path,
    /// The architecture, instead of the one recognised by its tensors.
    pub architecture: Option<Architecture>,
    /// Channels, height and width of its images.
    pub image: Option<[usize; 3]>,
    /// A container of such images instead.
    pub data: Option<&'a Path>,
    /// The keys that lead to the weights, with dots between them.
    pub key: Option<&'a str>,
    /// The prefix of the network's names.
    pub prefix: Option<&'a str>,
    /// The normalisation of its images, where the file has none.
    pub normalize: Option<Normalize>,
    /// Its id in RobustBench's model zoo.
    pub id: Option<&'a str>,
    /// The names of its classes in the order of its outputs, where the file does not say.
    pub classes: Option<&'a [String]>,
}

/// Imported weights.
#[derive(Debug)]
pub struct Imported {
    /// The network.
    pub form: ModelSpec,
    /// Its number of trainable values.
    pub parameters: usize,
    /// The kind of file it came from.
    pub container: Container,
    /// Notes on what was found, assumed or changed.
    pub notes: Vec<String>,
}

/// The usual images of networks of these channels and classes: 28x28 for one channel, 64x64 for 200 classes (Tiny-ImageNet),
/// else 32x32.
pub fn usual_image(channels: usize, classes: usize) -> [usize; 3] {
    let side = match (channels, classes) {
        (1, _) => 28,
        (_, 200) => 64,
        _ => 32,
    };
    [channels, side, side]
}

/// Imports the weights of a network.
///
/// # Errors
/// A [`UserError`] for a file that cannot be read, holds other tensors than those of one of our networks, or does not fit the
/// images; an existing target. None leaves a file behind.
pub fn import(request: &ImportRequest) -> Result<Imported> {
    refuse_existing(request.to).map_err(|error| error.key("--to"))?;
    let bytes = read_bytes(request.file)?;
    let opened = Opened::read(&bytes).map_err(|problem| unreadable(request.file, &problem))?;
    if let Container::Ours(_) = opened.container {
        return Err(UserError::expected("a checkpoint of another program")
            .file(request.file)
            .key("the file")
            .value("weights of this program already")
            .hint("use it as it is, for instance as teachers.NAME.checkpoint")
            .into());
    }
    // Which key an id has does not depend on its classes.
    let published_key = request.id.and_then(|id| published(id, 10).ok()?.key);
    let published_key = published_key.filter(|key| opened.dictionaries.iter().any(|one| one.path == *key));
    let dictionary = choose(&opened.dictionaries, request.key.or(published_key)).map_err(|there| {
        let key = request.key.map_or_else(|| "unclear".to_string(), |key| format!("{key:?}"));
        UserError::expected(format!("the place of the weights among its {there}"))
            .file(request.file)
            .key("--key")
            .value(key)
            .hint("choose one with --key, as in --key state_dict")
    })?;
    let image = |channels, classes| request.image.unwrap_or_else(|| usual_image(channels, classes));
    let ImportRequest { architecture, prefix, normalize, id, .. } = *request;
    let mut fitted = fit(dictionary, &Wanted { architecture, prefix, normalize, id }, image).map_err(|problem| {
        UserError::expected(format!("the weights of {}", Architecture::NAMES))
            .file(request.file)
            .key(dictionary.place())
            .value(problem)
            .hint(
                "docs/weights.md says what fits; --architecture names the network where it is not recognised, --prefix what \
                 stands before its names",
            )
    })?;
    let mut notes = check_images(request, &mut fitted)?;
    let tensors = convert(request.file, &fitted, &mut notes)?;
    notes.append(&mut fitted.notes);
    let mut class_names = class_names(request, &opened.class_names, fitted.form.classes)?;
    if let Some(data) = request.data {
        let clean = fitted.published.and_then(|published| published.clean);
        let published = clean.zip(id).map(|(percent, id)| Claim { by: id.to_string(), percent });
        let claim = published.as_ref().or(opened.claims.first());
        let measured = measure(fitted.form, &tensors, &class_names, data, claim)?;
        if class_names.is_empty() && !measured.doubtful && measured.class_names.len() == fitted.form.classes {
            notes.push(format!("took the names of its classes from {}", data.display()));
            class_names = measured.class_names;
        }
        notes.extend(measured.notes);
    }
    let name = request.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sha256 = sha256(&bytes);
    let source = Source { file: name, sha256, dictionary: dictionary.path.clone() };
    let header = Header { source: Some(source), class_names, ..Header::new(fitted.form, String::new(), 0) };
    make_folder(request.to)?;
    checkpoint::write(request.to, header, &tensors)?;
    Ok(Imported { form: fitted.form, parameters: fitted.parameters(), container: opened.container, notes })
}

/// The names of the classes: those of the file, else those of the request; empty if neither has any.
fn class_names(request: &ImportRequest, found: &[String], classes: usize) -> Result<Vec<String>, UserError> {
    let names = request.classes.filter(|_| found.is_empty()).unwrap_or(found);
    let error = |expected: String, value: String| {
        let key = if found.is_empty() { "--classes" } else { "class_names" };
        UserError::expected(expected).file(request.file).key(key).value(value)
    };
    if request.classes.is_some_and(|stated| !found.is_empty() && stated != found) {
        return Err(error("the names that the file gives".into(), found.join(", ")).hint("leave --classes out"));
    }
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(error("each class once".into(), format!("{:?} twice", pair[0])));
    }
    // A student may have more outputs than its data have classes; its export names the first ones.
    let fits = if found.is_empty() { names.len() == classes } else { names.len() <= classes };
    if !names.is_empty() && !fits {
        return Err(error(format!("{classes} names, one for each output"), format!("{} names", names.len())));
    }
    Ok(names.to_vec())
}

/// Decides the shape of the images and compares it with the network.
fn check_images(request: &ImportRequest, fitted: &mut Fitted) -> Result<Vec<String>> {
    let mut notes = vec![];
    let form = &mut fitted.form;
    if let Some(data) = request.data {
        let summary = datasets::summarise(data)?;
        if let Some(part) = summary.splits.first() {
            form.image = part.shape;
        }
    } else if request.image.is_none() {
        let [channels, height, width] = form.image;
        notes.push(format!("assumed images of {channels}x{height}x{width}; --image or --data says otherwise"));
    }
    let smallest = form.architecture.smallest_image();
    let [given, height, width] = form.image;
    // The file decides the channels of the first convolution.
    let fits = given == fitted.channels && height.min(width) >= smallest;
    if !fits {
        let expected = format!("images of {} channels and at least {smallest}x{smallest} pixels", fitted.channels);
        let key = if request.data.is_some() { "--data" } else { "--image" };
        let error =
            UserError::expected(expected).file(request.file).key(key).value(format!("{given}x{height}x{width}"));
        return Err(error.hint("give the shape of the images that the network was trained on").into());
    }
    Ok(notes)
}

/// The tensors as float32, and the pass counters as they are.
fn convert(file: &Path, fitted: &Fitted, notes: &mut Vec<String>) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    let mut kinds: Vec<Kind> = vec![];
    for (name, described) in &fitted.tensors {
        let tensor = described.tensor().to_kind(Kind::Float);
        if !bool::try_from(tensor.isfinite().all())? {
            return Err(UserError::expected("finite numbers, within the range of float32")
                .file(file)
                .key(name)
                .value("not finite")
                .hint("the training that made it has failed; take an earlier checkpoint")
                .into());
        }
        if described.kind != Kind::Float && !kinds.contains(&described.kind) {
            kinds.push(described.kind);
        }
        tensors.insert(format!("student/{name}"), tensor);
    }
    if let Some((mean, deviation)) = &fitted.normalization {
        let single = |values: &[f64]| Tensor::from_slice(values).to_kind(Kind::Float);
        tensors.insert("student/normalize.mean".into(), single(mean));
        tensors.insert("student/normalize.std".into(), single(deviation));
    }
    for kind in kinds {
        notes.push(format!("converted {kind:?} to Float (32 bits)"));
    }
    for (name, described) in &fitted.counters {
        if described.count() != 1 || described.kind != Kind::Int64 {
            let found = format!("{:?} of type {:?}", described.shape, described.kind);
            return Err(UserError::expected("one int64").file(file).key(name).value(found).into());
        }
        let counter: Tensor = described.tensor().reshape([] as [i64; 0]);
        tensors.insert(format!("student/{name}"), counter);
    }
    Ok(tensors)
}
