//! Small Tiny-ImageNets, unpacked and as archives, whole, rearranged and damaged.

use std::fs;

use tempfile::TempDir;

use crate::formats::picture::tests::{CMYK, COLOUR, GREY, SMALLER};
use crate::formats::zip::tests::archive;
use crate::import::folder::tests::{Entries, attempt, changed, refusal, renamed, samples, unpack};
use crate::import::{ImportOptions, import as import_with, import_simply as import};
use crate::{Container, Layout, Source, Split, UserError};

/// Two classes, the second before the first in wnids.txt; three training and two validation images of each.
fn tiny() -> Entries {
    let text = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let mut entries = vec![
        text("wnids.txt", "n02\nn01\n"),
        text("words.txt", "n01\tgoldfish, Carassius auratus\nn02\tcat\nn03\tdog\n"),
        text("train/n01/n01_boxes.txt", "n01_0.JPEG\t0\t0\t62\t62\n"),
        text("val/val_annotations.txt", "val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n"),
        ("test/images/test_0.JPEG".to_owned(), COLOUR.to_vec()),
    ];
    for wnid in ["n01", "n02"] {
        for (number, bytes) in [COLOUR, GREY, COLOUR].into_iter().enumerate() {
            entries.push((format!("train/{wnid}/images/{wnid}_{number}.JPEG"), bytes.to_vec()));
        }
    }
    entries.extend([0, 1].map(|number| (format!("val/images/val_{number}.JPEG"), GREY.to_vec())));
    entries
}

fn zipped(entries: &Entries) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(|(name, bytes)| (format!("set/{name}"), bytes)).collect();
    archive(&entries.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect::<Vec<_>>(), true, true)
}

#[test]
fn tiny_imagenet_is_read_from_its_folder_and_its_archive() -> anyhow::Result<()> {
    let folder = unpack(&tiny());
    let zip = folder.path().join("tiny.zip");
    fs::write(&zip, zipped(&tiny()))?;
    let layout = |threads| Layout { threads: Some(threads), ..Layout::default() };
    let one = import("tiny-imagenet", &folder.path().join("in"), &folder.path().join("1.h5"), &layout(1))?;
    let other = import("tiny-imagenet", &zip, &folder.path().join("2.h5"), &layout(3))?;
    assert_eq!(fs::read(&one.file)?, fs::read(&other.file)?, "files differ");

    assert_eq!(one.class_names, ["goldfish, Carassius auratus", "cat"]);
    assert_eq!(one.splits.iter().map(|part| part.samples).collect::<Vec<_>>(), [6, 2]);
    let test = Container::open(&one.file, Split::Test)?;
    assert_eq!((test.label(0), test.label(1), test.shape()), (1, 0, [3, 16, 16]));
    let train = Container::open(&one.file, Split::Train)?;
    let mut image = vec![0; 768];
    train.read(4, &mut image)?;
    assert_eq!((train.label(4), &image[..256]), (1, &image[512..]), "a grey image has equal planes");
    Ok(())
}

#[test]
fn damage_to_tiny_imagenet_is_named() {
    let (image, lines) = ("train/n02/images/n02_1.JPEG", "val/val_annotations.txt");
    let check = |name: &str, contents: &[u8], parts: &[&str]| {
        refusal("tiny-imagenet", &changed(tiny(), name, contents), parts);
    };
    check(image, CMYK, &["n02_1.JPEG: the image is a JPEG with CMYK colours"]);
    check(image, SMALLER, &["n02_1.JPEG", "8x16 pixels, where others have 16x16"]);
    check(image, &COLOUR[..100], &["n02_1.JPEG", "a damaged JPEG"]);
    check(image, b"", &["n02_1.JPEG", "neither JPEG nor PNG"]);
    check(lines, b"val_0.JPEG\tn02\nval_1.JPEG\tn09\n", &["val_annotations.txt: line 2 is \"val_1.JPEG"]);
    check(lines, b"../../secret.JPEG\tn02\n", &["val_annotations.txt: line 1"]);
    check(lines, b"val_7.JPEG\tn02\n", &["val_7.JPEG", "No such file"]);
    check(lines, b"", &["val_annotations.txt", "without images"]);
    check("wnids.txt", b"n02\n", &["n01_0.JPEG: its folder is n01; expected a class of wnids.txt"]);
    let without = |name: &str| tiny().into_iter().filter(|entry| !entry.0.contains(name)).collect();
    refusal("tiny-imagenet", &without("words.txt"), &["words.txt", "No such file"]);
    refusal("tiny-imagenet", &without("train/"), &["train", "without images"]);
}

#[test]
fn a_damaged_archive_is_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (zip, to) = (folder.path().join("tiny.zip"), folder.path().join("out.h5"));
    let whole = zipped(&tiny());
    let mut changed = whole.clone();
    // Within the picture that is read first.
    let at = whole.windows(10).position(|bytes| bytes == b"n01_0.JPEG").expect("a member") + 300;
    changed[at..at + 40].fill(0);
    for (bytes, part) in
        [(&whole[..whole.len() - 100], "no zip archive, or not all of it"), (&changed[..], "tiny.zip/")]
    {
        fs::write(&zip, bytes)?;
        let error = import("tiny-imagenet", &zip, &to, &Layout::default()).expect_err("damaged");
        let message = error.to_string();
        assert!(error.is::<UserError>() && message.contains(part), "{message}");
        assert!(!to.exists());
    }
    Ok(())
}

/// The validation images in the folders of their classes, as many scripts put them.
fn rearranged(inner: &str) -> Entries {
    renamed(tiny(), |name| match name {
        "val/images/val_0.JPEG" => format!("val/n02/{inner}val_0.JPEG"),
        "val/images/val_1.JPEG" => format!("val/n01/{inner}val_1.JPEG"),
        other => other.to_owned(),
    })
}

#[test]
fn a_rearranged_tiny_imagenet_is_the_same() -> anyhow::Result<()> {
    let published = unpack(&tiny());
    let to = |folder: &TempDir| folder.path().join("out.h5");
    let first = import_with("tiny-imagenet", &published.path().join("in"), &to(&published), &ImportOptions::default())?;
    for inner in ["", "images/"] {
        let folder = unpack(&rearranged(inner));
        let report = import_with("tiny-imagenet", &folder.path().join("in"), &to(&folder), &ImportOptions::default())?;
        assert_eq!(fs::read(&report.summary.file)?, fs::read(&first.summary.file)?);
        assert_eq!(report.left_out, first.left_out);
    }
    let reasons: Vec<_> = first.left_out.reasons().map(|(reason, names)| (reason, names.len())).collect();
    assert_eq!(reasons, [("neither JPEG nor PNG by its name", 1), ("published without labels", 1)]);

    // Without annotations the folders give the labels, and the order is that of the paths.
    let bare: Entries =
        rearranged("images/").into_iter().filter(|(name, _)| name != "val/val_annotations.txt").collect();
    let folder = unpack(&bare);
    let report = import_with("tiny-imagenet", &folder.path().join("in"), &to(&folder), &ImportOptions::default())?;
    let test = Container::open(&report.summary.file, Split::Test)?;
    assert_eq!((test.label(0), test.label(1)), (0, 1));
    // The same tree through image-folder, where the test images have no folders of classes.
    let error = attempt(&bare, &ImportOptions::default()).expect_err("a test split without classes").to_string();
    assert!(error.contains("its folder is images") && error.contains("--split-names train=train,test=val"), "{error}");
    let names = Some("train=train,test=val".parse().expect("names"));
    let report = attempt(&bare, &ImportOptions { split_names: names, ..ImportOptions::default() })?;
    assert_eq!(
        (samples(&report), &report.summary.class_names[..]),
        (vec![6, 2], &["n01", "n02"].map(str::to_owned)[..])
    );
    Ok(())
}

#[test]
fn a_rearranged_tiny_imagenet_is_compared_with_its_annotations() {
    let lines = "val/val_annotations.txt";
    let swapped = changed(rearranged(""), lines, b"val_0.JPEG\tn01\nval_1.JPEG\tn01\n");
    refusal("tiny-imagenet", &swapped, &["line 1 is", "expected the class of its folder, val/n02/val_0.JPEG"]);
    let twice = changed(tiny(), lines, b"val_0.JPEG\tn02\nval_0.JPEG\tn02\n");
    refusal("tiny-imagenet", &twice, &["line 2 is", "each image once"]);
    let stranger = renamed(rearranged(""), |name| name.replace("val/n02", "val/n09"));
    let bare = stranger.into_iter().filter(|(name, _)| name != lines).collect();
    refusal("tiny-imagenet", &bare, &["its folder is n09; expected a class of wnids.txt"]);
}
