//! Files as NumPy writes them, whole and damaged.

use std::fs;

use super::super::npy::{header, images as images_of};
use super::*;
use crate::formats::zip::tests::archive;
use crate::import::import_simply as import;
use crate::{Container, Layout, Source, Split};

/// A `.npy` file with that header and those bytes.
pub(crate) fn npy(kind: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), bytes].concat()
}

fn attempt(members: &[(&str, &[u8])]) -> Result<crate::Summary> {
    let folder = tempfile::tempdir()?;
    let (from, to) = (folder.path().join("set.npz"), folder.path().join("out.h5"));
    fs::write(&from, archive(members, true, false))?;
    let summary = import("npz", &from, &to, &Layout::default()).inspect_err(|_| assert!(!to.exists()))?;
    let mut image = vec![0; 12];
    Container::open(&to, Split::Train)?.read(1, &mut image)?;
    assert_eq!(image, [12, 15, 18, 21, 13, 16, 19, 22, 14, 17, 20, 23], "channels are moved to the front");
    Ok(summary)
}

#[test]
fn arrays_become_a_container() -> Result<()> {
    let pixels: Vec<u8> = (0..24).collect();
    let images = npy("|u1", "(2, 2, 2, 3)", &pixels);
    let labels = npy("<i8", "(2, 1)", &[1i64, 4].map(i64::to_le_bytes).concat());
    let bytes = npy("|u1", "(2,)", &[0, 2]);
    let all: [(&str, &[u8]); 4] =
        [("x_train.npy", &images), ("y_train.npy", &labels), ("x_test.npy", &images), ("y_test.npy", &bytes)];
    let summary = attempt(&all)?;
    assert_eq!(summary.class_names, ["0", "1", "2", "3", "4"]);
    assert_eq!(summary.splits.iter().map(|part| (part.samples, part.shape)).collect::<Vec<_>>(), [(2, [3, 2, 2]); 2]);
    assert_eq!(attempt(&all[..2])?.splits.len(), 1, "test data may be left out");

    let smaller = npy("|u1", "(2, 2, 2)", &pixels[..8]);
    for (name, contents, message) in [
        ("y_train.npy", npy("|u1", "(1,)", &[0]), "y_train is 1 labels for 2 images"),
        ("y_train.npy", npy("<i8", "(2,)", &[0xff; 16]), "a label of no class in record 0"),
        ("y_train.npy", npy("|u1", "(1, 2)", &[0, 0]), "of shape [1, 2] instead of [N]"),
        ("x_train.npy", npy("<i2", "(2, 2, 3)", &pixels), "of type <i2 instead of |u1"),
        ("x_test.npy", smaller, "x_test is images of [1, 2, 2], and those to train on of [3, 2, 2]"),
    ] {
        let changed = all.map(|(known, old)| (known, if known == name { &contents[..] } else { old }));
        let error = attempt(&changed).expect_err(message);
        assert!(error.is::<UserError>() && error.to_string().contains(message), "{error:#} instead of {message}");
    }
    let error = attempt(&all[1..]).expect_err("no images").to_string();
    assert!(error.contains("x_train or y_train is missing"), "{error}");
    Ok(())
}

#[test]
fn channels_are_where_numpy_programs_put_them() -> Result<()> {
    let npy_images = |bytes: &[u8]| images_of(&header(bytes, bytes.len() as u64)?);
    let of = |shape: &str, count: usize| npy_images(&npy("|u1", shape, &vec![1; count])).map(|found| found.shape);
    assert_eq!(of("(2, 5, 4)", 40)?, [1, 5, 4]);
    assert_eq!(of("(2, 5, 4, 1)", 40)?, [1, 5, 4]);
    assert_eq!(of("(2, 3, 5, 4)", 120)?, [3, 5, 4]);
    for (shape, count) in [("(2, 3, 5, 3)", 90), ("(2, 5, 5, 4)", 200), ("(4,)", 4), ("(0, 5, 4)", 0)] {
        assert!(of(shape, count).is_err(), "{shape}");
    }
    Ok(())
}

#[test]
fn headers_are_read_with_care() -> Result<()> {
    let parse = |bytes: &[u8]| header(bytes, bytes.len() as u64);
    assert_eq!(parse(&npy("<u2", "(2, 1)", &[0; 4]))?.shape, [2, 1]);
    assert_eq!(parse(&npy("|u1", "()", &[0]))?.shape, [0usize; 0]);
    let replaced = |old: &str, new: &str| {
        assert_eq!(old.len(), new.len());
        let bytes = npy("|u1", "(2,)", &[0; 2]);
        let at = bytes.windows(old.len()).position(|part| part == old.as_bytes()).expect(old);
        [&bytes[..at], new.as_bytes(), &bytes[at + new.len()..]].concat()
    };
    for (bytes, message) in [
        (b"NUMPY".to_vec(), "not an array of NumPy"),
        (b"\x93NUMPY\x09\x00\x00\x00".to_vec(), "a header of an unknown version"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}".to_vec(), "the header ends too early"),
        (replaced("'descr'", "'other'"), "no descr in the header"),
        (replaced("'|u1'", "[u1] "), "a type of records"),
        (replaced("False", "True "), "an array in Fortran's order"),
        (replaced("(2,)", "[2,]"), "no shape in the header"),
        (replaced("(2,)", "(x,)"), "the shape: invalid digit"),
        (replaced("|u1", "|O1"), "numbers of type |O1"),
        (replaced("(2,)", "(3,)"), "2 bytes for shape [3] of |u1"),
        (npy("<u8", "(18446744073709551615, 9)", &[]), "0 bytes for shape [18446744073709551615, 9]"),
    ] {
        let error = format!("{:#}", parse(&bytes).expect_err(message));
        assert!(error.contains(message), "{error} instead of {message}");
    }
    let bad_text = [&b"\x93NUMPY\x01\x00\x02\x00"[..], &[0xff, 0xfe]].concat();
    assert!(format!("{:#}", parse(&bad_text).expect_err("not text")).starts_with("the header: "));
    Ok(())
}

#[test]
fn generated_images_and_their_classes_are_read() -> Result<()> {
    let pixels: Vec<u8> = (0..24).collect();
    let labels = npy("<i4", "(2,)", &[1i32, 3].map(i32::to_le_bytes).concat());
    let all: [(&str, &[u8]); 3] =
        [("image.npy", &npy("|u1", "(2, 2, 2, 3)", &pixels)), ("label.npy", &labels), ("meta.npy", b"")];
    for deflate in [false, true] {
        let folder = tempfile::tempdir()?;
        let (from, to) = (folder.path().join("1m.npz"), folder.path().join("out.h5"));
        fs::write(&from, archive(&all, deflate, false))?;
        let report = crate::import("npz", &from, &to, &crate::ImportOptions::default())?;
        assert_eq!(report.notes, ["train: no image of 2 of 4 classes: 0, 2"]);
        assert_eq!(
            report.left_out.reasons().collect::<Vec<_>>(),
            [("an array of another name", &["meta.npy".to_owned()][..])]
        );
        let container = Container::open(&to, Split::Train)?;
        let mut image = vec![0; 12];
        container.read(1, &mut image)?;
        assert_eq!((&image[..4], container.label(1)), (&[12, 15, 18, 21][..], 3));
    }
    Ok(())
}

#[test]
fn labels_that_begin_at_one_are_said() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (from, to) = (folder.path().join("set.npz"), folder.path().join("out.h5"));
    let (images, labels) = (npy("|u1", "(2, 2, 2)", &[5; 8]), npy("|u1", "(2,)", &[1, 2]));
    fs::write(&from, archive(&[("x_train.npy", &images), ("y_train.npy", &labels)], true, false))?;
    let report = crate::import("npz", &from, &to, &crate::ImportOptions::default())?;
    let expected = "train: no image of 1 of 3 classes: 0; its labels begin at 1: subtract 1 if they should begin at 0";
    assert_eq!(report.notes, [expected]);
    Ok(())
}

/// Images of 200 MB, compressed or not, in a process of their own whose memory is measured.
#[test]
fn many_images_take_little_memory() -> Result<()> {
    const CHILD: &str = "IAD_NPZ_CHILD";
    const COUNT: usize = 65_000;
    if let Some(from) = std::env::var_os(CHILD) {
        let from = Path::new(&from);
        let layout = Layout { compress: Some(1), ..Layout::default() };
        let summary = import("npz", from, &from.with_extension("h5"), &layout)?;
        assert_eq!((summary.splits[0].samples, summary.splits[0].shape), (COUNT, [3, 32, 32]));
        let status = fs::read_to_string("/proc/self/status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak of memory")?;
        let kilobytes: usize = peak.trim().trim_end_matches(" kB").parse()?;
        assert!(kilobytes < 100_000, "{kilobytes} kB of memory at the peak");
        return Ok(());
    }
    let pixels: Vec<u8> = (0..COUNT * 3072).map(|at| (at / 3072) as u8).collect();
    let images = npy("|u1", &format!("({COUNT}, 32, 32, 3)"), &pixels);
    let labels = npy("|u1", &format!("({COUNT},)"), &vec![0; COUNT]);
    let folder = tempfile::tempdir()?;
    for deflate in [false, true] {
        let from = folder.path().join(format!("{deflate}.npz"));
        fs::write(&from, archive(&[("image.npy", &images), ("label.npy", &labels)], deflate, false))?;
        let output = std::process::Command::new(std::env::current_exe()?)
            .args(["import::npz::tests::many_images_take_little_memory", "--exact"])
            .env(CHILD, &from)
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
    Ok(())
}
