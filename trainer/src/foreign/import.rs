//! Import: a checkpoint of another program becomes a file of weights of this one.

use std::path::Path;

use anyhow::Result;
use datasets::{UserError, refuse_existing};
use tch::{Kind, Tensor};

use super::dictionary::choose;
use super::recognise::{Fitted, fit};
use super::{Container, Opened, read_bytes, unreadable};
use crate::checkpoint::{self, Header, Source, Tensors};
use crate::model::{Architecture, Form};

/// What to import, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The checkpoint.
    pub file: &'a Path,
    /// The file of weights to make.
    pub to: &'a Path,
    /// The network, where it is not to be recognised.
    pub architecture: Option<Architecture>,
    /// Channels, height and width of its images.
    pub image: Option<[usize; 3]>,
    /// A container of such images instead.
    pub data: Option<&'a Path>,
    /// The keys that lead to the weights, with dots between them.
    pub key: Option<&'a str>,
}

/// What was imported.
#[derive(Debug)]
pub struct Imported {
    /// The network.
    pub form: Form,
    /// Its number of trainable values.
    pub parameters: usize,
    /// The kind of file it came from.
    pub container: Container,
    /// What was found, assumed or changed on the way.
    pub notes: Vec<String>,
}

/// Images for which networks of so many channels and classes are usually trained: 28x28 if they are grey, 64x64 with 200
/// classes (Tiny-ImageNet), else 32x32.
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
pub fn import(request: &Request) -> Result<Imported> {
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
    let dictionary = choose(&opened.dictionaries, request.key).map_err(|there| {
        let key = request.key.map_or_else(|| "unclear".to_string(), |key| format!("{key:?}"));
        UserError::expected(format!("the place of the weights among its {there}"))
            .file(request.file)
            .key("--key")
            .value(key)
            .hint("choose one with --key, as in --key state_dict")
    })?;
    let image = |channels, classes| request.image.unwrap_or_else(|| usual_image(channels, classes));
    let mut fitted = fit(dictionary, request.architecture, image).map_err(|problem| {
        UserError::expected(format!("the weights of {}", Architecture::NAMES))
            .file(request.file)
            .key(dictionary.place())
            .value(problem)
            .hint("docs/weights.md says what fits; --architecture names the network where it is not recognised")
    })?;
    let mut notes = check_images(request, &mut fitted)?;
    let tensors = convert(request.file, &fitted, &mut notes)?;
    if fitted.prefixed {
        notes.push("took `module.` off all names".into());
    }
    if fitted.unused > 0 {
        notes.push(format!("left out the {} tensors of sub_block1, which computes nothing", fitted.unused));
    }
    let name = request.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sha256 = checkpoint::sha256(&bytes);
    let source = Source { file: name, sha256, dictionary: dictionary.path.clone() };
    let header = Header { source: Some(source), ..Header::new(fitted.form, String::new(), 0) };
    checkpoint::write(request.to, header, &tensors)?;
    Ok(Imported { form: fitted.form, parameters: fitted.parameters(), container: opened.container, notes })
}

/// Settles the shape of the images and compares it with the network.
fn check_images(request: &Request, fitted: &mut Fitted) -> Result<Vec<String>> {
    let mut notes = vec![];
    let form = &mut fitted.form;
    if let Some(data) = request.data {
        let summary = datasets::summarise(data)?;
        if let Some(part) = summary.splits.first() {
            form.image = part.shape;
        }
        if summary.class_names.len() > form.classes {
            return Err(UserError::expected(format!("images of at most {} classes, as the network has", form.classes))
                .file(data)
                .key("--data")
                .value(format!("{} classes", summary.class_names.len()))
                .into());
        }
    } else if request.image.is_none() {
        let [channels, height, width] = form.image;
        notes.push(format!("assumed images of {channels}x{height}x{width}; --image or --data says otherwise"));
    }
    let smallest = form.architecture.smallest_image();
    let [given, height, width] = form.image;
    // The file says how many channels the first convolution takes.
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
