//! `iad-launch data` as people use it: from published files to a container, and everything that can go wrong with them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use datasets::{Container, Source, Split};
use tests::{Ended, Program, World, checkout, tell};

/// One record of CIFAR-10's binary files.
const RECORD: usize = 1 + 3 * 32 * 32;

/// A folder like that of CIFAR-10's binary version, with `records` in each batch.
fn cifar10(world: &World, records: usize) -> Result<PathBuf> {
    let folder = world.path("cifar-10-batches-bin");
    fs::create_dir(&folder)?;
    fs::write(folder.join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n")?;
    for batch in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"] {
        let bytes: Vec<u8> = (0..records * RECORD)
            .map(|at| if at % RECORD == 0 { (at / RECORD % 10) as u8 } else { (at * at / 97) as u8 })
            .collect();
        fs::write(folder.join(format!("{batch}.bin")), bytes)?;
    }
    Ok(folder)
}

fn data(arguments: &[&str]) -> Result<Ended> {
    Program::alone().args(["data"]).args(arguments).run()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn import(from: &Path, to: &Path, more: &[&str]) -> Result<Ended> {
    data(&[&["import", "cifar10", "--from", &text(from), "--to", &text(to)], more].concat())
}

/// Asserts that nothing but `names` is in `folder`.
#[track_caller]
fn holds_only(folder: &Path, names: &[&str]) {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut found: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    found.sort();
    assert_eq!(found, names);
}

#[test]
fn a_data_set_is_imported_shown_and_verified() -> Result<()> {
    let world = World::new()?;
    let (from, to, sheet) = (cifar10(&world, 30)?, world.path("new/cifar10.h5"), world.path("sheet.png"));
    import(&from, &to, &[])?.expect(0);
    holds_only(&world.path("new"), &["cifar10.h5"]);
    let said = data(&["info", &text(&to), "--sheet", &text(&sheet)])?.expect(0).said;
    for part in
        ["cifar10", "150 images of 3x32x32", "in one piece", "mean", "std", "a, b, c", "sha256", "kriz/cifar.html"]
    {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    assert!(fs::read(&sheet)?.starts_with(b"\x89PNG"));
    assert!(data(&["verify", &text(&to)])?.expect(0).said.contains("all checksums are right"));
    for command in ["info", "verify"] {
        let said = data(&[command, &text(&to), "--json"])?.expect(0).said;
        // Talk, on the other stream, comes before or after it.
        let (from, to) = (said.find('{').unwrap_or(0), said.rfind('}').map_or(0, |last| last + 1));
        let told: serde_json::Value = serde_json::from_str(&said[from..to])?;
        assert_eq!(told["classes"][2], "c", "{told:#}");
        let train = &told["splits"][0];
        assert!(train["split"] == "train" && train["images"] == 150 && train["shape"][1] == 32, "{told:#}");
        assert_eq!(train["images_sha256"].as_str().map(str::len), Some(64), "{told:#}");
    }

    let before = fs::read(&to)?;
    import(&from, &to, &[])?.expect(2).expect_error(&["cifar10.h5", "does not exist yet", "rm '"]);
    assert!(fs::read(&to)? == before);
    data(&["info", &text(&to), "--sheet", &text(&sheet)])?.expect(2).expect_error(&["sheet.png", "rm '"]);
    Ok(())
}

#[test]
fn neither_threads_nor_layout_change_what_is_stored() -> Result<()> {
    let world = World::new()?;
    let from = cifar10(&world, 120)?;
    let files = [
        ("one.h5", &["--threads", "1"][..]),
        ("three.h5", &["--threads", "3"]),
        ("chunks.h5", &["--chunks", "64", "--threads", "1"]),
        ("packed.h5", &["--compress", "3", "--threads", "1"]),
        ("packed-by-two.h5", &["--compress", "3", "--threads", "2"]),
    ]
    .map(|(name, more)| (world.path(name), more));
    let mut sums = Vec::new();
    for (path, more) in &files {
        let said = import(&from, path, more)?.expect(0).said;
        sums.push(said.lines().filter(|line| line.contains("sha256")).collect::<Vec<_>>().join("\n"));
        data(&["verify", &text(path)])?.expect(0);
    }
    assert!(sums.iter().all(|sum| *sum == sums[0] && sum.lines().count() == 4), "{sums:#?}");
    let [one, three, _, packed, by_two] = files.map(|(path, _)| fs::read(path));
    assert!(one? == three? && packed? == by_two?, "files differ by the number of threads");
    let mut images = [vec![0; RECORD - 1], vec![0; RECORD - 1]];
    for (image, name) in images.iter_mut().zip(["one.h5", "packed.h5"]) {
        Container::open(&world.path(name), Split::Train)?.read(599, image)?;
    }
    assert!(images[0] == images[1]);
    Ok(())
}

#[test]
fn damaged_sources_are_named_and_leave_nothing() -> Result<()> {
    let world = World::new()?;
    let from = cifar10(&world, 3)?;
    let (batch, out) = (from.join("data_batch_2.bin"), world.path("out"));
    let whole = fs::read(&batch)?;
    let mut mislabelled = whole.clone();
    mislabelled[2 * RECORD] = 10;
    for (bytes, parts) in [
        (&whole[..whole.len() - 1], &["data_batch_2.bin", "3072 after the last whole record"][..]),
        (&mislabelled, &["data_batch_2.bin", "the label of record 2 is 10", "0..=9"]),
    ] {
        fs::write(&batch, bytes)?;
        import(&from, &out.join("set.h5"), &[])?.expect(2).expect_error(parts);
        holds_only(&out, &[]);
    }
    let missing = world.path("nowhere");
    import(&missing, &out.join("set.h5"), &[])?.expect(2).expect_error(&["nowhere", "--from is missing"]);
    data(&["import", "imagenet", "--from", &text(&from), "--to", &text(&out.join("set.h5"))])?
        .expect(2)
        .expect_error(&["imagenet", "tiny-imagenet"]);
    Ok(())
}

#[test]
fn a_damaged_container_fails_its_verification() -> Result<()> {
    let world = World::new()?;
    let from = cifar10(&world, 30)?;
    for (name, more, part) in [
        ("whole.h5", &[][..], "damaged, with SHA-256"),
        ("packed.h5", &["--compress", "1"], "train/images is damaged ("),
    ] {
        let path = world.path(name);
        import(&from, &path, more)?.expect(0);
        let mut bytes = fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&path, bytes)?;
        data(&["verify", &text(&path)])?.expect(2).expect_error(&[
            name,
            "train/images",
            part,
            "iad-launch data import",
        ]);
    }
    let other = world.path("other.h5");
    fs::write(&other, "not HDF5")?;
    data(&["info", &text(&other)])?.expect(2).expect_error(&["other.h5", "not HDF5"]);
    data(&["verify", &text(&world.path("missing.h5"))])?.expect(2).expect_error(&["missing.h5", "No such file"]);
    Ok(())
}

/// A file system of little room, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).ok()?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=300k", "tmpfs"]).arg(&path).output();
        mounted.is_ok_and(|ended| ended.status.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_fails_the_import_and_keeps_nothing() -> Result<()> {
    let world = World::new()?;
    let from = cifar10(&world, 30)?;
    let Some(disk) = SmallDisk::mount(world.path("small")) else {
        tell("skipped: a_full_disk_fails_the_import_and_keeps_nothing (no small tmpfs can be mounted here)");
        return Ok(());
    };
    for more in [&[][..], &["--chunks", "16"]] {
        import(&from, &disk.0.join("set.h5"), more)?.expect(1).expect_error(&["writing", "set.h5", "No space left"]);
        holds_only(&disk.0, &[]);
    }
    Ok(())
}

#[test]
fn a_folder_without_permission_is_named() -> Result<()> {
    let world = World::new()?;
    let (from, closed) = (cifar10(&world, 3)?, world.path("closed"));
    fs::create_dir(&closed)?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555))?;
    if fs::write(closed.join("probe"), "").is_ok() {
        tell("skipped: a_folder_without_permission_is_named (permissions do not bind this user)");
        return Ok(());
    }
    import(&from, &closed.join("set.h5"), &[])?.expect(2).expect_error(&["closed", "can be written to"]);
    fs::set_permissions(from.join("data_batch_1.bin"), fs::Permissions::from_mode(0o000))?;
    import(&from, &world.path("set.h5"), &[])?.expect(2).expect_error(&["data_batch_1.bin", "ermission denied"]);
    Ok(())
}

/// The committed example reads a container with h5py alone.
#[test]
fn the_example_for_h5py_reads_a_container() -> Result<()> {
    let python = Path::new(option_env!("LIBTORCH").unwrap_or("")).join("../../../../bin/python");
    let has_h5py = |python: &Path| {
        Command::new(python).args(["-c", "import h5py"]).output().is_ok_and(|ended| ended.status.success())
    };
    let Some(python) = [python, PathBuf::from("python3")].into_iter().find(|python| has_h5py(python)) else {
        tell("skipped: the_example_for_h5py_reads_a_container (no python with h5py)");
        return Ok(());
    };
    let world = World::new()?;
    let from = cifar10(&world, 30)?;
    let example = checkout().join("scripts/examples/read_container.py");
    for more in [&[][..], &["--compress", "1"]] {
        let to = world.path(if more.is_empty() { "plain.h5" } else { "packed.h5" });
        import(&from, &to, more)?.expect(0);
        let ended = Command::new(&python).arg(&example).arg(&to).output()?;
        let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
        assert!(
            ended.status.success() && said.contains("train: (150, 3, 32, 32)") && said.contains("checksums right"),
            "{said}"
        );
    }
    Ok(())
}

#[test]
fn what_an_import_leaves_out_is_said() -> Result<()> {
    let world = World::new()?;
    let from = world.path("photos");
    for split in ["train", "held_out"] {
        for class in ["ant", "bee", "cow"] {
            let folder = from.join(split).join(class);
            fs::create_dir_all(&folder)?;
            let name = if class == "bee" { "1.webp" } else { "1.jpeg" };
            fs::copy(checkout().join("datasets/fixtures/grey.jpeg"), folder.join(name))?;
        }
    }
    let import = |more: &[&str], to: &str| {
        let arguments = ["import", "image-folder", "--from", &text(&from), "--to", &text(&world.path(to))];
        data(&[&arguments[..], more].concat())
    };
    import(&[], "new/set.h5")?.expect(2).expect_error(&[
        "train/bee",
        "without a training image",
        "--allow-empty-classes",
    ]);
    let names = ["--split-names", "train=train,test=held_out"];
    let said = import(&[&names[..], &["--allow-empty-classes"]].concat(), "new/set.h5")?.expect(0).said;
    for part in ["3: ant, bee, cow", "left out: 2 (a picture of another format", "no image of 1 of 3 classes: bee"] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    let test = Container::open(&world.path("new/set.h5"), Split::Test)?;
    assert_eq!((test.len(), test.label(0), test.label(1)), (2, 0, 2));
    import(&["--split-names", "train"], "other.h5")?.expect(2).expect_error(&["train=FOLDER,test=FOLDER"]);
    let cifar = ["import", "cifar10", "--from", &text(&from), "--to", &text(&world.path("other.h5"))];
    data(&[&cifar[..], &names].concat())?.expect(2).expect_error(&["--split-names is given for cifar10"]);
    let sheet = world.path("pictures/of/set.png");
    data(&["info", &text(&world.path("new/set.h5")), "--sheet", &text(&sheet)])?.expect(0);
    assert!(sheet.is_file());
    Ok(())
}

/// The real images beside this checkout, if any.
#[test]
fn real_images_of_tiny_imagenet_are_imported() -> Result<()> {
    let archive = checkout().join("../shared/data/tiny-imagenet-20.tar");
    if !archive.is_file() {
        tell("skipped: real_images_of_tiny_imagenet_are_imported (no sample beside this checkout)");
        return Ok(());
    }
    let world = World::new()?;
    let unpacked = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(world.path("")).output()?;
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let to = world.path("tiny.h5");
    let from = world.path("tiny-imagenet-20");
    data(&["import", "tiny-imagenet", "--from", &text(&from), "--to", &text(&to)])?.expect(0);
    let (train, test) = (Container::open(&to, Split::Train)?, Container::open(&to, Split::Test)?);
    assert_eq!((train.len(), test.len(), train.shape(), train.class_names().len()), (10_000, 1_000, [3, 64, 64], 20));
    assert!(train.class_names()[2].starts_with("Egyptian cat"), "{:?}", train.class_names());
    let (mut image, mut grey) = (vec![0; 3 * 64 * 64], 0);
    for sample in 0..train.len() {
        assert_eq!(train.label(sample), sample as i64 / 500);
        train.read(sample, &mut image)?;
        grey += usize::from(image[..4096] == image[4096..8192] && image[4096..8192] == image[8192..]);
    }
    // 236 of all images have one channel; a few with three are grey too.
    assert!((190..400).contains(&grey), "{grey} grey images");
    Ok(())
}
