//! Arrays of NumPy: `x_train`, `y_train`, `x_test` and `y_test` in one `.npz` file.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::zip::Zip;
use super::{Imported, wrong_file};
use crate::{Memory, UserError};

/// The bytes of one array at most: all of them are in memory at once.
const LARGEST: u64 = 16 << 30;
const HINT: &str = "write it as numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...), images as uint8 of \
                    shape [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3";

/// An array of a `.npy` file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Array<'a> {
    /// The type as NumPy writes it, such as `|u1`.
    kind: String,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

/// Reads the arrays of the file `from`.
pub(super) fn read(from: &Path) -> Result<Imported> {
    let wrong = |error: anyhow::Error| wrong_file(from, &error, "an .npz file with images and labels", HINT);
    let zip = File::open(from).map_err(anyhow::Error::from).and_then(Zip::open).map_err(wrong)?;
    let member = |name: &str| -> Result<Option<Vec<u8>>, UserError> {
        let found = zip.members.iter().find(|member| member.name == format!("{name}.npy"));
        let bytes = found.map(|member| zip.read(member, LARGEST)).transpose();
        bytes.map_err(|error| inside(from, name, &error))
    };
    let mut parts = Vec::new();
    for (images, labels) in [("x_train", "y_train"), ("x_test", "y_test")] {
        let (Some(image_bytes), Some(label_bytes)) = (member(images)?, member(labels)?) else {
            // Only test data may be left out.
            if images == "x_test" && member(images)?.is_none() && member(labels)?.is_none() {
                continue;
            }
            return Err(inside(from, &format!("{images} or {labels}"), &anyhow::anyhow!("missing")).into());
        };
        let (shape, pixels) =
            parse(&image_bytes).and_then(|array| to_planes(&array)).map_err(|error| inside(from, images, &error))?;
        let found =
            parse(&label_bytes).and_then(|array| to_labels(&array)).map_err(|error| inside(from, labels, &error))?;
        let count = pixels.len() / shape.iter().product::<usize>();
        if found.len() != count {
            let error = anyhow::anyhow!("{} labels for {count} images", found.len());
            return Err(inside(from, labels, &error).into());
        }
        parts.push((labels, shape, pixels, found));
    }
    let classes = parts.iter().flat_map(|(_, _, _, labels)| labels).max().map_or(0, |&most| most as usize + 1);
    let class_names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
    if parts.iter().any(|part| part.1 != parts[0].1) {
        let error = anyhow::anyhow!("images of {:?}, and those to train on of {:?}", parts[1].1, parts[0].1);
        return Err(inside(from, "x_test", &error).into());
    }
    let memories =
        parts.into_iter().map(|(_, shape, pixels, labels)| Memory::new(shape, class_names.clone(), pixels, labels));
    let mut memories = memories.collect::<Result<Vec<_>>>()?.into_iter();
    let train = memories.next().context("no training images")?;
    Ok(Imported {
        source: format!("the arrays of {}", from.file_name().unwrap_or_default().to_string_lossy()),
        url: "",
        coarse: None,
        train: Box::new(train),
        test: memories.next().map(|test| Box::new(test) as _),
    })
}

fn inside(from: &Path, name: &str, error: &anyhow::Error) -> UserError {
    UserError::expected("an array as the next step has it").file(from).key(name).value(format!("{error:#}")).hint(HINT)
}

/// Reads a `.npy` file: a header that is a literal of Python, and bytes that fit it.
pub(super) fn parse(bytes: &[u8]) -> Result<Array<'_>> {
    let header = bytes.strip_prefix(b"\x93NUMPY").context("not an array of NumPy")?;
    let (length, rest) = match header {
        [1, 0, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, 0, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => bail!("a header of an unknown version"),
    };
    let (header, data) = rest.split_at_checked(length).context("the header ends too early")?;
    let header = std::str::from_utf8(header).context("the header")?;
    let field = |name: &str| -> Result<&str> {
        let after = header.split_once(&format!("'{name}':")).with_context(|| format!("no {name} in the header"))?.1;
        Ok(after.trim_start())
    };
    let kind =
        field("descr")?.strip_prefix('\'').and_then(|text| text.split_once('\'')).context("a type of records")?.0;
    ensure!(field("fortran_order")?.starts_with("False"), "an array in Fortran's order");
    let shape =
        field("shape")?.strip_prefix('(').and_then(|text| text.split_once(')')).context("no shape in the header")?.0;
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let shape: Vec<usize> = sizes.map(str::parse).collect::<Result<_, _>>().context("the shape")?;
    let width = match kind {
        "|u1" | "|i1" => 1usize,
        "<u2" | "<i2" => 2,
        "<u4" | "<i4" => 4,
        "<u8" | "<i8" => 8,
        other => bail!("numbers of type {other}"),
    };
    let size = shape.iter().try_fold(width, |size, &next| size.checked_mul(next));
    ensure!(size == Some(data.len()), "{} bytes for shape {shape:?} of {kind}", data.len());
    Ok(Array { kind: kind.to_owned(), shape, bytes: data })
}

/// Channels, height and width of images, and their pixels plane by plane.
fn to_planes(array: &Array) -> Result<([usize; 3], Vec<u8>)> {
    ensure!(array.kind == "|u1", "of type {} instead of |u1 (uint8)", array.kind);
    let colours = |size: usize| size == 1 || size == 3;
    ensure!(!array.shape.contains(&0), "empty, with shape {:?}", array.shape);
    match array.shape[..] {
        [_, height, width] => Ok(([1, height, width], array.bytes.to_vec())),
        [_, height, width, channels] if colours(channels) && !colours(height) => {
            let image = height * width * channels;
            let planes = array.bytes.chunks_exact(image).flat_map(|image| {
                (0..channels).flat_map(move |channel| image[channel..].iter().step_by(channels).copied())
            });
            Ok(([channels, height, width], planes.collect()))
        }
        [_, channels, height, width] if colours(channels) && !colours(width) => {
            Ok(([channels, height, width], array.bytes.to_vec()))
        }
        _ => bail!("of shape {:?}, in which the channels cannot be told", array.shape),
    }
}

/// Labels of any integer type, `[N]` or `[N, 1]`, below 65,536.
fn to_labels(array: &Array) -> Result<Vec<i64>> {
    ensure!(matches!(array.shape[..], [_] | [_, 1]), "of shape {:?} instead of [N]", array.shape);
    let width = usize::from(array.kind.as_bytes()[2] - b'0');
    let labels = array.bytes.chunks_exact(width).enumerate().map(|(record, bytes)| {
        let negative = array.kind.as_bytes()[1] == b'i' && bytes[width - 1] & 0x80 != 0;
        let value = bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        ensure!(!negative && value < 1 << 16, "a label of no class in record {record}");
        Ok(value as i64)
    });
    labels.collect()
}

/// Reads an array in memory as images and as labels.
#[cfg(test)]
pub(super) fn read_array(bytes: &[u8]) -> Result<()> {
    let array = parse(bytes)?;
    if array.shape.len() > 2 { to_planes(&array).map(drop) } else { to_labels(&array).map(drop) }
}

#[cfg(test)]
pub(super) mod tests;
