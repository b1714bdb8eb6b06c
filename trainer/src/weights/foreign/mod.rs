//! Weights of other programs: reading checkpoints of PyTorch, and writing ours for it.
//!
//! A file is recognised by its contents, not by its name. Nothing in it is executed: see [`datasets::pickle`].

mod archive;
mod describe;
mod dictionary;
mod export;
mod fit;
mod import;
mod measure;
mod names;
mod onnx;
mod prefixes;
mod published;
mod recognise;
mod state_dict;
mod tensors;
mod torch_save;
mod trace;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use datasets::{UserError, kind_of_file};
use safetensors::tensor::{Dtype, SafeTensors};
use tch::Kind;

use crate::system::files::{in_words, read_regular};
use crate::weights::checkpoint::{self, Header};
use crate::weights::foreign::archive::Archive;
use crate::weights::foreign::dictionary::Dictionary;
use crate::weights::foreign::measure::Claim;
use crate::weights::foreign::tensors::Described;
use crate::weights::foreign::torch_save::Saved;

pub use self::describe::{Description, describe};
pub use self::export::{ExportFormat, Exported, export};
pub use self::import::{ImportRequest, Imported, import};

/// The kinds of files of weights.
#[derive(Debug, Clone)]
pub enum Container {
    /// An archive of `torch.save`, as PyTorch 1.6 and later write it.
    Archive,
    /// The format of `torch.save` before that.
    Legacy,
    /// Plain safetensors.
    Safetensors,
    /// Weights or a checkpoint of this program.
    Ours(Box<Header>),
}

impl fmt::Display for Container {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Container::Archive => "an archive of torch.save",
            Container::Legacy => "the older format of torch.save",
            Container::Safetensors => "safetensors",
            Container::Ours(_) => "a checkpoint of this program",
        })
    }
}

/// A file of weights and the dictionaries in it that hold tensors.
struct Opened<'a> {
    container: Container,
    dictionaries: Vec<Dictionary<'a>>,
    /// The accuracies that it claims.
    claims: Vec<Claim>,
    /// The names of its classes, where it has them.
    class_names: Vec<String>,
}

impl<'a> Opened<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        Self::read_any(bytes)?.bounded(bytes.len())
    }

    fn read_any(bytes: &'a [u8]) -> Result<Self> {
        if Archive::is_one(bytes) {
            let saved = Saved::read_archive(bytes)?;
            return Self::of(Container::Archive, &saved);
        }
        if Saved::is_legacy(bytes) {
            let saved = Saved::read_legacy(bytes)?;
            return Self::of(Container::Legacy, &saved);
        }
        if let Some(known) = other_format(bytes) {
            bail!("{known}");
        }
        let unknown = "neither a file of torch.save nor safetensors";
        let (_, metadata) = SafeTensors::read_metadata(bytes).context(unknown)?;
        let ours = metadata.metadata().as_ref().is_some_and(|metadata| metadata.contains_key("iad"));
        let container =
            if ours { Container::Ours(Box::new(checkpoint::header_of(bytes)?)) } else { Container::Safetensors };
        let mut dictionaries: BTreeMap<String, Dictionary> = BTreeMap::new();
        let mut views = SafeTensors::deserialize(bytes).context(unknown)?.tensors();
        views.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (name, view) in views {
            let shape = view.shape().iter().map(|&size| i64::try_from(size)).collect::<Result<_, _>>()?;
            let kind = kind_of(view.dtype()).with_context(|| format!("{name} has type {:?}", view.dtype()))?;
            let tensor = Described::contiguous(kind, view.data(), shape)?;
            // Files of this program hold several kinds of tensors, as KIND/NAME.
            let (path, name) = name.split_once('/').filter(|_| ours).unwrap_or(("", &name));
            let dictionary = dictionaries.entry(path.to_string()).or_insert_with(|| Dictionary::new(path));
            dictionary.tensors.push((name.to_string(), tensor));
        }
        let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get(dictionary::CLASS_NAMES));
        let class_names = match &container {
            Container::Ours(header) => header.class_names.clone(),
            _ => text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
        };
        Ok(Self { container, dictionaries: dictionaries.into_values().collect(), claims: vec![], class_names })
    }

    fn of(container: Container, saved: &Saved<'a>) -> Result<Self> {
        let (claims, class_names) = (dictionary::claims(saved), dictionary::class_names(saved));
        Ok(Self { container, dictionaries: dictionary::all(saved)?, claims, class_names })
    }

    /// Refuses tensors that would take much more memory than the file, as those may whose elements share one place.
    fn bounded(self, file_size: usize) -> Result<Self> {
        for dictionary in &self.dictionaries {
            let size = dictionary.tensors.iter().fold(0usize, |size, (_, tensor)| size.saturating_add(tensor.size()));
            ensure!(size / 4 <= file_size, "tensors of {size} bytes in a file of {file_size}");
        }
        Ok(self)
    }
}

/// The other formats that users give for a checkpoint, recognised by their first bytes.
fn other_format(bytes: &[u8]) -> Option<String> {
    if bytes.get(257..262) == Some(b"ustar") {
        return Some("the tar format of PyTorch before 0.1.10; load and save it again with a later one".into());
    }
    let known: [(&[u8], &str); 3] = [
        (b"\x1f\x8b", "a file compressed with gzip; unpack it first"),
        (b"\x89HDF", "an HDF5 file; image containers are for data.train and data.test"),
        (b"\x80", "a pickle that torch.save has not made"),
    ];
    if let Some((_, format)) = known.into_iter().find(|(start, _)| bytes.starts_with(start)) {
        return Some((*format).into());
    }
    let kind = kind_of_file(bytes).filter(|_| !bytes.is_empty())?;
    Some(kind.hint.map_or(kind.name.into(), |hint| format!("{}; {hint}", kind.name)))
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

/// The command that imports `file`, if it is a checkpoint of another program, for images of that shape.
pub fn import_command(file: &Path, [channels, height, width]: [usize; 3]) -> Option<String> {
    let bytes = read_bytes(file).ok()?;
    let foreign = match Opened::read(&bytes) {
        Ok(opened) => !matches!(opened.container, Container::Ours(_)),
        // The import tells what is wrong with it.
        Err(_) => Archive::is_one(&bytes) || Saved::is_legacy(&bytes),
    };
    let name = file.file_name()?.to_string_lossy();
    let stem = [".pth.tar", ".pth", ".pt", ".t7", ".bin", ".safetensors"].iter().find_map(|end| name.strip_suffix(end));
    let to = file.with_file_name(format!("{}-imported.safetensors", stem.unwrap_or(&name)));
    let (file, to) = (file.display(), to.display());
    foreign.then(|| format!("iad-launch weights import {file} --to {to} --image {channels}x{height}x{width}"))
}

/// The kind of `file`, if it is known not to hold weights of this program.
fn other_contents(file: &Path) -> Option<String> {
    let bytes = read_bytes(file).ok()?;
    match Opened::read(&bytes) {
        Ok(Opened { container: Container::Ours(_), .. }) => None,
        Ok(opened) => Some(opened.container.to_string()),
        Err(_) if Archive::is_one(&bytes) || Saved::is_legacy(&bytes) => Some("a file of torch.save".into()),
        Err(_) => other_format(&bytes),
    }
}

/// What `file` is, of which reading it as weights of this program says `problem`; for a sentence such as "the file is ...".
pub fn what_it_is(file: &Path, problem: &anyhow::Error) -> String {
    if let Some(error) = problem.root_cause().downcast_ref() {
        return in_words(error);
    }
    other_contents(file).unwrap_or_else(|| format!("of no use ({})", problem.root_cause()))
}

/// Makes the folder of a new file.
fn make_folder(to: &Path) -> Result<(), UserError> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let error = |problem| {
        UserError::expected("a file in a folder that can be made").file(to).key("--to").value(in_words(&problem))
    };
    std::fs::create_dir_all(folder).map_err(error)
}

/// The bytes of a file of weights.
fn read_bytes(file: &Path) -> Result<Vec<u8>, UserError> {
    read_regular(file).map_err(|problem| {
        let found = match problem.kind() {
            std::io::ErrorKind::NotFound => "nothing there".to_string(),
            _ => in_words(&problem),
        };
        UserError::expected("a file of weights").file(file).value(found)
    })
}

/// A file that cannot be read as weights.
fn unreadable(file: &Path, problem: &anyhow::Error) -> UserError {
    let error = UserError::expected("a checkpoint of torch.save, or safetensors")
        .file(file)
        .key("the file")
        .value(format!("{problem:#}"));
    if format!("{problem:#}").contains("refused: ") {
        return error.hint(
            "a name it refuses would have to be executed. Where you trust the file, load it in PyTorch once and save \
             `model.state_dict()` alone: docs/weights.md",
        );
    }
    error.hint("docs/weights.md says which files are read")
}

#[cfg(test)]
mod tests;
