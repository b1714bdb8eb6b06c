//! A temporary folder with everything a run needs: a small data set, configurations, a teacher.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datasets::{Memory, Split};
use toml::{Table, Value};

use crate::teachers;

/// The terms of IAD-I with introspection from the first epoch on, so that a short run computes all of them.
pub const IAD_1: &str = r#"[
    { name = "teach", of = "adversarial", towards = { network = "robust", images = "natural" } },
    { name = "introspect", of = "adversarial", towards = { network = "student", images = "natural" }, trust = { teacher = "robust", exponent = 0.1, inverted = true } },
]"#;

/// Changes of [`World::config`] that make a run keep best and averaged weights beside the last ones.
pub const WEIGHTS_OF_EVERY_KIND: [(&str, &str); 3] = [
    ("evaluation.selection", "\"held_out\""),
    ("evaluation.held_out", "0.1"),
    ("averages", "{ ema = { decay = 0.9 } }"),
];

/// Every key makes a run short; the attack starts at random.
const SHORT_RUN: &str = r#"
seed = 1
epochs = 1
batch = { size = 16 }
student = { architecture = "convnet" }
attack = { eps = "8/255", step = "6/255", steps = 2, start = "uniform", clamp_start = false, batch_norm = "train_update" }
loss = { preset = "at" }
optimizer = { lr = 0.05, lr_policy = "constant" }
evaluation = { suite = ["natural", "pgd2"], selection = "none", batch = 16 }
metrics = { every = 1 }
"#;

/// A data set to make.
#[derive(Debug, Clone, Copy)]
pub struct Images {
    /// Training images.
    pub train: usize,
    /// Test images.
    pub test: usize,
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// Classes.
    pub classes: usize,
}

impl Images {
    /// `train` colour images of 16x16 pixels in four classes, and 32 test images.
    pub fn colour(train: usize) -> Self {
        Self { train, test: 32, shape: [3, 16, 16], classes: 4 }
    }

    /// Each class is a pattern of its own under noise: a network learns them within an epoch or two.
    fn split(&self, count: usize, seed: u64) -> Result<Memory> {
        let size: usize = self.shape.iter().product();
        let labels: Vec<usize> = (0..count).map(|sample| mix(seed, sample) as usize % self.classes).collect();
        let pixel = |sample: usize, element: usize| {
            // Patches of 16 neighbouring values share a brightness, which the class decides.
            let pattern = mix(labels[sample] as u64, element / 16) % 128;
            let noise = mix(seed ^ (sample as u64 + 1) << 20, element) % 96;
            (pattern + noise) as u8
        };
        let images = (0..count * size).map(|place| pixel(place / size, place % size)).collect();
        Memory::new(self.shape, self.class_names(), images, labels.iter().map(|&label| label as i64).collect())
    }

    fn class_names(&self) -> Vec<String> {
        (0..self.classes).map(|class| format!("pattern {class}")).collect()
    }
}

/// A fixed scrambling of two numbers (the finaliser of splitmix64).
fn mix(seed: u64, place: usize) -> u64 {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(place as u64 + 1);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A temporary folder, removed with everything in it at the end of a test.
pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// An empty one.
    ///
    /// # Errors
    /// A failure of the file system.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::Builder::new().prefix("iad-test-").tempdir()? })
    }

    /// A file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run folder. All are called `run`, each in a folder of its own, for metrics hold the folder's name.
    pub fn run(&self, name: &str) -> PathBuf {
        self.path(name).join("run")
    }

    /// Makes the data set `NAME.h5`.
    ///
    /// # Errors
    /// A failure of the file system.
    pub fn images(&self, name: &str, images: Images) -> Result<PathBuf> {
        let path = self.path(&format!("{name}.h5"));
        let (train, test) = (images.split(images.train, 1)?, images.split(images.test, 2)?);
        let splits = [(Split::Train, &train), (Split::Test, &test)];
        datasets::write(&path, name, "made for a test", &images.class_names(), &splits)?;
        Ok(path)
    }

    /// Writes the configuration `NAME.toml` of a short run on `data`, with `changes` of keys to values in TOML.
    ///
    /// # Errors
    /// A value that is not TOML; a failure of the file system.
    pub fn config(&self, name: &str, data: &Path, changes: &[(&str, &str)]) -> Result<PathBuf> {
        let mut table: Table = SHORT_RUN.parse()?;
        let data = format!("{:?}", data.display().to_string());
        let all = [("data.train", data.as_str()), ("data.test", &data)];
        for (key, value) in all.iter().chain(changes) {
            let value = format!("value = {value}").parse::<Table>().with_context(|| format!("{key} = {value}"))?;
            insert(&mut table, key, value["value"].clone());
        }
        let loss = table["loss"].as_table_mut().context("loss is a table")?;
        if loss.contains_key("terms") {
            loss.remove("preset");
        }
        let path = self.path(&format!("{name}.toml"));
        fs::write(&path, toml::to_string(&table)?)?;
        Ok(path)
    }

    /// A small teacher, trained adversarially on `data` for an epoch: a copy of its file of weights that a test may change.
    /// It is trained once for each data set in a test binary.
    ///
    /// # Errors
    /// It cannot be trained.
    pub fn teacher(&self, data: &Path) -> Result<PathBuf> {
        let weights = teachers::weights(data)?;
        let name = data.file_stem().and_then(|name| name.to_str()).context("a name")?;
        let folder = self.path(&format!("teacher-of-{name}"));
        fs::create_dir_all(&folder)?;
        let path = folder.join("final.safetensors");
        fs::write(&path, weights)?;
        Ok(path)
    }

    /// The changes that make a configuration IAD-I with the teacher at `weights`: resnet8, all terms.
    pub fn distil(weights: &Path) -> Vec<(&'static str, String)> {
        vec![
            ("student.architecture", "\"resnet8\"".into()),
            ("teachers.robust.checkpoint", format!("{:?}", weights.display().to_string())),
            ("loss.terms", IAD_1.into()),
        ]
    }
}

/// Sets a dotted key.
fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.into(), value)),
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// The root of the repository.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The files in `folder` and in all folders of it, sorted.
///
/// # Errors
/// A folder that cannot be read.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![folder.to_path_buf()], vec![]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}
