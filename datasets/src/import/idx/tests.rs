//! Small files of the family, plain and compressed, whole and damaged.

use super::*;
use crate::import::import_simply as import;
use crate::{Container, Layout, Source, Split};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;
use tempfile::TempDir;

pub(crate) fn idx(count: usize, dimensions: &[usize], items: &[u8]) -> Vec<u8> {
    let sizes = [&[0x801 + dimensions.len(), count], dimensions].concat();
    [sizes.iter().flat_map(|&size| (size as u32).to_be_bytes()).collect::<Vec<u8>>(), items.to_vec()].concat()
}

fn images(count: usize) -> Vec<u8> {
    idx(count, &[28, 28], &(0..count * 784).map(|at| (at / 784 + at % 7) as u8).collect::<Vec<_>>())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("compressing into memory")
}

/// Five training and two test images, all compressed.
pub(crate) fn files() -> [(&'static str, Vec<u8>); 4] {
    [
        ("train-images-idx3-ubyte.gz", gzip(&images(5))),
        ("train-labels-idx1-ubyte.gz", gzip(&idx(5, &[], &[9, 0, 3, 3, 1]))),
        ("t10k-images-idx3-ubyte.gz", gzip(&images(2))),
        ("t10k-labels-idx1-ubyte.gz", gzip(&idx(2, &[], &[4, 5]))),
    ]
}

/// Five and two images: training files plain, test files compressed.
fn fixture() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("writing");
    write("train-images-idx3-ubyte", &images(5));
    write("train-labels-idx1-ubyte", &idx(5, &[], &[9, 0, 3, 3, 1]));
    files()[2..].iter().for_each(|(name, bytes)| write(name, bytes));
    folder
}

#[test]
fn plain_and_compressed_files_are_read() -> Result<()> {
    let folder = fixture();
    let summary = import("fashion-mnist", folder.path(), &folder.path().join("out.h5"), &Layout::default())?;
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
        let error = import("fashion-mnist", folder.path(), &to, &Layout::default()).expect_err("damaged");
        let message = error.to_string();
        assert!(error.is::<UserError>() && message.contains(name) && message.contains(part), "{message}");
        assert!(!to.exists());
    }
    let folder = fixture();
    fs::remove_file(folder.path().join("train-images-idx3-ubyte")).expect("removing");
    let error = import("fashion-mnist", folder.path(), &folder.path().join("out.h5"), &Layout::default())
        .expect_err("missing")
        .to_string();
    assert!(error.contains("train-images-idx3-ubyte.gz") && error.contains("apt install"), "{error}");
}
