//! Small image folders, unpacked and as archives, whole and damaged.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use png::{BitDepth, ColorType};
use tempfile::TempDir;

use crate::formats::picture::tests::{CMYK, COLOUR, GREY, SMALLER, png};
use crate::formats::zip::tests::archive;
use crate::import::{ImportOptions, ImportReport, import as import_with, import_simply as import};
use crate::{Layout, UserError};

pub(in crate::import) type Entries = Vec<(String, Vec<u8>)>;

pub(in crate::import) fn unpack(entries: &Entries) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes) in entries {
        let path = folder.path().join("in").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("writing");
    }
    folder
}

#[track_caller]
pub(in crate::import) fn refusal(dataset: &str, entries: &Entries, parts: &[&str]) {
    let folder = unpack(entries);
    let to = folder.path().join("out.h5");
    let error = import(dataset, &folder.path().join("in"), &to, &Layout::default()).expect_err("a bad data set");
    let message = format!("{error:#}");
    assert!(error.is::<UserError>() && parts.iter().all(|part| message.contains(part)), "{message}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "something was left behind");
}

pub(in crate::import) fn changed(mut entries: Entries, name: &str, contents: &[u8]) -> Entries {
    entries.iter_mut().find(|entry| entry.0 == name).expect(name).1 = contents.to_vec();
    entries
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

/// Three classes of four images in each of the splits `train` and `val`.
fn three(splits: [&str; 2]) -> Entries {
    let mut entries = Entries::new();
    for (split, class) in splits.iter().flat_map(|split| ["a", "b", "c"].map(|class| (split, class))) {
        for number in 0..4u8 {
            let pixel = [number, class.as_bytes()[0], split.len() as u8];
            entries.push((format!("{split}/{class}/{number}.png"), png(ColorType::Rgb, BitDepth::Eight, &pixel)));
        }
    }
    entries
}

pub(in crate::import) fn attempt(entries: &Entries, options: &ImportOptions) -> anyhow::Result<ImportReport> {
    let folder = unpack(entries);
    import_with("image-folder", &folder.path().join("in"), &folder.path().join("out.h5"), options)
}

pub(in crate::import) fn samples(report: &ImportReport) -> Vec<usize> {
    report.summary.splits.iter().map(|part| part.samples).collect()
}

pub(in crate::import) fn renamed(entries: Entries, rename: impl Fn(&str) -> String) -> Entries {
    entries.into_iter().map(|(name, bytes)| (rename(&name), bytes)).collect()
}

#[test]
fn a_class_never_vanishes() -> anyhow::Result<()> {
    let webp = renamed(three(["train", "val"]), |name| match name.contains("/b/") {
        true => name.replace(".png", ".webp"),
        false => name.to_owned(),
    });
    refusal(
        "image-folder",
        &webp,
        &["train/b: the class is without a training image; 4 left out", "--allow-empty-classes"],
    );
    let folder = unpack(&three(["train", "val"]).into_iter().filter(|(name, _)| !name.contains("/b/")).collect());
    for split in ["train", "val"] {
        fs::create_dir(folder.path().join("in").join(split).join("b"))?;
    }
    let (from, to) = (folder.path().join("in"), folder.path().join("out.h5"));
    let error =
        import_with("image-folder", &from, &to, &ImportOptions::default()).expect_err("an empty class").to_string();
    assert!(
        error.contains("train/b: the class is without a training image;") && error.contains("remove the folder"),
        "{error}"
    );

    let options = ImportOptions { allow_empty_classes: true, ..ImportOptions::default() };
    for report in [import_with("image-folder", &from, &to, &options)?, attempt(&webp, &options)?] {
        assert_eq!(report.summary.class_names, ["a", "b", "c"]);
        assert_eq!(samples(&report), [8, 8]);
        assert_eq!(report.notes, ["train: no image of 1 of 3 classes: b", "test: no image of 1 of 3 classes: b"]);
    }
    let report = attempt(&webp, &options)?;
    let reasons: Vec<_> = report.left_out.reasons().map(|(reason, names)| (reason, names.len())).collect();
    assert_eq!(reasons, [("a picture of another format than JPEG and PNG: convert it to take it", 8)]);
    Ok(())
}

#[test]
fn splits_are_known_by_their_usual_names_or_named() -> anyhow::Result<()> {
    for splits in [["train", "valid"], ["Train", "Test"], ["training", "validation"]] {
        let report = attempt(&three(splits), &ImportOptions::default())?;
        assert_eq!((samples(&report), report.left_out.count()), (vec![12, 12], 0), "{splits:?}");
    }
    // A third folder is named, and can be asked for.
    let both = [three(["train", "test"]), three(["val", "other"])].concat();
    let report = attempt(&both, &ImportOptions::default())?;
    let reasons: Vec<_> = report.left_out.reasons().map(|(reason, names)| (reason, names.len())).collect();
    let expected = ["other", "val"].map(|name| format!("in {name}, which is no split; --split-names can take it"));
    assert_eq!((samples(&report), reasons), (vec![12, 12], expected.iter().map(|reason| (&reason[..], 12)).collect()));
    let named =
        |text: &str| ImportOptions { split_names: Some(text.parse().expect("names")), ..ImportOptions::default() };
    assert_eq!(samples(&attempt(&both, &named("train=val,test=other"))?), [12, 12]);
    assert_eq!(samples(&attempt(&both, &named("train=other"))?), [12]);
    let error = attempt(&both, &named("train=nowhere")).expect_err("no such folder").to_string();
    assert!(
        error.contains("--split-names train is nowhere; expected one of its folders: other, test, train, val"),
        "{error}"
    );

    refusal("image-folder", &three(["val", "valid"]), &["its folders is val, valid", "--split-names train=val"]);
    refusal(
        "image-folder",
        &[three(["train", "val"]), three(["valid", "dev"])].concat(),
        &["its folders is", "--split-names"],
    );
    refusal(
        "image-folder",
        &[three(["train", "Train"])].concat(),
        &["Train, train", "--split-names train=Train,test=train"],
    );
    // Classes that are called like splits.
    let vehicles = folder_of(&[("train/1.jpg", COLOUR), ("plane/1.jpg", COLOUR)]);
    refusal("image-folder", &vehicles, &["without folders of classes"]);
    assert_eq!(attempt(&vehicles, &named("train=."))?.summary.class_names, ["plane", "train"]);
    Ok(())
}

#[test]
fn trees_without_folders_of_classes_are_refused() {
    let flat = renamed(three(["train", "test"]), |name| {
        let (split, image) = name.split_once('/').expect("a split");
        format!("{split}/{}", image.replace('/', "-"))
    });
    refusal(
        "image-folder",
        &flat,
        &["in/train: the file is without folders of classes, with 12 images", "train/a-0.png"],
    );
    let outer = renamed(three(["train", "test"]), |name| format!("set/{name}"));
    refusal("image-folder", &outer, &["in/set: the class is a folder of train, test", "--from '"]);
    refusal("image-folder", &folder_of(&[("train/a/1.webp", b"")]), &["without images", "another format"]);
    let flat_test = [three(["train", "other"]), folder_of(&[("test/1.jpg", COLOUR)])].concat();
    refusal(
        "image-folder",
        &flat_test,
        &["in/test", "without images in folders of classes", "--split-names train=train"],
    );
}

#[test]
fn metadata_of_a_mac_is_left_out_and_named() -> anyhow::Result<()> {
    let mut entries = renamed(three(["train", "val"]), |name| format!("mac/{name}"));
    let beside: Entries = entries
        .iter()
        .map(|(name, _)| (format!("__MACOSX/{}", name.replace("/0", "/._0")), vec![0, 5, 22, 7]))
        .collect();
    entries.extend(beside);
    let folder = tempfile::tempdir()?;
    let (zip, to) = (folder.path().join("mac.zip"), folder.path().join("out.h5"));
    fs::write(
        &zip,
        archive(&entries.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect::<Vec<_>>(), true, false),
    )?;
    let report = import_with("image-folder", &zip, &to, &ImportOptions::default())?;
    assert_eq!(
        (samples(&report), &report.summary.class_names[..]),
        (vec![12, 12], &["a", "b", "c"].map(str::to_owned)[..])
    );
    assert_eq!(
        report.left_out.reasons().map(|(reason, names)| (reason, names.len())).collect::<Vec<_>>(),
        [("metadata of macOS or Windows", 24)]
    );
    Ok(())
}

#[test]
fn names_that_are_not_utf8_are_named_or_refused() -> anyhow::Result<()> {
    let folder = unpack(&three(["train", "val"]));
    let (from, to) = (folder.path().join("in"), folder.path().join("out.h5"));
    let latin = OsStr::from_bytes(b"caf\xe9");
    fs::rename(from.join("train/a/0.png"), from.join("train/a").join(latin).with_extension("png"))?;
    let report = import_with("image-folder", &from, &to, &ImportOptions::default())?;
    assert_eq!(samples(&report), [11, 12]);
    let reasons: Vec<_> = report.left_out.reasons().collect();
    assert_eq!(
        reasons,
        [("a name that is not UTF-8: rename it to take it", &["train/a/caf\u{fffd}.png".to_owned()][..])]
    );

    fs::rename(from.join("train/b"), from.join("train").join(latin))?;
    let error = import_with("image-folder", &from, &folder.path().join("other.h5"), &ImportOptions::default());
    let error = error.expect_err("a class without a name").to_string();
    assert!(error.contains("called by a name that is not UTF-8; expected a name in UTF-8"), "{error}");
    Ok(())
}

#[test]
fn links_are_followed_but_not_in_circles() -> anyhow::Result<()> {
    let folder = unpack(&three(["train", "val"]));
    let (from, to) = (folder.path().join("in"), folder.path().join("out.h5"));
    std::os::unix::fs::symlink("../..", from.join("train/a/around"))?;
    std::os::unix::fs::symlink("nowhere.png", from.join("train/a/9.png"))?;
    std::os::unix::fs::symlink("0.png", from.join("train/a/4.png"))?;
    let report = import_with("image-folder", &from, &to, &ImportOptions::default())?;
    assert_eq!((samples(&report), report.left_out.count()), (vec![13, 12], 2), "{}", report.left_out);
    Ok(())
}

#[test]
fn what_is_no_archive_is_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (from, to) = (folder.path().join("tiny.zip"), folder.path().join("out.h5"));
    for (dataset, contents, parts) in [
        (
            "tiny-imagenet",
            &b"<!DOCTYPE html><title>Sign in</title>"[..],
            ["an HTML page", "download it again", "data fetch tiny-imagenet"],
        ),
        (
            "image-folder",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            ["a Git LFS pointer", "git lfs pull", "--from"],
        ),
        ("npz", b"\x93NUMPY\x01\x00", ["a single array of NumPy", "numpy.savez", "x_train"]),
        ("cifar10", b"<html>", ["an HTML page", "download it again", "data fetch cifar10"]),
        ("cifar100", b"", ["an empty file", "the file is", "data fetch cifar100"]),
        ("image-folder", b"Rar!\x1a\x07", ["a RAR archive", "expected a folder or a whole zip archive", "--from"]),
    ] {
        fs::write(&from, contents)?;
        let error = import_with(dataset, &from, &to, &ImportOptions::default()).expect_err("no archive");
        let message = error.to_string();
        assert!(error.is::<UserError>() && parts.iter().all(|part| message.contains(part)), "{message}");
    }
    Ok(())
}
