//! Files of `torch.save`: a pickle, and the storages that its tensors are views of.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use datasets::pickle::{Pickle, Value};
use datasets::zip::Zip;
use tch::Kind;

use crate::weights::foreign::archive::Archive;
use crate::weights::foreign::names::{kind_of_storage, names};
use crate::weights::foreign::tensors::Described;
use crate::weights::script::holds_script;

/// The first bytes of the old format: 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
const PROTOCOL_VERSION: i64 = 1001;

/// The answer to a TorchScript file.
const SCRIPT: &str = "a TorchScript file, a network with its program; `iad-launch eval FILE --data FILE.h5` evaluates it as it \
                      is, and state_dict() in PyTorch gives its weights alone";

const TENSOR: &str = "torch._utils._rebuild_tensor";
const TENSOR_V2: &str = "torch._utils._rebuild_tensor_v2";
const PARAMETER: &str = "torch._utils._rebuild_parameter";
const ORDERED_DICT: &str = "collections.OrderedDict";
const DEFAULT_DICT: &str = "collections.defaultdict";

/// A file of `torch.save`, opened.
pub struct Saved<'a> {
    /// What was saved.
    pub pickle: Pickle<'a>,
    storages: HashMap<&'a str, &'a [u8]>,
}

/// A storage as a pickle describes it.
struct Storage<'a> {
    kind: Kind,
    key: &'a str,
    /// Elements of the whole.
    count: usize,
    /// The part of it that is used: its first element and its number of elements.
    part: (i64, i64),
}

impl<'a> Saved<'a> {
    /// Reads an archive of PyTorch 1.6 and later.
    ///
    /// # Errors
    /// Another archive, a damaged one, one of big-endian numbers; a pickle that names something unknown.
    pub fn read_archive(bytes: &'a [u8]) -> Result<Self> {
        ensure!(!holds_script(&Zip::open(bytes)?), SCRIPT);
        let archive = Archive::read(bytes)?;
        let folder =
            archive.records.first().and_then(|(name, _)| name.split_once('/')).map_or("", |(folder, _)| folder);
        let record = |name: &str| archive.get(&format!("{folder}/{name}"));
        ensure!(record("constants.pkl").is_none(), SCRIPT);
        let pickle = record("data.pkl").context("an archive without data.pkl: torch.save has not made it")?;
        if let Some(order) = record("byteorder") {
            ensure!(order == b"little", "byte order {:?}: only little-endian files are read", order.escape_ascii());
        }
        let pickle = Pickle::read(pickle, &names()).context("data.pkl")?;
        let mut storages = HashMap::new();
        for identifier in pickle.outsides() {
            let Storage { key, .. } = storage(&pickle, identifier)?;
            let contents = record(&format!("data/{key}"));
            storages.insert(key, contents.with_context(|| format!("the archive has no record data/{key}"))?);
        }
        Ok(Self { pickle, storages })
    }

    /// Whether the file begins like one of the old format.
    pub fn is_legacy(bytes: &[u8]) -> bool {
        Pickle::read_first(bytes, &[]).is_ok_and(|(magic, _)| magic.root == Value::Long(MAGIC))
    }

    /// Reads the format of PyTorch 0.1.10 to 1.5, and of `_use_new_zipfile_serialization=False`: some pickles, then the
    /// storages, each behind its length.
    ///
    /// # Errors
    /// As [`read_archive`](Self::read_archive).
    pub fn read_legacy(bytes: &'a [u8]) -> Result<Self> {
        let (magic, rest) = Pickle::read_first(bytes, &[])?;
        ensure!(magic.root == Value::Long(MAGIC), "a pickle that torch.save has not made");
        let (version, rest) = Pickle::read_first(rest, &[])?;
        ensure!(version.root == Value::Integer(PROTOCOL_VERSION), "a version of torch.save's format that is not 1001");
        let (system, rest) = Pickle::read_first(rest, &[])?;
        let little = system.get(system.root, "little_endian");
        ensure!(little == Some(Value::Bool(true)), "only little-endian files are read");
        let (pickle, rest) = Pickle::read_first(rest, &names()).context("its third pickle")?;
        let (keys, mut rest) = Pickle::read_first(rest, &[]).context("its list of storages")?;

        let mut described: HashMap<&str, (Kind, usize)> = HashMap::new();
        for identifier in pickle.outsides() {
            let Storage { kind, key, count, .. } = storage(&pickle, identifier)?;
            let known = *described.entry(key).or_insert((kind, count));
            ensure!(known == (kind, count), "storage {key} is described in two ways");
        }
        let mut storages = HashMap::new();
        for key in keys.elements(keys.root).context("its list of storages is no list")? {
            let key = key.text().context("a storage without a name")?;
            let (key, (kind, count)) =
                described.get_key_value(key).with_context(|| format!("storage {key} is of unknown type"))?;
            let missing = || format!("storage {key} is cut short");
            let (length, behind) = rest.split_first_chunk().with_context(missing)?;
            ensure!(
                u64::from_le_bytes(*length) == *count as u64,
                "storage {key} has another length than its tensors say"
            );
            let size = count.checked_mul(kind.elt_size_in_bytes()).with_context(missing)?;
            let (contents, behind) = behind.split_at_checked(size).with_context(missing)?;
            storages.insert(*key, contents);
            rest = behind;
        }
        ensure!(rest.is_empty(), "{} bytes after the end", rest.len());
        Ok(Self { pickle, storages })
    }

    /// What a dict or one of its kinds holds, if it is one.
    pub fn entries(&self, value: Value<'a>) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        if let Some(entries) = self.pickle.entries(value) {
            return Some(entries.to_vec());
        }
        let made = self.pickle.made(value).filter(|made| [ORDERED_DICT, DEFAULT_DICT].contains(&made.function))?;
        // Python 2 gives an OrderedDict its entries as a list of pairs.
        let pairs =
            self.pickle.elements(made.arguments).and_then(|arguments| self.pickle.elements(*arguments.first()?));
        let pairs = pairs.unwrap_or_default().iter().filter_map(|pair| match self.pickle.elements(*pair)? {
            &[key, value] => Some((key, value)),
            _ => None,
        });
        Some(pairs.chain(made.items.iter().copied()).collect())
    }

    /// The tensor that a value describes, if it describes one.
    ///
    /// # Errors
    /// A tensor that reaches beyond its storage, or is described in an unknown way.
    pub fn tensor(&self, value: Value<'a>) -> Result<Option<Described<'a>>> {
        let made = |value| self.pickle.made(value).map(|made| (made.function, self.pickle.elements(made.arguments)));
        let (function, arguments) = match made(value) {
            Some((PARAMETER, arguments)) => {
                let data = arguments.and_then(|arguments| arguments.first()).context("a parameter without a tensor")?;
                made(*data).context("a parameter without a tensor")?
            }
            Some(other) => other,
            None => return Ok(None),
        };
        if ![TENSOR, TENSOR_V2].contains(&function) {
            return Ok(None);
        }
        let Some(&[place, Value::Integer(offset), shape, strides, ..]) = arguments else {
            bail!("a tensor that is described in an unknown way");
        };
        let identifier = self.pickle.outside(place).context("a tensor without a storage")?;
        let Storage { kind, key, count, part } = storage(&self.pickle, identifier)?;
        let whole = *self.storages.get(key).with_context(|| format!("storage {key} is missing"))?;
        let size = kind.elt_size_in_bytes();
        ensure!(
            count.checked_mul(size) == Some(whole.len()),
            "storage {key} has {} bytes, not {count} elements",
            whole.len()
        );
        let part = Described::new(kind, whole, part.0, vec![part.1], vec![1])?.bytes();
        Described::new(kind, part, offset, integers(&self.pickle, shape)?, integers(&self.pickle, strides)?).map(Some)
    }
}

/// Reads a storage's identifier: the word "storage", its type, key, device and number of elements; and in the old format a
/// part of it that is meant: a key, where it begins, how many elements it has.
fn storage<'a>(pickle: &Pickle<'a>, identifier: Value<'a>) -> Result<Storage<'a>> {
    let parts = pickle.elements(identifier).context("a persistent id that is no tuple")?;
    let &[word, Value::Global(class), key, _, Value::Integer(count), ref view @ ..] = parts else {
        bail!("a persistent id that is no storage");
    };
    ensure!(word.text() == Some("storage"), "a persistent id that is no storage");
    let kind = kind_of_storage(class).with_context(|| format!("a storage of type {class}"))?;
    let key = key.text().context("a storage without a name")?;
    let part = match view {
        [] | [Value::None] => (0, count),
        [view] => match pickle.elements(*view) {
            Some(&[_, Value::Integer(offset), Value::Integer(size)]) => (offset, size),
            _ => bail!("a part of a storage that is described in an unknown way"),
        },
        _ => bail!("a persistent id that is no storage"),
    };
    let count = usize::try_from(count).context("a storage of negative size")?;
    Ok(Storage { kind, key, count, part })
}

/// A tuple of integers, or a `torch.Size`.
fn integers(pickle: &Pickle, value: Value) -> Result<Vec<i64>> {
    let tuple = match pickle.made(value) {
        Some(made) => pickle.elements(made.arguments).and_then(|arguments| arguments.first()).copied(),
        None => Some(value),
    };
    let elements = tuple.and_then(|tuple| pickle.elements(tuple)).context("a shape that is no tuple")?;
    let integer = |value: &Value| if let Value::Integer(number) = value { Some(*number) } else { None };
    // A tensor has few dimensions; a longer tuple would be copied for each that names it.
    elements.iter().take(9).map(integer).collect::<Option<_>>().context("a size that is no integer")
}

#[cfg(test)]
mod tests;
