//! Small data sets in both versions, whole and damaged.

use std::fs;

use tempfile::TempDir;

use super::super::idx::tests::gzip;
use super::*;
use crate::formats::tar;
use crate::import::import_simply as import;
use crate::{Container, Layout, Source, Split};

const BATCHES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
const META: &[u8] =
    b"\x80\x02}q\x01(U\x13num_cases_per_batchq\x02M\x10'U\x0blabel_namesq\x03]q\x04(U\x01aq\x05U\x01bq\x06U\x01cq\x07\
    U\x01dq\x08U\x01eq\x09U\x01fq\nU\x01gq\x0bU\x01hq\x0cU\x01iq\rU\x01jq\x0eeU\x07num_visq\x0fM\x00\x0cu.";

/// Three records per batch, in both versions, below one folder.
fn fixture() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [binary, python] = ["cifar-10-batches-bin", "cifar-10-batches-py"].map(|name| folder.path().join(name));
    fs::create_dir(&binary).expect("a folder");
    fs::create_dir(&python).expect("a folder");
    for (number, name) in BATCHES.into_iter().enumerate() {
        let labels = [number as u8, 9, 0];
        let pixels: Vec<u8> = (0..3 * PIXELS).map(|at| (at * 7 + number) as u8).collect();
        let records = labels.iter().zip(pixels.chunks(PIXELS)).flat_map(|(&label, image)| [&[label], image].concat());
        fs::write(binary.join(format!("{name}.bin")), records.collect::<Vec<_>>()).expect("writing");
        fs::write(python.join(name), array::batch(&labels, &pixels)).expect("writing");
    }
    fs::write(binary.join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n").expect("writing");
    fs::write(python.join("batches.meta"), META).expect("writing");
    folder
}

fn refusal(from: &Path) -> String {
    refusal_of("cifar10", from)
}

fn refusal_of(dataset: &str, from: &Path) -> String {
    let to = from.join("out.h5");
    let error = import(dataset, from, &to, &Layout::default()).expect_err("an incomplete data set");
    assert!(error.is::<UserError>(), "{error:#}");
    assert!(fs::read_dir(from).expect("a folder").all(|entry| {
        let name = entry.expect("an entry").file_name();
        !name.to_string_lossy().contains("out.h5")
    }));
    error.to_string()
}

#[test]
fn both_versions_give_the_same_contents() -> Result<()> {
    let folder = fixture();
    let [binary, python] = ["bin", "py"].map(|version| {
        let to = folder.path().join(format!("{version}.h5"));
        import("cifar10", &folder.path().join(format!("cifar-10-batches-{version}")), &to, &Layout::default())
            .expect("a whole data set")
    });
    assert_eq!(binary.splits, python.splits);
    assert_eq!(binary.class_names, python.class_names);
    assert!(binary.source.contains("binary version") && python.source.contains("python version"));
    assert_eq!(binary.splits.iter().map(|part| part.samples).collect::<Vec<_>>(), [15, 3]);

    let train = Container::open(&python.file, Split::Train)?;
    let mut image = vec![0; PIXELS];
    train.read(4, &mut image)?;
    assert_eq!((train.shape(), train.label(3), train.label(4)), (SHAPE, 1, 9));
    assert!((0..PIXELS).all(|at| image[at] == ((PIXELS + at) * 7 + 1) as u8));
    Ok(())
}

#[test]
fn the_folder_above_will_do_and_prefers_the_binary_version() -> Result<()> {
    let folder = fixture();
    let summary = import("cifar10", folder.path(), &folder.path().join("out.h5"), &Layout::default())?;
    assert!(summary.source.contains("binary version"));
    Ok(())
}

#[test]
fn damage_is_named_with_its_file_and_record() -> Result<()> {
    let empty = tempfile::tempdir()?;
    assert!(refusal(empty.path()).contains("cifar-10-binary.tar.gz"));

    let folder = fixture();
    let binary = folder.path().join("cifar-10-batches-bin");
    let batch = binary.join("data_batch_3.bin");
    let whole = fs::read(&batch)?;
    let check = |contents: &[u8], parts: &[&str]| {
        fs::write(&batch, contents).expect("writing");
        let message = refusal(&binary);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    check(&whole[..whole.len() - 1], &["data_batch_3.bin", "3072 after the last whole record", "3073 bytes"]);
    check(&[], &["data_batch_3.bin", "0 bytes"]);
    let mut mislabelled = whole.clone();
    mislabelled[3073] = 10;
    check(&mislabelled, &["data_batch_3.bin", "the label of record 1 is 10; expected 0..=9"]);
    fs::remove_file(&batch)?;
    assert!(refusal(&binary).contains("data_batch_3.bin"));
    fs::write(&batch, whole)?;
    fs::write(binary.join("batches.meta.txt"), "a\nb\n")?;
    assert!(refusal(&binary).contains("the names of 10 classes"));
    Ok(())
}

#[test]
fn damaged_pickles_are_named() -> Result<()> {
    let folder = fixture();
    let python = folder.path().join("cifar-10-batches-py");
    let pixels = vec![0; PIXELS];
    for (contents, part) in [
        (&array::batch(&[12], &pixels)[..], "test_batch: the label of record 0 is 12; expected 0..=9"),
        (&array::batch(&[1], &pixels)[..200], "at byte"),
        (b"\x80\x02}.", "a pickle without `labels` or `data`"),
        (b"PK\x03\x04 or a zip", "not a pickle of protocol 2"),
    ] {
        fs::write(python.join("test_batch"), contents)?;
        let message = refusal(&python);
        assert!(message.contains(part), "{message}");
    }
    fs::remove_file(python.join("test_batch"))?;
    assert!(refusal(&python).contains("test_batch"));
    Ok(())
}

/// The files of the binary version as an archive; `members` are added to it.
fn archived(folder: &TempDir, members: &[(&str, &[u8])]) -> Vec<u8> {
    let binary = folder.path().join("cifar-10-batches-bin");
    let names = BATCHES.iter().map(|name| format!("{name}.bin")).chain(["batches.meta.txt".to_owned()]);
    let files: Vec<_> = names
        .map(|name| (format!("cifar-10-batches-bin/{name}"), fs::read(binary.join(&name)).expect("reading")))
        .collect();
    let own = files.iter().map(|(name, bytes)| (&name[..], &bytes[..]));
    let tar = tar::archive(&own.chain(members.iter().copied()).collect::<Vec<_>>());
    gzip(&tar)
}

#[test]
fn an_archive_is_read_without_unpacking() -> Result<()> {
    let folder = fixture();
    let (archive, to) = (folder.path().join("cifar-10-binary.tar.gz"), folder.path().join("archive.h5"));
    let outside = "../outside.bin";
    fs::write(&archive, archived(&folder, &[(outside, b"climbs"), ("/etc/data_batch_1.bin", b"root")]))?;
    let found = import("cifar10", &archive, &to, &Layout::default())?;
    let plain = import("cifar10", folder.path(), &folder.path().join("folder.h5"), &Layout::default())?;
    assert_eq!(fs::read(&found.file)?, fs::read(&plain.file)?);
    assert!(!folder.path().join(outside).exists());

    fs::remove_file(&to)?;
    let whole = archived(&folder, &[]);
    let short = {
        let records = [0; 2 * 3073 - 1];
        gzip(&tar::archive(&[
            ("cifar-10-batches-bin/batches.meta.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n"),
            ("cifar-10-batches-bin/data_batch_1.bin", &records),
        ]))
    };
    let mut changed = whole.clone();
    let at = changed.len() - 6;
    changed[at] ^= 1;
    for (bytes, part) in [
        (&whole[..whole.len() / 2], "the file is "),
        (&changed, "after the last member"),
        (b"PK\x03\x04 is no gzip", "invalid gzip header"),
        (&gzip(&tar::archive(&[("other/file", b"")])), "with cifar-10-batches-bin/data_batch_1.bin or"),
        (&gzip(&tar::archive(&[("cifar-10-batches-bin/batches.meta.txt", b"a")])), "batches.meta.txt: class names is"),
        (&short, "data_batch_1.bin: the file is 6145 bytes, 3072 after the last whole record"),
    ] {
        fs::write(&archive, bytes)?;
        let error = import("cifar10", &archive, &to, &Layout::default()).expect_err(part);
        let message = error.to_string();
        assert!(error.is::<UserError>() && message.contains("tar.gz") && message.contains(part), "{message}");
        assert!(!to.exists());
    }
    Ok(())
}

/// CIFAR-100 with `count` records in each batch, in both versions.
fn hundred(count: usize) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [binary, python] = ["cifar-100-binary", "cifar-100-python"].map(|name| folder.path().join(name));
    fs::create_dir(&binary).expect("a folder");
    fs::create_dir(&python).expect("a folder");
    let fine: Vec<u8> = (0..count).map(|at| (at * 37 % 100) as u8).collect();
    let coarse: Vec<u8> = fine.iter().map(|&fine| fine / 5).collect();
    let pixels: Vec<u8> = (0..count * PIXELS).map(|at| (at * 7) as u8).collect();
    for name in ["train", "test"] {
        let labels = coarse.iter().zip(&fine);
        let records =
            labels.zip(pixels.chunks(PIXELS)).flat_map(|((&coarse, &fine), image)| [&[coarse, fine], image].concat());
        fs::write(binary.join(format!("{name}.bin")), records.collect::<Vec<_>>()).expect("writing");
        fs::write(python.join(name), array::batch_of_hundred(&fine, &coarse, &pixels)).expect("writing");
    }
    let [fine, coarse] = [("f", 100), ("c", 20)]
        .map(|(letter, count)| (0..count).map(|number| format!("{letter}{number}")).collect::<Vec<_>>());
    fs::write(binary.join("fine_label_names.txt"), fine.join("\n")).expect("writing");
    fs::write(binary.join("coarse_label_names.txt"), coarse.join("\n") + "\n").expect("writing");
    fs::write(python.join("meta"), array::meta(&[("fine_label_names", &fine), ("coarse_label_names", &coarse)]))
        .expect("writing");
    folder
}

#[test]
fn cifar100_has_fine_labels_and_coarse_classes() -> Result<()> {
    let folder = hundred(101);
    let [binary, python] = ["binary", "python"].map(|version| {
        let (from, to) =
            (folder.path().join(format!("cifar-100-{version}")), folder.path().join(format!("{version}.h5")));
        import("cifar100", &from, &to, &Layout::default()).expect("a whole data set")
    });
    assert_eq!((&binary.splits, &binary.coarse), (&python.splits, &python.coarse));
    let coarse = binary.coarse.expect("coarse classes");
    assert_eq!((coarse.names.len(), &coarse.names[19][..], binary.class_names.len()), (20, "c19", 100));
    assert!((0..100).all(|fine| coarse.of_class[fine] == fine as i64 / 5));
    let train = Container::open(&binary.file, Split::Train)?;
    assert_eq!([train.label(1), train.label(100)], [37, 0]);
    Ok(())
}

#[test]
fn damage_to_cifar100_is_named() -> Result<()> {
    let folder = hundred(3);
    let from = folder.path().join("cifar-100-binary");
    let batch = from.join("train.bin");
    let whole = fs::read(&batch)?;
    let check = |at: usize, value: u8, part: &str| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        fs::write(&batch, bytes).expect("writing");
        let message = refusal_of("cifar100", &from);
        assert!(message.contains("train.bin") && message.contains(part), "{message}");
    };
    check(1, 100, "the label of record 0 is 100; expected 0..=99");
    check(3074, 20, "the coarse label of record 1 is 20; expected 0..=19");
    check(3075, 0, "the coarse label of record 1 is 7; expected 0, as records before had for class 0");
    fs::write(&batch, &whole[..whole.len() - 1])?;
    assert!(refusal_of("cifar100", &from).contains("3073 after the last whole record"));
    Ok(())
}

#[test]
fn batches_pickled_again_by_another_numpy_are_read() -> Result<()> {
    let folder = fixture();
    let python = folder.path().join("cifar-10-batches-py");
    let again = include_bytes!("../../../fixtures/numpy2_protocol5.pickle");
    fs::write(python.join("test_batch"), again)?;
    let summary = import("cifar10", &python, &folder.path().join("out.h5"), &Layout::default())?;
    let test = Container::open(&summary.file, Split::Test)?;
    let mut image = vec![0; PIXELS];
    test.read(1, &mut image)?;
    assert_eq!((test.len(), test.label(0), test.label(1)), (2, 3, 9));
    assert!((0..PIXELS).all(|at| image[at] == ((PIXELS + at) * 7) as u8));
    Ok(())
}

#[test]
fn files_beside_those_of_the_data_set_are_named() -> Result<()> {
    let folder = fixture();
    let binary = folder.path().join("cifar-10-batches-bin");
    fs::write(binary.join("data_batch_6.bin"), [0; 3073])?;
    let archive = folder.path().join("cifar.tar.gz");
    fs::write(&archive, archived(&folder, &[("cifar-10-batches-bin/data_batch_6.bin", &[0; 3073])]))?;
    for (from, other, names) in [
        (folder.path(), 1, vec!["cifar-10-batches-py", "data_batch_6.bin", "cifar.tar.gz"]),
        (&binary, 0, vec!["data_batch_6.bin"]),
        (&archive, 0, vec!["cifar-10-batches-bin/data_batch_6.bin"]),
    ] {
        let to = folder.path().join(format!("{}.h5", from.as_os_str().len()));
        let left_out = crate::import("cifar10", from, &to, &crate::ImportOptions::default())?.left_out;
        let found: Vec<&str> = left_out.reasons().flat_map(|(_, names)| names).map(String::as_str).collect();
        assert_eq!((found, left_out.reasons().count()), (names, 1 + other));
    }
    Ok(())
}
