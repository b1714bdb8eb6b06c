//! Files that other programs could have written: other layouts, and everything that is refused.

use std::path::Path;

use ::hdf5::dataset::Layout;
use ::hdf5::types::{FixedAscii, FixedUnicode, VarLenAscii, VarLenUnicode};
use ::hdf5::{File, Group, H5Type};
use anyhow::Result;
use tempfile::TempDir;

use super::read::{Access, Pixels, read};
use super::reader::{LONGEST, SCHEMA, VERSION};
use super::write::{NAME, write_string};
use crate::ground::digest::{labels_sha256, sha256};
use crate::{Container, Split, UserError};

/// Ten images of [1, 2, 2] in ten classes, with one part spoilt or made otherwise.
struct Recipe {
    schema: &'static str,
    version: i64,
    class_names: usize,
    labels: Vec<i64>,
    checksums: bool,
    split: &'static str,
    /// Makes the dataset of images in its group.
    images: fn(&Group) -> ::hdf5::Result<()>,
}

fn contiguous(group: &Group) -> ::hdf5::Result<()> {
    group.new_dataset::<u8>().shape((10, 1, 2, 2)).create("images")?.write_raw(&[5u8; 40])
}

const GOOD: Recipe = Recipe {
    schema: SCHEMA,
    version: VERSION,
    class_names: 10,
    labels: Vec::new(),
    checksums: true,
    split: "train",
    images: contiguous,
};

fn make(recipe: &Recipe, user_block: u64) -> Result<(TempDir, std::path::PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("set.h5");
    let options = File::with_options().with_fcpl(|create| create.userblock(user_block)).clone();
    // What h5py and others write, unless there are more names than fit there.
    let old = recipe.class_names <= 1000;
    let file = if old {
        options.create(&path)?
    } else {
        options.clone().with_fapl(|access| access.libver_v110()).create(&path)?
    };
    write_string::<NAME>(&file, "schema", recipe.schema)?;
    file.new_attr::<i64>().create("version")?.write_scalar(&recipe.version)?;
    write_string::<NAME>(&file, "name", "ten")?;
    write_string::<NAME>(&file, "source", "a test")?;
    let names = vec!["class".parse::<FixedUnicode<NAME>>()?; recipe.class_names];
    file.new_attr::<FixedUnicode<NAME>>().shape(names.len()).create("class_names")?.write_raw(&names)?;
    let group = file.create_group("train")?;
    write_string::<NAME>(&group, "split", recipe.split)?;
    let labels = if recipe.labels.is_empty() { (0..10).collect() } else { recipe.labels.clone() };
    if recipe.checksums {
        write_string::<NAME>(&group, "images_sha256", &sha256(&[5; 40]))?;
        write_string::<NAME>(&group, "labels_sha256", &labels_sha256(&labels))?;
    }
    (recipe.images)(&group)?;
    group.new_dataset::<i64>().shape(labels.len()).create("labels")?.write_raw(&labels)?;
    drop(group);
    file.close()?;
    Ok((folder, path))
}

#[track_caller]
fn refusal(path: &Path, split: Split, parts: &[&str]) {
    let error = Container::open(path, split).expect_err("not a proper file");
    let message = error.to_string();
    assert!(error.is::<UserError>(), "{error:#}");
    let expected = [path.to_str().expect("a readable name"), "expected", "next: ", "iad-launch data import"];
    assert!(parts.iter().chain(&expected).all(|part| message.contains(part)), "{message}");
}

#[test]
fn every_layout_gives_the_same_contents() -> Result<()> {
    let chunked: fn(&Group) -> ::hdf5::Result<()> = |group| {
        group.new_dataset::<u8>().shape((10, 1, 2, 2)).chunk((3, 1, 2, 2)).create("images")?.write_raw(&[5u8; 40])
    };
    let deflated: fn(&Group) -> ::hdf5::Result<()> = |group| {
        let images = group.new_dataset::<u8>().shape((10, 1, 2, 2)).chunk((10, 1, 2, 2)).deflate(9);
        images.create("images")?.write_raw(&[5u8; 40])
    };
    let compact: fn(&Group) -> ::hdf5::Result<()> = |group| {
        let images = group.new_dataset::<u8>().shape((10, 1, 2, 2)).layout(Layout::Compact);
        images.create("images")?.write_raw(&[5u8; 40])
    };
    for (images, mapped) in [(contiguous as _, true), (chunked, false), (deflated, false), (compact, false)] {
        for user_block in [0, 512] {
            let (_folder, path) = make(&Recipe { images, ..GOOD }, user_block)?;
            let (_, pixels, labels) = read(&path, Split::Train, Access::MapOrLoad)?;
            assert_eq!(matches!(pixels, Pixels::Mapped(_)), mapped);
            assert!(labels.into_iter().eq(0..10));
            Container::open(&path, Split::Train)?.verify()?;
        }
    }
    Ok(())
}

#[test]
fn what_does_not_keep_to_the_schema_is_refused() -> Result<()> {
    let of = |parts: &[&str], recipe: Recipe| -> Result<()> {
        let (_folder, path) = make(&recipe, 0)?;
        refusal(&path, Split::Train, parts);
        Ok(())
    };
    of(&["schema is pictures; expected iad-images"], Recipe { schema: "pictures", ..GOOD })?;
    of(&["version is 2; expected 1"], Recipe { version: 2, ..GOOD })?;
    of(&["class_names is empty"], Recipe { class_names: 0, ..GOOD })?;
    of(&["class_names is 70000 strings, more than 65536"], Recipe { class_names: 70_000, ..GOOD })?;
    of(&["train/labels[9] is 9; expected 0..=8"], Recipe { class_names: 9, ..GOOD })?;
    of(&["train/labels[1] is -1; expected 0..=9"], Recipe { labels: [vec![0, -1], vec![0; 8]].concat(), ..GOOD })?;
    of(&["train/labels is of shape [9]; expected [10]"], Recipe { labels: vec![0; 9], ..GOOD })?;
    of(&["train/images_sha256 is missing"], Recipe { checksums: false, ..GOOD })?;
    of(&["train/split is test; expected train"], Recipe { split: "test", ..GOOD })
}

#[test]
fn images_of_another_kind_are_refused() -> Result<()> {
    let of = |parts: &[&str], images: fn(&Group) -> ::hdf5::Result<()>| -> Result<()> {
        let (_folder, path) = make(&Recipe { images, ..GOOD }, 0)?;
        refusal(&path, Split::Train, parts);
        Ok(())
    };
    of(&["train/images is missing; expected a dataset of uint8"], |_| Ok(()))?;
    of(&["train/images is of type float32; expected a dataset of uint8"], |group| {
        group.new_dataset::<f32>().shape((10, 1, 2, 2)).create("images").map(drop)
    })?;
    of(&["train/images is of shape [10, 4]; expected four dimensions"], |group| {
        group.new_dataset::<u8>().shape((10, 4)).create("images").map(drop)
    })?;
    of(&["train/images is of shape [0, 1, 2, 2]", "none of them 0"], |group| {
        group.new_dataset::<u8>().shape((0, 1, 2, 2)).create("images").map(drop)
    })?;
    of(&["train/images is 40 bytes, Contiguous, with 0 stored"], |group| {
        group.new_dataset::<u8>().shape((10, 1, 2, 2)).create("images").map(drop)
    })?;
    // Claims a terabyte and stores nothing.
    of(&["train/images is 1099511627770 bytes, Chunked, with 0 stored", "all bytes within the file"], |group| {
        let images = group.new_dataset::<u8>().shape((10, 1, 1, (1usize << 40) / 10)).chunk((1, 1, 1, 1 << 20));
        images.create("images").map(drop)
    })?;
    of(&["train/images is a link to", "expected data in this file"], |group| {
        let other = Path::new(&group.filename()).with_extension("other");
        let file = File::create(&other)?;
        contiguous(&file)?;
        group.link_external(&other.to_string_lossy(), "/images", "images")
    })
}

#[test]
fn attributes_and_splits_have_to_be_there() -> Result<()> {
    let (_folder, path) = make(&GOOD, 0)?;
    refusal(&path, Split::Test, &["test is missing (there is: train); expected a group `test`"]);
    for (name, key) in [("schema", "schema"), ("version", "version is unreadable"), ("class_names", "class_names")] {
        let (_folder, path) = make(&GOOD, 0)?;
        File::open_rw(&path)?.delete_attr(name)?;
        refusal(&path, Split::Train, &[key]);
    }
    Ok(())
}

/// A good file with `name` written again as `value`.
fn named<T: H5Type>(value: &T) -> Result<(TempDir, std::path::PathBuf)> {
    let (folder, path) = make(&GOOD, 0)?;
    let file = File::open_rw(&path)?;
    file.delete_attr("name")?;
    file.new_attr::<T>().create("name")?.write_scalar(value)?;
    file.close()?;
    Ok((folder, path))
}

#[test]
fn fixed_strings_of_any_writer_are_read() -> Result<()> {
    fn check<T: H5Type>(value: &T, expected: &str) -> Result<()> {
        let (_folder, path) = named(value)?;
        assert_eq!(read(&path, Split::Train, Access::MapOrLoad)?.0.name, expected);
        Ok(())
    }
    check(&FixedAscii::<3>::from_ascii("ten")?, "ten")?;
    check(&FixedAscii::<LONGEST>::from_ascii(&"x".repeat(LONGEST))?, &"x".repeat(LONGEST))?;
    check(&"zehn für zwölf".parse::<FixedUnicode<100>>()?, "zehn für zwölf")?;
    check(&"ö".repeat(LONGEST / 2).parse::<FixedUnicode<LONGEST>>()?, &"ö".repeat(LONGEST / 2))?;
    check(&FixedUnicode::<1>::new(), "")?;
    // More names than fit into an ordinary attribute.
    let (_folder, path) = make(&Recipe { class_names: 3000, ..GOOD }, 0)?;
    assert_eq!(read(&path, Split::Train, Access::MapOrLoad)?.0.class_names, vec!["class"; 3000]);
    Ok(())
}

#[test]
fn other_strings_are_refused() -> Result<()> {
    fn check<T: H5Type>(value: &T, found: &str) -> Result<String> {
        let (_folder, path) = named(value)?;
        let error = Container::open(&path, Split::Train).expect_err("another type");
        assert!(error.is::<UserError>(), "{error:#}");
        let expected = "expected an attribute of fixed-length UTF-8 strings, each at most 1024 bytes";
        let message = error.to_string();
        assert!(message.contains(&format!("set.h5: name is {found}")) && message.contains(expected), "{message}");
        Ok(message)
    }
    check(&7i64, "of type int64")?;
    check(&FixedUnicode::<{ LONGEST + 1 }>::new(), "of type unicode (len 1025)")?;
    #[allow(unsafe_code)]
    // SAFETY: nothing but the reader under test, which checks this, takes the bytes for a string.
    let latin = unsafe { FixedAscii::<8>::from_ascii_unchecked(b"caf\xe9") };
    check(&latin, "not UTF-8")?;
    let hint = r#"next: write fixed-length strings, with h5py: attrs["name"] = numpy.array(..., dtype="S")"#;
    assert!(check(&"ten".parse::<VarLenUnicode>()?, "of type unicode (var len)")?.contains(hint));
    assert!(check(&VarLenAscii::from_ascii("ten")?, "of type string (var len)")?.contains(hint));
    Ok(())
}
