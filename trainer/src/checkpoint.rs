//! The whole state of a run in one file, written so that a crash at any moment leaves the last good one.
//!
//! A checkpoint is a safetensors file. Its tensors are `student/NAME` (PyTorch's names) and
//! `momentum/NAME`; its metadata hold one JSON object, [`Header`], with the SHA-256 of all tensors. Files of weights alone
//! (`best`, `final`) hold the student only. A file appears under its name complete or not at all.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::config::hexadecimal;
use crate::model::Form;

const FORMAT: u32 = 1;

/// Where a run stands. With the tensors, this is its whole state: nothing here depends on the number of ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The epoch to go on with.
    pub epoch: u64,
    /// Batches of that epoch that are done.
    pub batch: u64,
    /// Steps done since the beginning.
    pub step: u64,
}

/// What stands in a checkpoint beside the tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header {
    /// The version of this format.
    pub format: u32,
    /// The student's kind and shapes.
    pub form: Form,
    /// SHA-256 of the resolved configuration that trained it; empty for imported weights.
    pub config: String,
    /// Where the run stood.
    pub progress: Progress,
    /// Images of a step over all ranks, in which `progress` counts.
    pub global_batch: usize,
    /// The best selection accuracy so far: correct answers under attack.
    pub best: Option<u64>,
    /// The bits of the float64 sums of the epoch so far.
    pub totals: BTreeMap<String, u64>,
    /// The length of metrics.jsonl at that moment.
    pub metrics_bytes: u64,
    /// Seconds of training so far, over all sessions.
    pub seconds: f64,
    /// How many of them had passed when the epoch began.
    pub epoch_began: f64,
    /// SHA-256 of all tensors' names and bytes, in order of their names.
    pub sha256: String,
    /// The file of another program that imported weights come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// Where imported weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The name of the file.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
    /// The keys that lead to the weights in it, with dots between them; empty where there are none.
    pub dictionary: String,
}

impl Header {
    /// A header for a run at its beginning.
    pub fn new(form: Form, config: String, global_batch: usize) -> Self {
        Self {
            format: FORMAT,
            form,
            config,
            progress: Progress::default(),
            global_batch,
            best: None,
            totals: BTreeMap::new(),
            metrics_bytes: 0,
            seconds: 0.0,
            epoch_began: 0.0,
            sha256: String::new(),
            source: None,
        }
    }
}

/// Tensors by name; in the order of names, so that equal states make equal files.
pub type Tensors = BTreeMap<String, Tensor>;

/// A tensor's bytes on the host.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Stored {
    fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Double => Dtype::F64,
            Kind::Int64 => Dtype::I64,
            kind => bail!("tensors of type {kind:?} are not stored"),
        };
        let shape = tensor.size().into_iter().map(|size| size as usize).collect();
        Ok(Self { dtype, shape, bytes: bytes_of(tensor) })
    }
}

/// The tensor's values as they stand in memory, brought to the host.
pub(crate) fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let host = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; host.numel() * host.kind().elt_size_in_bytes()];
    host.copy_data_u8(&mut bytes, host.numel());
    bytes
}

fn digest<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in tensors {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hexadecimal(&hash.finalize())
}

/// Writes a checkpoint: a temporary file beside, flushed to the disk, renamed.
///
/// # Errors
/// Anything the file system says, with the path; an existing file of that name is then unharmed.
pub fn write(path: &Path, mut header: Header, tensors: &Tensors) -> Result<()> {
    let stored: BTreeMap<&str, Stored> = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), Stored::from_tensor(tensor)?)))
        .collect::<Result<_>>()?;
    header.sha256 = digest(stored.iter().map(|(name, stored)| (*name, stored.bytes.as_slice())));
    let metadata = HashMap::from([("iad".to_string(), serde_json::to_string(&header)?)]);
    let bytes = safetensors::serialize(&stored, Some(metadata)).context("serialising a checkpoint")?;
    write_atomically(path, &bytes)
}

/// Replaces `path` by `bytes` so that a crash leaves the old or the new contents, never a mixture.
///
/// # Errors
/// Anything the file system says, with the path.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        // The rename itself must reach the disk too.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    });
    written.inspect_err(|_| drop(fs::remove_file(&partial))).with_context(|| format!("writing {}", path.display()))
}

/// Reads a checkpoint and checks its hash.
///
/// # Errors
/// A file that is missing, truncated, changed, or not ours.
pub fn read(path: &Path) -> Result<(Header, Tensors)> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let parsed = || -> Result<(Header, Tensors)> {
        let (header, file) = parse(&bytes)?;
        let mut views = file.tensors();
        views.sort_by(|(one, _), (other, _)| one.cmp(other));
        let found = digest(views.iter().map(|(name, view)| (name.as_str(), view.data())));
        ensure!(found == header.sha256, "its contents are damaged (SHA-256 {found}, recorded {})", header.sha256);
        let tensors = views.into_iter().map(|(name, view)| {
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::F64 => Kind::Double,
                Dtype::I64 => Kind::Int64,
                dtype => bail!("{name} has the unknown type {dtype:?}"),
            };
            let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
            Ok((name, Tensor::from_data_size(view.data(), &shape, kind)))
        });
        Ok((header, tensors.collect::<Result<_>>()?))
    };
    parsed().with_context(|| format!("{} is not a readable checkpoint", path.display()))
}

/// Reads what stands beside the tensors, without checking them.
///
/// # Errors
/// A file that is missing, truncated or not ours.
pub fn read_header(path: &Path) -> Result<Header> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    header_of(&bytes).with_context(|| format!("{} is not a readable checkpoint", path.display()))
}

/// What stands beside the tensors in these bytes of a checkpoint.
pub(crate) fn header_of(bytes: &[u8]) -> Result<Header> {
    parse(bytes).map(|(header, _)| header)
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// Anything the file system says.
pub fn file_sha256(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(sha256(&bytes))
}

/// SHA-256 of these bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn parse(bytes: &[u8]) -> Result<(Header, SafeTensors<'_>)> {
    let (_, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| anyhow::anyhow!("not safetensors: {error}"))?;
    let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get("iad"));
    let text = text.context("it has no \"iad\" metadata: not a checkpoint of this program")?;
    let header: Header = serde_json::from_str(text).context("its metadata")?;
    ensure!(header.format == FORMAT, "it has format {}, this program reads {FORMAT}", header.format);
    let file = SafeTensors::deserialize(bytes).map_err(|error| anyhow::anyhow!("not safetensors: {error}"))?;
    Ok((header, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let form = Form { architecture: "resnet8".parse().unwrap(), image: [1, 28, 28], classes: 10 };
        Header { best: Some(7), seconds: 0.1, ..Header::new(form, "hash".into(), 8) }
    }

    fn tensors() -> Tensors {
        let values = Tensor::arange(12, tch::kind::FLOAT_CPU).view([3, 4]) / 7.0;
        let wide = values.to_kind(Kind::Double).get(1);
        BTreeMap::from([
            ("student/weight".to_string(), values),
            ("student/wide".to_string(), wide),
            ("student/count".to_string(), Tensor::from(3i64)),
        ])
    }

    #[test]
    fn what_is_written_is_read_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step-1.safetensors");
        write(&path, header(), &tensors()).unwrap();
        let (found, read_back) = read(&path).unwrap();
        assert_eq!((found.best, found.seconds, found.config.as_str()), (Some(7), 0.1, "hash"));
        for (name, tensor) in tensors() {
            assert!(read_back[&name].equal(&tensor) && read_back[&name].kind() == tensor.kind(), "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_truncation_and_every_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("good.safetensors");
        write(&path, header(), &tensors()).unwrap();
        let good = fs::read(&path).unwrap();
        let bad = folder.path().join("bad.safetensors");
        for length in 0..good.len() {
            fs::write(&bad, &good[..length]).unwrap();
            assert!(read(&bad).is_err(), "cut to {length} bytes");
        }
        let data = good.len() - (12 * 4 + 4 * 8 + 8);
        for place in data..good.len() {
            let mut changed = good.clone();
            changed[place] ^= 0x10;
            fs::write(&bad, &changed).unwrap();
            let message = format!("{:#}", read(&bad).unwrap_err());
            assert!(message.contains("bad.safetensors") && message.contains("damaged"), "{message}");
        }
    }

    #[test]
    fn a_file_of_another_kind_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.safetensors");
        fs::write(&path, safetensors::serialize(HashMap::<String, &Stored>::new(), None).unwrap()).unwrap();
        let message = format!("{:#}", read(&path).unwrap_err());
        assert!(
            message.contains("other.safetensors") && message.contains("not a checkpoint of this program"),
            "{message}"
        );
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, header(), &tensors()).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
