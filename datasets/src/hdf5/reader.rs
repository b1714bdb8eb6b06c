//! An open data set file, and the checks on its contents.

use std::fmt;
use std::fs;
use std::path::Path;

use ::hdf5::dataset::Layout;
use ::hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor};
use ::hdf5::{Dataset, File, Group, H5Type, Location};
use anyhow::{Context, Result};

use crate::ground::error::UserError;
use crate::ground::regular::{in_words, open_regular};
use crate::schema::about::Split;

pub(super) const SCHEMA: &str = "iad-images";
pub(super) const VERSION: i64 = 1;
pub(super) const HINT: &str = "make the file anew, e.g. `iad-launch data import cifar10 --from DIR --to FILE.h5`";
/// The bytes of the longest string that is read.
pub(super) const LONGEST: usize = 1024;

/// An open file whose schema is known to be ours, and the checks on its contents.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    pub(super) file: File,
    /// The same file for the mapping, and its length in bytes.
    pub(super) plain: fs::File,
    pub(super) length: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self> {
        let missing = |error| wrong(path, "the file", in_words(&error), "a readable data set file");
        let plain = open_regular(path).map_err(missing)?;
        let metadata = plain.metadata()?;
        // Locks fail on some network file systems, and reading needs none.
        let file = File::with_options().with_fapl(|access| access.file_locking(false)).open(path).map_err(|error| {
            let value = format!("{} bytes that are not HDF5, or not all of it ({error})", metadata.len());
            wrong(path, "the file", value, "a complete HDF5 file")
        })?;
        let reader = Self { path, file, plain, length: metadata.len() };
        let schema = reader.string(&reader.file, "schema")?;
        if schema != SCHEMA {
            return Err(reader.wrong("schema", schema, SCHEMA).into());
        }
        let version = reader.file.attr("version").and_then(|version| version.as_reader().read_scalar::<i64>());
        let version = version.map_err(|error| reader.wrong("version", format!("unreadable ({error})"), VERSION))?;
        if version != VERSION {
            return Err(reader.wrong("version", version, VERSION).into());
        }
        Ok(reader)
    }

    pub(super) fn wrong(&self, key: &str, value: impl fmt::Display, expected: impl fmt::Display) -> UserError {
        wrong(self.path, key, value, expected)
    }

    pub(super) fn splits(&self) -> Vec<Split> {
        Split::ALL.into_iter().filter(|split| self.file.link_exists(split.name())).collect()
    }

    pub(super) fn group(&self, split: Split) -> Result<Group> {
        let name = split.name();
        let group = self.file.group(name).map_err(|_| {
            let there: Vec<_> = self.splits().into_iter().map(Split::name).collect();
            self.wrong(name, format!("missing (there is: {})", there.join(", ")), format!("a group `{name}`"))
        })?;
        let found = self.string(&group, &format!("{name}/split"))?;
        if found != name { Err(self.wrong(&format!("{name}/split"), found, name).into()) } else { Ok(group) }
    }

    /// The dataset `key` ("train/images") of `group`, of type `kind` and held by this very file.
    pub(super) fn dataset(&self, group: &Group, key: &str, kind: TypeDescriptor) -> Result<Dataset> {
        let expected = format!("a dataset of {kind}");
        let dataset = group.dataset(last(key)).map_err(|_| self.wrong(key, "missing", &expected))?;
        match dataset.dtype().and_then(|found| found.to_descriptor()) {
            Ok(found) if found == kind => {}
            Ok(found) => return Err(self.wrong(key, format!("of type {found}"), expected).into()),
            Err(error) => return Err(self.wrong(key, format!("of an unknown type ({error})"), expected).into()),
        }
        if dataset.filename() != self.file.filename() {
            return Err(self.wrong(key, format!("a link to {}", dataset.filename()), "data in this file").into());
        }
        Ok(dataset)
    }

    /// Where the `size` bytes of `dataset` begin, if they lie in one piece, and in any case that they can be there.
    pub(super) fn offset(&self, dataset: &Dataset, key: &str, size: usize) -> Result<Option<u64>> {
        // Deflate packs at best 1,032 bytes into one.
        const DENSEST: u64 = 1032;
        let (layout, stored, size) = (dataset.layout(), dataset.storage_size(), size as u64);
        let fits = |offset: u64| offset.checked_add(size).is_some_and(|end| end <= self.length);
        match (layout, dataset.offset()) {
            (Layout::Contiguous, Some(offset)) if fits(offset) => Ok(Some(offset)),
            (Layout::Compact, _) if fits(0) => Ok(None),
            (Layout::Chunked, _) if stored <= self.length && size <= stored.saturating_mul(DENSEST) => Ok(None),
            _ => {
                let value = format!("{size} bytes, {layout:?}, with {stored} stored in a file of {}", self.length);
                Err(self.wrong(key, value, "all bytes within the file").into())
            }
        }
    }

    /// All `count` values of `dataset`.
    pub(super) fn whole<T: H5Type + Copy + Default>(
        &self,
        dataset: &Dataset,
        key: &str,
        count: usize,
    ) -> Result<Vec<T>> {
        self.offset(dataset, key, count.saturating_mul(size_of::<T>()))?;
        let mut values = Vec::new();
        values.try_reserve_exact(count).with_context(|| format!("no memory for {key} of {}", self.path.display()))?;
        values.resize(count, T::default());
        dataset.as_reader().read_into_raw(&mut values).map_err(|error| self.wrong(key, error, "readable data"))?;
        Ok(values)
    }

    /// The one string of the attribute `key` ("name", "train/split").
    pub(super) fn string(&self, place: &Location, key: &str) -> Result<String> {
        let mut texts = self.strings(place, key, 1)?;
        texts.pop().ok_or_else(|| self.wrong(key, "empty", "a string").into())
    }

    /// The strings of the attribute `key`, at most `limit` of them.
    pub(super) fn strings(&self, place: &Location, key: &str, limit: usize) -> Result<Vec<String>> {
        let expected = format!("an attribute of fixed-length UTF-8 strings, each at most {LONGEST} bytes");
        let wrong = |value: String| self.wrong(key, value, &expected);
        let unreadable = |error: ::hdf5::Error| wrong(format!("unreadable ({error})"));
        let attribute = place.attr(last(key)).map_err(|_| wrong("missing".to_owned()))?;
        let count = attribute.space().map_err(unreadable)?.size();
        if count > limit {
            return Err(wrong(format!("{count} strings, more than {limit}")).into());
        }
        let values = attribute.as_reader();
        // As bytes: the library does not check that they are UTF-8. It fills up shorter strings, but keeps character sets
        // apart.
        let texts: Vec<Vec<u8>> = match attribute.dtype().and_then(|found| found.to_descriptor()).map_err(unreadable)? {
            TypeDescriptor::FixedUnicode(..=LONGEST) => {
                let texts = values.read_raw::<FixedUnicode<LONGEST>>().map_err(unreadable)?;
                texts.iter().map(|text| text.as_bytes().to_vec()).collect()
            }
            TypeDescriptor::FixedAscii(..=LONGEST) => {
                let texts = values.read_raw::<FixedAscii<LONGEST>>().map_err(unreadable)?;
                texts.iter().map(|text| text.as_bytes().to_vec()).collect()
            }
            other @ (TypeDescriptor::VarLenUnicode | TypeDescriptor::VarLenAscii) => {
                let name = last(key);
                let hint =
                    format!("write fixed-length strings, with h5py: attrs[{name:?}] = numpy.array(..., dtype=\"S\")");
                return Err(wrong(format!("of type {other}")).hint(hint).into());
            }
            other => return Err(wrong(format!("of type {other}")).into()),
        };
        let texts = texts.into_iter().map(String::from_utf8).collect::<Result<_, _>>();
        Ok(texts.map_err(|error| wrong(format!("not UTF-8 ({error})")))?)
    }
}

/// The error of a malformed data set file.
pub(crate) fn wrong(path: &Path, key: &str, value: impl fmt::Display, expected: impl fmt::Display) -> UserError {
    UserError::expected(expected.to_string()).file(path).key(key).value(value).hint(HINT)
}

/// The last name of a key such as "train/images".
pub(super) fn last(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}
