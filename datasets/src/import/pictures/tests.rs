//! Small Tiny-ImageNets and image folders, unpacked and as archives, whole and damaged.

use std::fs;

use png::{BitDepth, ColorType};
use tempfile::TempDir;

use super::super::picture::tests::{CMYK, COLOUR, GREY, SMALLER, png};
use super::super::zip::tests::archive;
use crate::{Container, Layout, Source, Split, UserError, import};

type Entries = Vec<(String, Vec<u8>)>;

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

fn unpack(entries: &Entries) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes) in entries {
        let path = folder.path().join("in").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("writing");
    }
    folder
}

fn zipped(entries: &Entries) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(|(name, bytes)| (format!("set/{name}"), bytes)).collect();
    archive(&entries.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect::<Vec<_>>(), true, true)
}

#[track_caller]
fn refusal(dataset: &str, entries: &Entries, parts: &[&str]) {
    let folder = unpack(entries);
    let to = folder.path().join("out.h5");
    let error = import(dataset, &folder.path().join("in"), &to, &Layout::default()).expect_err("a bad data set");
    let message = format!("{error:#}");
    assert!(error.is::<UserError>() && parts.iter().all(|part| message.contains(part)), "{message}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "something was left behind");
}

fn changed(mut entries: Entries, name: &str, contents: &[u8]) -> Entries {
    entries.iter_mut().find(|entry| entry.0 == name).expect(name).1 = contents.to_vec();
    entries
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

fn folder_of(images: &[(&str, &[u8])]) -> Entries {
    images.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
}

#[test]
fn folders_of_classes_are_read_in_every_form() -> anyhow::Result<()> {
    let dark = png(ColorType::Grayscale, BitDepth::Eight, &[9]);
    let check = |entries: Entries, channels: usize, samples: &[usize]| -> anyhow::Result<()> {
        let folder = unpack(&entries);
        let to = folder.path().join("out.h5");
        let summary = import("image-folder", &folder.path().join("in"), &to, &Layout::default())?;
        assert_eq!(summary.class_names, ["cat", "dog"]);
        assert_eq!(summary.splits.iter().map(|part| part.samples).collect::<Vec<_>>(), samples);
        assert!(summary.splits.iter().all(|part| part.shape == [channels, 16, 16]));
        Ok(())
    };
    let (cat, dog) = (("train/cat/1.png", &dark[..]), ("train/dog/a.jpg", COLOUR));
    check(folder_of(&[cat, dog, ("val/dog/b.JPG", GREY), ("train/notes.txt", b"")]), 3, &[2, 1])?;
    check(
        folder_of(&[cat, dog, ("val/dog/b.jpg", GREY), ("test/cat/b.jpg", GREY), ("test/dog/b.jpg", GREY)]),
        3,
        &[2, 2],
    )?;
    check(folder_of(&[("cat/1.png", &dark), ("dog/2.jpeg", GREY)]), 1, &[2])
}

#[test]
fn folders_without_order_are_refused() {
    refusal("image-folder", &folder_of(&[("train/cat/notes.txt", b"")]), &["without images"]);
    let stranger = [("train/cat/1.jpg", COLOUR), ("test/dog/1.jpg", COLOUR)];
    refusal("image-folder", &folder_of(&stranger), &["its folder is dog; expected a class of the training images"]);
    let sizes = [("cat/1.jpg", COLOUR), ("cat/2.jpg", SMALLER)];
    refusal("image-folder", &folder_of(&sizes), &["2.jpg", "where others have 16x16"]);
    refusal("image-folder", &folder_of(&[("cat/1.jpg", GREY), ("cat/2.jpg", CMYK)]), &["2.jpg", "CMYK"]);
}
