//! Small data sets in both versions, whole and damaged.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::{Container, Layout, Source, Split, import};

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
    let to = from.join("out.h5");
    let error = import("cifar10", from, &to, &Layout::default()).expect_err("an incomplete data set");
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
    assert!(refusal(&binary).contains("ten classes"));
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
