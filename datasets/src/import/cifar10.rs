//! CIFAR-10 as published, in its binary or its python version.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Imported, array, read_file};
use crate::pickle::{Pickle, Value};
use crate::{Memory, UserError};

const CLASSES: usize = 10;
const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;
const HINT: &str = "unpack cifar-10-binary.tar.gz or cifar-10-python.tar.gz of \
                    https://www.cs.toronto.edu/~kriz/cifar.html \
                    and give its folder to --from";

/// How the published files are written.
#[derive(Debug, Clone, Copy)]
enum Version {
    /// Records of a label and its pixels.
    Binary,
    /// Pickles.
    Python,
}

/// Reads CIFAR-10 from `from`: the folder of one version, or the one that holds it.
pub(super) fn read(from: &Path) -> Result<Imported> {
    let (version, folder) = find(from)?;
    let (suffix, source) = match version {
        Version::Binary => {
            (".bin", "CIFAR-10 binary version (Krizhevsky 2009), https://www.cs.toronto.edu/~kriz/cifar.html")
        }
        Version::Python => {
            ("", "CIFAR-10 python version (Krizhevsky 2009), https://www.cs.toronto.edu/~kriz/cifar.html")
        }
    };
    let class_names = match version {
        Version::Binary => text_names(&folder.join("batches.meta.txt"))?,
        Version::Python => pickled_names(&folder.join("batches.meta"))?,
    };
    let split = |names: &[&str]| {
        let (mut labels, mut images) = (Vec::new(), Vec::new());
        for name in names {
            let path = folder.join(format!("{name}{suffix}"));
            match version {
                Version::Binary => read_binary(&path, &mut labels, &mut images)?,
                Version::Python => read_python(&path, &mut labels, &mut images)?,
            }
        }
        Memory::new(SHAPE, class_names.clone(), images, labels)
    };
    let train = split(&["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"])?;
    Ok(Imported { source, train, test: split(&["test_batch"])? })
}

/// The version that is there, known by any of its batches so that a missing one is named later.
fn find(from: &Path) -> Result<(Version, PathBuf), UserError> {
    for (version, name, suffix) in
        [(Version::Binary, "cifar-10-batches-bin", ".bin"), (Version::Python, "cifar-10-batches-py", "")]
    {
        for folder in [from.to_owned(), from.join(name)] {
            let batch = |name: &str| folder.join(format!("{name}{suffix}")).is_file();
            if batch("test_batch") || (1..=5).any(|number| batch(&format!("data_batch_{number}"))) {
                return Ok((version, folder));
            }
        }
    }
    let expected = "data_batch_1.bin or data_batch_1 there, or in cifar-10-batches-bin or cifar-10-batches-py below it";
    Err(UserError::expected(expected).file(from).hint(HINT))
}

fn read_binary(path: &Path, labels: &mut Vec<i64>, images: &mut Vec<u8>) -> Result<()> {
    let bytes = read_file(path, HINT)?;
    let size = 1 + PIXELS;
    if bytes.is_empty() || bytes.len() % size != 0 {
        let value = format!("{} bytes, {} after the last whole record", bytes.len(), bytes.len() % size);
        let error =
            UserError::expected(format!("whole records of {size} bytes")).file(path).key("the file").value(value);
        return Err(error.hint(HINT).into());
    }
    for (record, bytes) in bytes.chunks_exact(size).enumerate() {
        labels.push(checked_label(path, record, bytes[0].into())?);
        images.extend_from_slice(&bytes[1..]);
    }
    Ok(())
}

fn read_python(path: &Path, labels: &mut Vec<i64>, images: &mut Vec<u8>) -> Result<()> {
    let bytes = read_file(path, HINT)?;
    let batch = Pickle::read(&bytes, &array::NAMES).map_err(|error| not_ours(path, &error))?;
    let classes = batch.get(batch.root, "labels").and_then(|labels| batch.elements(labels));
    let (Some(classes), Some(data)) = (classes, batch.get(batch.root, "data")) else {
        return Err(not_ours(path, &"a pickle without `labels` or `data`").into());
    };
    let (shape, pixels) = array::bytes(&batch, data).map_err(|error| not_ours(path, &error))?;
    if classes.is_empty() || shape != [classes.len(), PIXELS] {
        let found = format!("{} labels and data of shape {shape:?}", classes.len());
        return Err(not_ours(path, &found).into());
    }
    for (record, class) in classes.iter().enumerate() {
        let Value::Integer(class) = class else {
            return Err(not_ours(path, &format!("a label that is no number in record {record}")).into());
        };
        labels.push(checked_label(path, record, *class)?);
    }
    images.extend_from_slice(pixels);
    Ok(())
}

fn checked_label(path: &Path, record: usize, label: i64) -> Result<i64, UserError> {
    if (0..CLASSES as i64).contains(&label) {
        return Ok(label);
    }
    Err(UserError::expected("0..=9").file(path).key(format!("the label of record {record}")).value(label).hint(HINT))
}

fn not_ours(path: &Path, found: &dyn std::fmt::Display) -> UserError {
    UserError::expected("a file of CIFAR-10's python version")
        .file(path)
        .key("the file")
        .value(format!("{found:#}"))
        .hint(HINT)
}

fn text_names(path: &Path) -> Result<Vec<String>> {
    let bytes = read_file(path, HINT)?;
    let names = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
    ten_names(path, names.collect())
}

fn pickled_names(path: &Path) -> Result<Vec<String>> {
    let bytes = read_file(path, HINT)?;
    let meta = Pickle::read(&bytes, &[]).map_err(|error| not_ours(path, &error))?;
    let names = meta.get(meta.root, "label_names").and_then(|names| meta.elements(names));
    let Some(names) = names else {
        return Err(not_ours(path, &"a pickle without `label_names`").into());
    };
    ten_names(path, names.iter().map(|name| name.text().unwrap_or_default().as_bytes()).collect())
}

fn ten_names(path: &Path, names: Vec<&[u8]>) -> Result<Vec<String>> {
    let names: Vec<_> = names.into_iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    if names.len() == CLASSES && !names.iter().any(String::is_empty) {
        return Ok(names);
    }
    let error =
        UserError::expected("the names of ten classes").file(path).key("class names").value(format!("{names:?}"));
    Err(error.hint(HINT).into())
}

#[cfg(test)]
mod tests;
