//! The whole state of a run in one file, written so that a crash at any moment leaves the last good one.
//!
//! A checkpoint is a safetensors file. Its tensors are `student/NAME` (PyTorch's names) and the optimizer's state,
//! such as `momentum/NAME`; its metadata
//! hold one JSON object, [`Header`]. Files of weights alone (`best`, `final`) hold the student only. A file appears under its
//! name complete or not at all.
//!
//! Format 2 has the SHA-256 of the whole file in the header, computed with 64 zeros in its place: no bit of the file can
//! change unnoticed. Format 1, which is still read, has that of the tensors alone.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::model::ModelSpec;
use crate::system::files::{read_regular, write_atomically};
use crate::weights::guarding::{Guarding, Offence};

const FORMAT: u32 = 2;
/// The number of hexadecimal digits of a SHA-256.
const DIGITS: usize = 64;

/// How far a run is. Nothing here depends on the number of ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The epoch of the next step.
    pub epoch: u64,
    /// Batches of that epoch that are done.
    pub batch: u64,
    /// Steps done since the beginning.
    pub step: u64,
}

/// What a checkpoint holds beside the tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header {
    /// The version of this format.
    pub format: u32,
    /// The student's kind and shapes.
    pub form: ModelSpec,
    /// SHA-256 of the resolved configuration that trained it; empty for imported weights.
    pub config: String,
    /// How far the run was.
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
    /// Correct answers under attack of the images that choose the best weights, where they were counted after this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<u64>,
    /// SHA-256 of the file with zeros in place of these digits. In format 1: of all tensors' names and bytes, in order of their
    /// names.
    pub sha256: String,
    /// The file of another program that imported weights come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The names of the first outputs, in their order; empty in files of versions before, and where they are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// What the guards of the run remember.
    #[serde(default, skip_serializing_if = "Guarding::is_empty")]
    pub guarding: Guarding,
    /// The step that the file is kept for, with its batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offence: Option<Offence>,
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
    pub fn new(form: ModelSpec, config: String, global_batch: usize) -> Self {
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
            selection: None,
            sha256: String::new(),
            source: None,
            class_names: vec![],
            guarding: Guarding::default(),
            offence: None,
        }
    }
}

/// Tensors by name; in the order of names, so that equal states make equal files.
pub type Tensors = BTreeMap<String, Tensor>;

/// A tensor as it is stored. Its bytes are copied where they are needed, so that there is no second copy of all of them.
struct Stored<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    tensor: &'a Tensor,
}

impl View for &Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(bytes_of(self.tensor))
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

impl<'a> Stored<'a> {
    fn from_tensor(tensor: &'a Tensor) -> Result<Self> {
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Double => Dtype::F64,
            Kind::Int64 => Dtype::I64,
            kind => bail!("tensors of type {kind:?} are not stored"),
        };
        let shape = tensor.size().into_iter().map(|size| size as usize).collect();
        Ok(Self { dtype, shape, tensor })
    }
}

/// The tensor's bytes in memory, copied to the host.
pub(crate) fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let host = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; host.numel() * host.kind().elt_size_in_bytes()];
    host.copy_data_u8(&mut bytes, host.numel());
    bytes
}

/// SHA-256 of the tensors of format 1.
fn digest_of_tensors<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in tensors {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    base16ct::lower::encode_string(&hash.finalize())
}

/// The place of the digits `recorded` of the header's hash in the file, and the SHA-256 of the file with zeros there.
fn digest_of_file(bytes: &[u8], recorded: &str) -> Result<(usize, String)> {
    // The header is a JSON string within JSON.
    let needle = format!(r#"\"sha256\":\"{recorded}\""#);
    let header = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize).saturating_add(8);
    let header = bytes.get(..header).context("it is cut off")?;
    let found = header.windows(needle.len()).position(|window| window == needle.as_bytes());
    let begin = found.filter(|_| recorded.len() == DIGITS).context("its header holds no SHA-256 of the file")?;
    let begin = begin + needle.len() - DIGITS - 2;
    let mut hash = Sha256::new();
    hash.update(&bytes[..begin]);
    hash.update([b'0'; DIGITS]);
    hash.update(&bytes[begin + DIGITS..]);
    Ok((begin, base16ct::lower::encode_string(&hash.finalize())))
}

/// Writes a checkpoint: a temporary file beside, flushed to the disk, renamed.
///
/// # Errors
/// An I/O error, with the path; an existing file of that name stays whole.
pub fn write(path: &Path, header: Header, tensors: &Tensors) -> Result<()> {
    write_atomically(path, &to_bytes(header, tensors)?)
}

/// The contents of a checkpoint.
///
/// # Errors
/// A tensor of a type that is not stored.
pub fn to_bytes(mut header: Header, tensors: &Tensors) -> Result<Vec<u8>> {
    let stored: BTreeMap<&str, Stored> = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), Stored::from_tensor(tensor)?)))
        .collect::<Result<_>>()?;
    header.sha256 = "0".repeat(DIGITS);
    let metadata = HashMap::from([("iad".to_string(), serde_json::to_string(&header)?)]);
    let mut bytes = safetensors::serialize(&stored, Some(metadata)).context("serialising a checkpoint")?;
    let (begin, sha256) = digest_of_file(&bytes, &header.sha256)?;
    bytes[begin..begin + DIGITS].copy_from_slice(sha256.as_bytes());
    Ok(bytes)
}

/// Reads a checkpoint and checks its hash.
///
/// # Errors
/// A file that is missing, truncated, changed, or not ours.
pub fn read(path: &Path) -> Result<(Header, Tensors)> {
    let bytes = read_regular(path).with_context(|| format!("reading {}", path.display()))?;
    from_bytes(&bytes).with_context(|| format!("{} is not a readable checkpoint", path.display()))
}

/// The contents of a checkpoint in these bytes, after checking their hash.
///
/// # Errors
/// Bytes that are truncated, changed, or not ours.
pub fn from_bytes(bytes: &[u8]) -> Result<(Header, Tensors)> {
    let (header, file) = parse(bytes)?;
    let mut views = file.tensors();
    views.sort_by(|(one, _), (other, _)| one.cmp(other));
    let found = match header.format {
        1 => digest_of_tensors(views.iter().map(|(name, view)| (name.as_str(), view.data()))),
        _ => digest_of_file(bytes, &header.sha256)?.1,
    };
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
}

/// Reads what a checkpoint holds beside the tensors, without checking its hash.
///
/// # Errors
/// A file that is missing, truncated or not ours.
pub fn read_header(path: &Path) -> Result<Header> {
    let bytes = read_regular(path).with_context(|| format!("reading {}", path.display()))?;
    header_of(&bytes).with_context(|| format!("{} is not a readable checkpoint", path.display()))
}

/// What these bytes of a checkpoint hold beside the tensors.
pub(crate) fn header_of(bytes: &[u8]) -> Result<Header> {
    parse(bytes).map(|(header, _)| header)
}

fn parse(bytes: &[u8]) -> Result<(Header, SafeTensors<'_>)> {
    let (_, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| anyhow::anyhow!("not safetensors: {error}"))?;
    let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get("iad"));
    let text = text.context("it has no \"iad\" metadata: not a checkpoint of this program")?;
    let header: Header = serde_json::from_str(text).context("its metadata")?;
    let known = (1..=FORMAT).contains(&header.format);
    ensure!(known, "it has format {}, this program reads 1 to {FORMAT}", header.format);
    let file = SafeTensors::deserialize(bytes).map_err(|error| anyhow::anyhow!("not safetensors: {error}"))?;
    Ok((header, file))
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn header() -> Header {
        let form = ModelSpec::new("resnet8".parse().unwrap(), [1, 28, 28], 10);
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
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("good.safetensors");
        write(&path, header(), &tensors()).unwrap();
        let good = fs::read(&path).unwrap();
        let bad = folder.path().join("bad.safetensors");
        for length in 0..good.len() {
            fs::write(&bad, &good[..length]).unwrap();
            assert!(read(&bad).is_err(), "cut to {length} bytes");
        }
        for place in 0..8 * good.len() {
            let mut changed = good.clone();
            changed[place / 8] ^= 1 << (place % 8);
            assert!(from_bytes(&changed).is_err(), "bit {} of byte {}", place % 8, place / 8);
        }
        let last = good.len() - 1;
        fs::write(&bad, [&good[..last], &[good[last] ^ 1]].concat()).unwrap();
        let message = format!("{:#}", read(&bad).unwrap_err());
        assert!(message.contains("bad.safetensors") && message.contains("damaged"), "{message}");
    }

    /// A file of format 1 has a hash of its tensors alone.
    #[test]
    fn files_of_format_1_are_read_and_their_tensors_checked() {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/runs/version-1/finished/checkpoints");
        let bytes = fs::read(folder.join("best.safetensors")).unwrap();
        let (header, tensors) = from_bytes(&bytes).unwrap();
        assert_eq!(header.format, 1);
        assert!(tensors.keys().all(|name| name.starts_with("student/")) && !tensors.is_empty());
        let mut changed = bytes;
        *changed.last_mut().unwrap() ^= 1;
        assert!(format!("{:#}", from_bytes(&changed).unwrap_err()).contains("damaged"));
    }

    #[test]
    fn equal_states_make_equal_files() {
        assert_eq!(to_bytes(header(), &tensors()).unwrap(), to_bytes(header(), &tensors()).unwrap());
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
