//! Fashion-MNIST as published: four IDX files, compressed with gzip or not.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use flate2::read::GzDecoder;

use super::Imported;
use crate::{Memory, UserError};

const SIDE: usize = 28;
const CLASS_NAMES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
const HINT: &str = "get the four files of https://github.com/zalandoresearch/fashion-mnist (on Debian and Ubuntu: \
                    `apt install dataset-fashion-mnist`, then --from /usr/share/datasets/fashion-mnist)";

/// Reads Fashion-MNIST from the folder `from`.
pub(super) fn read(from: &Path) -> Result<Imported> {
    let split = |name: &str, most: usize| {
        let images = read_idx(from, &format!("{name}-images-idx3-ubyte"), &[SIDE, SIDE], most)?;
        let labels = read_idx(from, &format!("{name}-labels-idx1-ubyte"), &[], most)?;
        let label_file = from.join(format!("{name}-labels-idx1-ubyte"));
        if images.len() != labels.len() * SIDE * SIDE {
            let expected = format!("{}, as many as there are images", images.len() / (SIDE * SIDE));
            let error = UserError::expected(expected).file(label_file).key("the number of labels").value(labels.len());
            return Err(error.hint(HINT).into());
        }
        let labels = labels.into_iter().map(i64::from).collect();
        let class_names = CLASS_NAMES.map(str::to_owned).to_vec();
        Memory::new([1, SIDE, SIDE], class_names, images, labels).map_err(|error| match error.downcast::<UserError>() {
            Ok(error) => error.file(label_file).hint(HINT).into(),
            Err(error) => error,
        })
    };
    let source = "Fashion-MNIST (Xiao et al. 2017), https://github.com/zalandoresearch/fashion-mnist";
    Ok(Imported { source, train: split("train", 60_000)?, test: split("t10k", 10_000)? })
}

/// The bytes of the IDX file `name`, plain or with `.gz`: 1 to `most` items of `dimensions` each.
fn read_idx(folder: &Path, name: &str, dimensions: &[usize], most: usize) -> Result<Vec<u8>, UserError> {
    let plain = folder.join(name);
    let path = if plain.is_file() { plain } else { folder.join(format!("{name}.gz")) };
    let wrong = |key: &str, value: String, expected: String| {
        UserError::expected(expected).file(&path).key(key).value(value).hint(HINT)
    };
    let unreadable =
        |error: std::io::Error| wrong("the file", error.to_string(), format!("a complete {name} or {name}.gz"));

    let file = File::open(&path).map_err(unreadable)?;
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    let mut bytes: Box<dyn Read> = if compressed { Box::new(GzDecoder::new(file)) } else { Box::new(file) };

    // Big-endian: two zeros, 8 for bytes, the number of dimensions, and each of them.
    let mut word = || {
        let mut word = [0; 4];
        bytes.read_exact(&mut word).map(|()| u32::from_be_bytes(word)).map_err(unreadable)
    };
    let (magic, expected) = (word()?, 0x801 + dimensions.len() as u32);
    if magic != expected {
        return Err(wrong("the magic number", format!("0x{magic:08x}"), format!("0x{expected:08x}")));
    }
    let count = word()? as usize;
    if !(1..=most).contains(&count) {
        return Err(wrong("the number of items", count.to_string(), format!("1..={most}")));
    }
    for &dimension in dimensions {
        let found = word()?;
        if found as usize != dimension {
            return Err(wrong("a dimension", found.to_string(), dimension.to_string()));
        }
    }

    // One byte more than there should be tells a surplus, whatever the file would unpack to.
    let size = count * dimensions.iter().product::<usize>();
    let mut items = Vec::new();
    bytes.take(size as u64 + 1).read_to_end(&mut items).map_err(unreadable)?;
    if items.len() != size {
        let value = if items.len() > size { format!("more than {size}") } else { items.len().to_string() };
        return Err(wrong("the number of bytes after the header", value, format!("{size}, for {count} items")));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Container, Source, Split, import};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::fs;
    use std::io::Write;
    use tempfile::TempDir;

    fn idx(count: usize, dimensions: &[usize], items: &[u8]) -> Vec<u8> {
        let sizes = [&[0x801 + dimensions.len(), count], dimensions].concat();
        [sizes.iter().flat_map(|&size| (size as u32).to_be_bytes()).collect::<Vec<u8>>(), items.to_vec()].concat()
    }

    fn images(count: usize) -> Vec<u8> {
        idx(count, &[28, 28], &(0..count * 784).map(|at| (at / 784 + at % 7) as u8).collect::<Vec<_>>())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("compressing into memory")
    }

    /// Five and two images: training files plain, test files compressed.
    fn fixture() -> TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("writing");
        write("train-images-idx3-ubyte", &images(5));
        write("train-labels-idx1-ubyte", &idx(5, &[], &[9, 0, 3, 3, 1]));
        write("t10k-images-idx3-ubyte.gz", &gzip(&images(2)));
        write("t10k-labels-idx1-ubyte.gz", &gzip(&idx(2, &[], &[4, 5])));
        folder
    }

    #[test]
    fn plain_and_compressed_files_are_read() -> Result<()> {
        let folder = fixture();
        let summary = import("fashion-mnist", folder.path(), &folder.path().join("out.h5"))?;
        assert_eq!(
            summary.splits.iter().map(|part| (part.samples, part.shape)).collect::<Vec<_>>(),
            [(5, [1, 28, 28]), (2, [1, 28, 28])]
        );
        let test = Container::open(&summary.file, Split::Test)?;
        let mut image = [0; 784];
        test.read(1, &mut image)?;
        assert_eq!((test.label(0), test.label(1), image[0], image[783]), (4, 5, 1, 1 + (1567 % 7) as u8));
        assert_eq!(test.class_names()[9], "Ankle boot");
        Ok(())
    }

    #[test]
    fn damage_is_named() {
        let (good, labels) = (images(2), idx(2, &[], &[4, 5]));
        let mut other_crc = gzip(&good);
        let at = other_crc.len() - 6;
        other_crc[at] ^= 1;
        for (name, contents, part) in [
            (
                "t10k-images-idx3-ubyte.gz",
                gzip(&good[..good.len() - 1]),
                "after the header is 1567; expected 1568, for 2 items",
            ),
            ("t10k-images-idx3-ubyte.gz", gzip(&[&good[..], &[0]].concat()), "is more than 1568; expected 1568"),
            ("t10k-images-idx3-ubyte.gz", gzip(&good)[..40].to_vec(), "the file is"),
            ("t10k-images-idx3-ubyte.gz", other_crc, "the file is"),
            ("t10k-images-idx3-ubyte.gz", good.clone(), "the file is"),
            ("t10k-images-idx3-ubyte.gz", gzip(&labels), "the magic number is 0x00000801; expected 0x00000803"),
            ("t10k-images-idx3-ubyte.gz", gzip(&idx(2, &[28, 27], &[])), "a dimension is 27; expected 28"),
            ("t10k-images-idx3-ubyte.gz", gzip(&idx(10_001, &[28, 28], &[])), "items is 10001; expected 1..=10000"),
            ("train-labels-idx1-ubyte", idx(4, &[], &[0; 4]), "labels is 4; expected 5, as many as there are images"),
            ("train-labels-idx1-ubyte", idx(5, &[], &[0, 1, 2, 10, 4]), "labels[3] is 10; expected 0..=9"),
            ("train-labels-idx1-ubyte", vec![0; 3], "the file is"),
        ] {
            let folder = fixture();
            fs::write(folder.path().join(name), contents).expect("writing");
            let to = folder.path().join("out.h5");
            let error = import("fashion-mnist", folder.path(), &to).expect_err("damaged");
            let message = error.to_string();
            assert!(error.is::<UserError>() && message.contains(name) && message.contains(part), "{message}");
            assert!(!to.exists());
        }
        let folder = fixture();
        fs::remove_file(folder.path().join("train-images-idx3-ubyte")).expect("removing");
        let error =
            import("fashion-mnist", folder.path(), &folder.path().join("out.h5")).expect_err("missing").to_string();
        assert!(error.contains("train-images-idx3-ubyte.gz") && error.contains("apt install"), "{error}");
    }
}
