//! Whole files: written and read back, cut short, changed, and in each other's way.

use std::fs;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::ground::memory::numbered;
use crate::hdf5::read::Pixels;
use crate::{Container, Memory, Source, Split, UserError, summarise, write};

fn written(folder: &Path) -> PathBuf {
    let (train, test) = (numbered(40, [3, 8, 8]), numbered(12, [3, 8, 8]));
    let path = folder.join("set.h5");
    let splits = [(Split::Train, &train), (Split::Test, &test)];
    write(&path, "numbers", "counting", train.class_names(), &splits).expect("a new file");
    path
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_is_written_is_read_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = written(folder.path());
    assert_eq!(names(folder.path()), ["set.h5"]);

    let test = Container::open(&path, Split::Test)?;
    test.verify()?;
    assert!(matches!(test.images, Pixels::Mapped(_)));
    assert_eq!((test.len(), test.shape(), test.label(11), test.class_names().len()), (12, [3, 8, 8], 1, 10));
    let mut image = [0; 192];
    test.read(11, &mut image)?;
    assert_eq!(image, [11; 192]);
    assert!(test.read(12, &mut image).is_err());

    let summary = summarise(&path)?;
    assert_eq!((summary.name.as_str(), summary.source.as_str()), ("numbers", "counting"));
    let text = format!("{}: numbers, 10 classes; train: 40 images of 3x8x8; test: 12 images of 3x8x8", path.display());
    assert_eq!(summary.to_string(), text);
    // An open container is in nobody's way, and equal contents give equal files.
    let again = tempfile::tempdir()?;
    assert_eq!(fs::read(written(again.path()))?, fs::read(&path)?);
    Ok(())
}

#[test]
fn what_is_no_data_set_file_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("set.h5");
    let check = |part: &str| {
        let error = Container::open(&path, Split::Train).expect_err("no data set");
        let message = error.to_string();
        assert!(error.is::<UserError>(), "{error:#}");
        assert!(
            [part, "set.h5", "expected", "iad-launch data import"].iter().all(|part| message.contains(part)),
            "{message}"
        );
    };
    check("No such file");
    fs::write(&path, "")?;
    check("0 bytes that are not HDF5");
    fs::write(&path, "PK\x03\x04, or anything else that is long enough to be taken for something")?;
    check("are not HDF5");
    fs::remove_file(&path)?;
    fs::create_dir(&path)?;
    check("not a file");
    Ok(())
}

#[test]
fn no_truncation_goes_unnoticed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let whole = fs::read(written(folder.path()))?;
    let path = folder.path().join("cut.h5");
    let near_the_end = whole.len() - 40..whole.len();
    for length in (0..whole.len()).step_by(97).chain(near_the_end).chain([8, 47, 48, 96]) {
        fs::write(&path, &whole[..length])?;
        for split in Split::ALL {
            let error = Container::open(&path, split).expect_err("a part is missing");
            assert!(error.is::<UserError>() && error.to_string().contains("cut.h5"), "{length}: {error:#}");
        }
    }
    Ok(())
}

#[test]
fn changed_bytes_are_found() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = written(folder.path());
    let whole = fs::read(&path)?;
    let image = [39; 192];
    let at = whole.windows(192).position(|window| window == image).expect("the last training image");
    for (changed, mask) in [(at, 1), (at + 100, 0x80), (at + 191, 0xff)] {
        let mut bytes = whole.clone();
        bytes[changed] ^= mask;
        fs::write(&path, bytes)?;
        Container::open(&path, Split::Test)?.verify()?;
        let error = Container::open(&path, Split::Train)?.verify().expect_err("a changed pixel");
        let message = error.to_string();
        assert!(error.is::<UserError>() && message.contains("set.h5: train/images is damaged"), "{message}");
    }

    // A changed label that still names a class is found by its checksum too.
    let labels: Vec<u8> = (0..12).flat_map(|sample| (sample % 10i64).to_le_bytes()).collect();
    let at = whole.windows(labels.len()).rposition(|window| window == labels).expect("the test labels");
    let mut bytes = whole;
    bytes[at] = 3;
    fs::write(&path, bytes)?;
    let error = Container::open(&path, Split::Test)?.verify().expect_err("a changed label");
    assert!(error.to_string().contains("test/labels is damaged"));
    Ok(())
}

#[test]
fn changes_anywhere_end_in_an_error_or_in_the_same_contents() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("small.h5");
    let six = numbered(6, [1, 2, 2]);
    write(&path, "six", "counting", six.class_names(), &[(Split::Train, &six)])?;
    let original = Container::open(&path, Split::Train)?;
    let whole = fs::read(&path)?;
    let path = folder.path().join("changed.h5");
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, bytes)?;
        if let Ok(train) = Container::open(&path, Split::Train)
            && train.verify().is_ok()
        {
            assert_eq!(train.pixels(), original.pixels(), "byte {at}");
            assert_eq!(train.labels, original.labels, "byte {at}");
            assert_eq!(train.class_names(), original.class_names(), "byte {at}");
        }
    }
    Ok(())
}

#[test]
fn files_are_never_overwritten_and_never_left_half_done() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let memory = numbered(3, [1, 2, 2]);
    let names_of = memory.class_names();
    let attempt = |path: &Path, name: &str| write(path, name, "", names_of, &[(Split::Train, &memory)]);

    let taken = folder.path().join("taken.h5");
    fs::write(&taken, "precious")?;
    let error = attempt(&taken, "three").expect_err("it exists");
    assert!(error.is::<UserError>() && error.to_string().contains("rm '"), "{error}");
    assert_eq!(fs::read(&taken)?, b"precious");

    let error = attempt(&folder.path().join("no/where.h5"), "three").expect_err("no folder").to_string();
    assert!(error.contains("mkdir -p"), "{error}");
    for name in ["a name\0with an end", &"ä".repeat(129)] {
        let error = attempt(&folder.path().join("bad.h5"), name).expect_err("no proper name");
        let expected = UserError::expected("at most 256 bytes, none of them 0").key("name").value(format!("{name:?}"));
        assert_eq!(format!("{:#}", error.root_cause()), expected.to_string());
        assert!(error.is::<UserError>() && format!("{error:#}").contains("bad.h5"), "{error:#}");
    }
    let classes = ["an ordinary name".to_owned(), "long ".repeat(206)];
    let long = Memory::new([1, 1, 1], classes.to_vec(), vec![0], vec![1])?;
    let error = write(&folder.path().join("long.h5"), "", "", &classes, &[(Split::Train, &long)]).expect_err("a name");
    assert!(error.is::<UserError>() && format!("{error:#}").contains("class_names[1] is \"long long"), "{error:#}");
    let empty = numbered(0, [1, 2, 2]);
    assert!(write(&folder.path().join("empty.h5"), "", "", names_of, &[(Split::Train, &empty)]).is_err());
    assert!(write(&folder.path().join("none.h5"), "", "", names_of, &[]).is_err());
    assert_eq!(names(folder.path()), ["taken.h5"]);
    Ok(())
}
