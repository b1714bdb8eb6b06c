//! MNIST and Fashion-MNIST as published: four IDX files, compressed with gzip or not.

use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::Result;
use flate2::read::GzDecoder;

use super::files::others_in;
use super::imported::{Imported, wrong_archive};
use crate::formats::recognise::GZIP;
use crate::ground::error::UserError;
use crate::ground::memory::Memory;
use crate::ground::regular::open_regular;

const SIDE: usize = 28;

/// The differences between the two data sets.
#[derive(Debug)]
pub(super) struct Kind {
    source: &'static str,
    url: &'static str,
    class_names: [&'static str; 10],
    hint: &'static str,
}

pub(super) const FASHION_MNIST: Kind = Kind {
    source: "Fashion-MNIST (Xiao et al. 2017)",
    url: "https://github.com/zalandoresearch/fashion-mnist",
    class_names: [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
    hint: "get the four files with `iad-launch data fetch fashion-mnist` (on Debian and Ubuntu also: `apt install \
           dataset-fashion-mnist`, then --from /usr/share/datasets/fashion-mnist)",
};

pub(super) const MNIST: Kind = Kind {
    source: "MNIST (LeCun et al. 1998)",
    url: "http://yann.lecun.com/exdb/mnist/",
    class_names: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    hint: "give --from the folder of the four files of http://yann.lecun.com/exdb/mnist/",
};

/// Reads a data set of `kind` from the folder `from`.
pub(super) fn read(kind: &Kind, from: &Path) -> Result<Imported> {
    if !from.is_dir() {
        let expected = "a folder with train-images-idx3-ubyte.gz and the three files beside it";
        return Err(UserError::expected(expected).file(from).hint(kind.hint).into());
    }
    let split = |name: &str, most: usize| {
        let file = |part: &str, dimensions: &[usize]| {
            let plain = from.join(format!("{name}-{part}-ubyte"));
            let path = if plain.is_file() { plain } else { from.join(format!("{name}-{part}-ubyte.gz")) };
            let read = || -> Result<Vec<u8>> {
                let file = BufReader::new(open_regular(&path)?);
                let compressed = path.extension().is_some_and(|extension| extension == "gz");
                let mut bytes: Box<dyn Read> = if compressed { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
                parse(&mut bytes, dimensions, most)
            };
            read().map_err(|error| match error.downcast::<UserError>() {
                Ok(error) => error.file(&path).hint(kind.hint),
                Err(error) => {
                    let format =
                        if path.extension().is_some_and(|ending| ending == "gz") { GZIP } else { "an IDX file" };
                    let expected = format!("a complete {name}-{part}-ubyte or .gz");
                    wrong_archive(&path, format, &error, &expected, kind.hint)
                }
            })
        };
        let images = file("images-idx3", &[SIDE, SIDE])?;
        let labels = file("labels-idx1", &[])?;
        let label_file = from.join(format!("{name}-labels-idx1-ubyte"));
        if images.len() != labels.len() * SIDE * SIDE {
            let expected = format!("{}, as many as there are images", images.len() / (SIDE * SIDE));
            let error = UserError::expected(expected).file(label_file).key("the number of labels").value(labels.len());
            return Err(error.hint(kind.hint).into());
        }
        let labels = labels.into_iter().map(i64::from).collect();
        let class_names = kind.class_names.map(str::to_owned).to_vec();
        Memory::new([1, SIDE, SIDE], class_names, images, labels).map_err(|error| match error.downcast::<UserError>() {
            Ok(error) => error.file(label_file).hint(kind.hint).into(),
            Err(error) => error,
        })
    };
    let (train, test) = (split("train", 60_000)?, split("t10k", 10_000)?);
    // If both files exist, the plain one is read.
    let mut taken = Vec::new();
    for name in ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"] {
        let plain = format!("{name}-ubyte");
        taken.push(if from.join(&plain).is_file() { plain } else { format!("{plain}.gz") });
    }
    let left_out = others_in(from, &taken.iter().map(String::as_str).collect::<Vec<_>>());
    Ok(Imported { left_out, test: Some(Box::new(test)), ..Imported::new(kind.source, kind.url, Box::new(train)) })
}

/// The items of an IDX file of bytes: 1 to `most` items of `dimensions` each.
pub(super) fn parse(bytes: &mut dyn Read, dimensions: &[usize], most: usize) -> Result<Vec<u8>> {
    let wrong = |key: &str, value: String, expected: String| UserError::expected(expected).key(key).value(value);
    // Big-endian: two zeros, 8 for bytes, the number of dimensions, and each of them.
    let mut word = || -> Result<u32> {
        let mut word = [0; 4];
        bytes.read_exact(&mut word)?;
        Ok(u32::from_be_bytes(word))
    };
    let (magic, expected) = (word()?, 0x801 + dimensions.len() as u32);
    if magic != expected {
        return Err(wrong("the magic number", format!("0x{magic:08x}"), format!("0x{expected:08x}")).into());
    }
    let count = word()? as usize;
    if !(1..=most).contains(&count) {
        return Err(wrong("the number of items", count.to_string(), format!("1..={most}")).into());
    }
    for &dimension in dimensions {
        let found = word()?;
        if found as usize != dimension {
            return Err(wrong("a dimension", found.to_string(), dimension.to_string()).into());
        }
    }
    // Reading one byte more than expected shows a surplus without unpacking all of it.
    let size = count * dimensions.iter().product::<usize>();
    let mut items = Vec::new();
    bytes.take(size as u64 + 1).read_to_end(&mut items)?;
    if items.len() != size {
        let value = if items.len() > size { format!("more than {size}") } else { items.len().to_string() };
        let expected = format!("{size}, for {count} items");
        return Err(wrong("the number of bytes after the header", value, expected).into());
    }
    Ok(items)
}

#[cfg(test)]
pub(crate) mod tests;
