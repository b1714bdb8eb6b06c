//! CIFAR-10 and CIFAR-100 as published, in their binary or python versions.

use std::path::Path;

use anyhow::Result;

use super::files::Files;
use super::imported::{Imported, wrong_file};
use crate::formats::pickle::{Pickle, Value};
use crate::formats::pickled_array as array;
use crate::ground::error::UserError;
use crate::ground::memory::Memory;
use crate::schema::about::Coarse;

const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;
const URL: &str = "https://www.cs.toronto.edu/~kriz/cifar.html";
/// More than any published file of names has.
const NAMES: usize = 1 << 16;
/// More than the largest published batch has: 50,000 records.
const BATCH: usize = 200 << 20;

/// The differences between the two data sets.
#[derive(Debug)]
pub(super) struct Kind {
    title: &'static str,
    classes: usize,
    coarse: usize,
    /// The folders of the binary and of the python version.
    folders: [&'static str; 2],
    train: &'static [&'static str],
    test: &'static str,
    /// Files of fine and coarse names of the binary version, and the file of names of the python version.
    names: [&'static str; 3],
    /// The keys of names and labels in the python version: fine names, fine labels, coarse names, coarse labels.
    keys: [&'static str; 4],
    hint: &'static str,
}

pub(super) const CIFAR10: Kind = Kind {
    title: "CIFAR-10",
    classes: 10,
    coarse: 0,
    folders: ["cifar-10-batches-bin", "cifar-10-batches-py"],
    train: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
    test: "test_batch",
    names: ["batches.meta.txt", "", "batches.meta"],
    keys: ["label_names", "labels", "", ""],
    hint: "get it with `iad-launch data fetch cifar10`, or give cifar-10-binary.tar.gz or cifar-10-python.tar.gz of \
           https://www.cs.toronto.edu/~kriz/cifar.html, or its folder, to --from",
};

pub(super) const CIFAR100: Kind = Kind {
    title: "CIFAR-100",
    classes: 100,
    coarse: 20,
    folders: ["cifar-100-binary", "cifar-100-python"],
    train: &["train"],
    test: "test",
    names: ["fine_label_names.txt", "coarse_label_names.txt", "meta"],
    keys: ["fine_label_names", "fine_labels", "coarse_label_names", "coarse_labels"],
    hint: "get it with `iad-launch data fetch cifar100`, or give cifar-100-binary.tar.gz or cifar-100-python.tar.gz of \
           https://www.cs.toronto.edu/~kriz/cifar.html, or its folder, to --from",
};

/// The images and labels of some batches.
#[derive(Default)]
struct Records {
    labels: Vec<i64>,
    images: Vec<u8>,
}

/// Reads a data set of `kind` from `from`: an archive, the folder of one version, or the one that holds it.
pub(super) fn read(kind: &Kind, from: &Path) -> Result<Imported> {
    let batches: Vec<&str> = kind.train.iter().copied().chain([kind.test]).collect();
    let binary: Vec<String> = batches.iter().map(|name| format!("{name}.bin")).collect();
    let list = |batches: Vec<&'static str>, names: &[&'static str]| -> Vec<(&'static str, usize)> {
        let names = names.iter().filter(|name| !name.is_empty()).map(|&name| (name, NAMES));
        batches.into_iter().map(|name| (name, BATCH)).chain(names).collect()
    };
    let python = list(batches.clone(), &kind.names[2..]);
    let binary: Vec<(&str, usize)> = binary
        .iter()
        .map(|name| (&name[..], BATCH))
        .chain(kind.names[..2].iter().filter(|name| !name.is_empty()).map(|&name| (name, NAMES)))
        .collect();
    let known = [(kind.folders[0], &binary[..]), (kind.folders[1], &python[..])];
    let (version, files, left_out) = Files::find(from, &known, kind.hint)?;
    let mut importer = Importer { kind, files, coarse: vec![None; kind.classes] };
    let (fine, coarse) = if version == 0 { importer.text_names()? } else { importer.pickled_names()? };
    let mut split = |names: &[&str]| -> Result<Memory> {
        let mut records = Records::default();
        for name in names {
            if version == 0 {
                importer.read_binary(&format!("{name}.bin"), &mut records)?;
            } else {
                importer.read_python(name, &mut records)?;
            }
        }
        Memory::new(SHAPE, fine.clone(), records.images, records.labels)
    };
    let (train, test) = (split(kind.train)?, split(&[kind.test])?);
    let of_class = importer.coarse.iter().map(|class| class.unwrap_or(0)).collect();
    let coarse = coarse.map(|names| Coarse { names, of_class });
    let source = format!("{} {} version (Krizhevsky 2009)", kind.title, ["binary", "python"][version]);
    Ok(Imported { coarse, left_out, test: Some(Box::new(test)), ..Imported::new(source, URL, Box::new(train)) })
}

struct Importer<'a> {
    kind: &'a Kind,
    files: Files,
    /// The coarse class of each class, once a record has it.
    coarse: Vec<Option<i64>>,
}

impl Importer<'_> {
    fn read_binary(&mut self, name: &str, records: &mut Records) -> Result<()> {
        let bytes = self.files.read(name, BATCH, self.kind.hint)?;
        let labels = if self.kind.coarse > 0 { 2 } else { 1 };
        let size = labels + PIXELS;
        if bytes.is_empty() || bytes.len() % size != 0 {
            let value = format!("{} bytes, {} after the last whole record", bytes.len(), bytes.len() % size);
            let path = self.files.path(name);
            return Err(wrong_file(&path, &value, &format!("whole records of {size} bytes"), self.kind.hint).into());
        }
        records.images.reserve(bytes.len() / size * PIXELS);
        for (record, bytes) in bytes.chunks_exact(size).enumerate() {
            let coarse = (labels == 2).then(|| bytes[0].into());
            self.check(name, record, bytes[labels - 1].into(), coarse)?;
            records.labels.push(bytes[labels - 1].into());
            records.images.extend_from_slice(&bytes[labels..]);
        }
        Ok(())
    }

    fn read_python(&mut self, name: &str, records: &mut Records) -> Result<()> {
        let bytes = self.files.read(name, BATCH, self.kind.hint)?;
        let batch = Pickle::read(&bytes, &array::NAMES).map_err(|error| self.not_ours(name, &error))?;
        let [_, fine_key, _, coarse_key] = self.kind.keys;
        let list = |key: &str| batch.get(batch.root, key).and_then(|list| batch.elements(list));
        let (Some(fine), Some(data)) = (list(fine_key), batch.get(batch.root, "data")) else {
            return Err(self.not_ours(name, &format!("a pickle without `{fine_key}` or `data`")).into());
        };
        let (shape, pixels) = array::bytes(&batch, data).map_err(|error| self.not_ours(name, &error))?;
        let coarse = list(coarse_key).filter(|_| !coarse_key.is_empty());
        if coarse.is_none() && !coarse_key.is_empty() {
            return Err(self.not_ours(name, &format!("a pickle without `{coarse_key}`")).into());
        }
        if fine.is_empty() || shape != [fine.len(), PIXELS] || coarse.is_some_and(|coarse| coarse.len() != fine.len()) {
            let found = format!("{} labels and data of shape {shape:?}", fine.len());
            return Err(self.not_ours(name, &found).into());
        }
        let number = |value: &Value, record: usize| match value {
            Value::Integer(number) => Ok(*number),
            _ => Err(self.not_ours(name, &format!("a label that is no number in record {record}"))),
        };
        let mut labels = Vec::with_capacity(fine.len());
        for (record, fine) in fine.iter().enumerate() {
            let coarse = coarse.map(|coarse| number(&coarse[record], record)).transpose()?;
            labels.push((number(fine, record)?, coarse));
        }
        for (record, (fine, coarse)) in labels.into_iter().enumerate() {
            self.check(name, record, fine, coarse)?;
            records.labels.push(fine);
        }
        records.images.extend_from_slice(&pixels);
        Ok(())
    }

    /// Refuses labels that name no class, and a class in two coarse classes.
    fn check(&mut self, name: &str, record: usize, fine: i64, coarse: Option<i64>) -> Result<(), UserError> {
        let error = |what: &str, value: String, expected: String| {
            let key = format!("the {what} of record {record}");
            UserError::expected(expected).file(self.files.path(name)).key(key).value(value).hint(self.kind.hint)
        };
        let labels = [("label", Some(fine), self.kind.classes), ("coarse label", coarse, self.kind.coarse)];
        for (what, label, classes) in labels {
            if let Some(label) = label.filter(|label| !(0..classes as i64).contains(label)) {
                return Err(error(what, label.to_string(), format!("0..={}", classes - 1)));
            }
        }
        let seen = self.coarse[fine as usize].or(coarse);
        if coarse.is_some() && seen != coarse {
            let expected = format!("{}, as records before had for class {fine}", seen.unwrap_or(0));
            return Err(error("coarse label", coarse.unwrap_or(0).to_string(), expected));
        }
        self.coarse[fine as usize] = seen;
        Ok(())
    }

    fn not_ours(&self, name: &str, found: &dyn std::fmt::Display) -> UserError {
        let expected = format!("a file of {}'s python version", self.kind.title);
        wrong_file(&self.files.path(name), found, &expected, self.kind.hint)
    }

    /// The fine names and, for CIFAR-100, the coarse names of the binary version.
    fn text_names(&mut self) -> Result<(Vec<String>, Option<Vec<String>>)> {
        let kind = self.kind;
        let mut read = |name: &str, count: usize| -> Result<Vec<String>> {
            let bytes = self.files.read(name, NAMES, kind.hint)?;
            let names = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
            self.named(name, count, names.collect())
        };
        let fine = read(kind.names[0], kind.classes)?;
        let coarse = (kind.coarse > 0).then(|| read(kind.names[1], kind.coarse));
        Ok((fine, coarse.transpose()?))
    }

    fn pickled_names(&mut self) -> Result<(Vec<String>, Option<Vec<String>>)> {
        let name = self.kind.names[2];
        let bytes = self.files.read(name, NAMES, self.kind.hint)?;
        let meta = Pickle::read(&bytes, &[]).map_err(|error| self.not_ours(name, &error))?;
        let read = |key: &str, count: usize| -> Result<Vec<String>> {
            let Some(names) = meta.get(meta.root, key).and_then(|names| meta.elements(names)) else {
                return Err(self.not_ours(name, &format!("a pickle without `{key}`")).into());
            };
            let names = names.iter().map(|name| name.text().unwrap_or_default().as_bytes());
            self.named(name, count, names.collect())
        };
        let fine = read(self.kind.keys[0], self.kind.classes)?;
        let coarse = (self.kind.coarse > 0).then(|| read(self.kind.keys[2], self.kind.coarse));
        Ok((fine, coarse.transpose()?))
    }

    fn named(&self, file: &str, count: usize, names: Vec<&[u8]>) -> Result<Vec<String>> {
        let names: Vec<_> = names.into_iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        if names.len() == count && !names.iter().any(String::is_empty) {
            return Ok(names);
        }
        let error = UserError::expected(format!("the names of {count} classes")).file(self.files.path(file));
        Err(error.key("class names").value(format!("{names:?}")).hint(self.kind.hint).into())
    }
}

/// Reads one binary batch that is in memory.
#[cfg(test)]
pub(super) fn read_batch(kind: &Kind, bytes: &[u8]) -> Result<()> {
    let files = Files::Archive("archive".into(), [("batch".to_owned(), bytes.to_vec())].into());
    let mut importer = Importer { kind, files, coarse: vec![None; kind.classes] };
    importer.read_binary("batch", &mut Records::default())
}

#[cfg(test)]
mod tests;
