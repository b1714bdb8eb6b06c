//! A table of the paper, read from its file: rows of a base run and overrides, in blocks of one data set and network.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use datasets::UserError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use trainer::config::Override;
use trainer::system::files::{in_words, read_text};

/// The folder of named tables.
const TABLES: &str = "configs/paper";

/// A table file. Its paths are relative to its folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableFile {
    /// Its title.
    pub(super) title: String,
    /// The number of the table in the file of published numbers.
    #[serde(default)]
    pub(super) table: Option<u32>,
    /// The published numbers; without them nothing is compared.
    #[serde(default)]
    pub(super) published: Option<PathBuf>,
    /// Sizes of the data sets, for estimates of cost.
    #[serde(default)]
    pub(super) datasets: Option<PathBuf>,
    /// The seeds of every row.
    #[serde(default = "one_seed")]
    pub(super) seeds: Vec<u64>,
    /// Overrides of every row, in the form of `--set`.
    #[serde(default)]
    pub(super) set: Vec<String>,
    /// Numbers of the runs to show beside accuracies: `seconds_per_epoch`, `peak_memory_mib`, `pflop` (counted operations of
    /// training).
    #[serde(default)]
    pub(super) costs: Vec<CostMetric>,
    /// Notes for the reader of the comparison.
    #[serde(default)]
    pub(super) notes: Vec<String>,
    /// The rows.
    pub(super) blocks: Vec<Block>,
}

/// A number of a run that is no accuracy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CostMetric {
    /// The median training time of an epoch.
    SecondsPerEpoch,
    /// The most memory of any rank.
    PeakMemoryMib,
    /// Operations of training, as counted.
    Pflop,
}

impl CostMetric {
    const ALL: [Self; 3] = [Self::SecondsPerEpoch, Self::PeakMemoryMib, Self::Pflop];

    /// The one of this name among the metrics.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cost| cost.name() == name)
    }

    /// Its name among the metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SecondsPerEpoch => "seconds_per_epoch",
            Self::PeakMemoryMib => "peak_memory_mib",
            Self::Pflop => "pflop",
        }
    }
}

fn one_seed() -> Vec<u64> {
    vec![1]
}

/// Rows of one data set and network.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Block {
    /// The data set, by its name in the file of sizes.
    pub(super) dataset: String,
    /// The network.
    pub(super) model: String,
    /// The data set of the published numbers, if it is another one.
    #[serde(default)]
    pub(super) published_dataset: Option<String>,
    /// The network of the published numbers, if it is another one.
    #[serde(default)]
    pub(super) published_model: Option<String>,
    /// The prefix of its rows' names.
    #[serde(default)]
    pub(super) prefix: String,
    /// Overrides of its rows, after those of the table.
    #[serde(default)]
    pub(super) set: Vec<String>,
    /// The rows.
    pub(super) rows: Vec<RowEntry>,
}

/// A row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RowEntry {
    /// Its name, without the block's prefix; with it, also the name of its run folder.
    pub(super) name: String,
    /// Its base run file.
    pub(super) base: PathBuf,
    /// The rows of its teachers, by the names in its loss.
    #[serde(default)]
    pub(super) teachers: BTreeMap<String, String>,
    /// Overrides, after those of the block.
    #[serde(default)]
    pub(super) set: Vec<String>,
    /// The paper's name of the method.
    pub(super) method: String,
    /// The paper's name of the robust teacher.
    #[serde(default = "no_teacher")]
    pub(super) teacher: String,
    /// The difference from rows of the same method and teacher.
    #[serde(default = "main_variant")]
    pub(super) variant: String,
    /// Whether it is a row of the paper's table; else it is only a teacher.
    #[serde(default = "yes")]
    pub(super) shown: bool,
}

fn no_teacher() -> String {
    "none".into()
}

fn main_variant() -> String {
    "main".into()
}

fn yes() -> bool {
    true
}

/// The size of a data set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatasetSize {
    /// Channels, height and width of an image.
    pub(super) image: [usize; 3],
    /// The number of classes.
    pub(super) classes: usize,
    /// The number of training images.
    pub(super) train: usize,
    /// The number of test images.
    pub(super) test: usize,
}

/// The file of a table: a name in configs/paper, or a path.
///
/// # Errors
/// A [`UserError`] with the known names.
pub(super) fn find(table: &Path) -> Result<PathBuf> {
    if table.extension().is_some_and(|extension| extension == "toml") || table.is_file() {
        return Ok(table.to_path_buf());
    }
    let named = Path::new(TABLES).join(table).with_extension("toml");
    if named.is_file() {
        return Ok(named);
    }
    let entries = fs::read_dir(TABLES).into_iter().flatten().flatten().map(|entry| entry.path());
    let tables = entries.filter(|path| read_text(path).is_ok_and(|text| text.contains("[[blocks]]")));
    let mut names: Vec<String> =
        tables.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    // table2 before table10.
    names.sort_by_key(|name| (name.len(), name.clone()));
    let expected = match names.as_slice() {
        [] => "the path of a table file".to_string(),
        names => format!("one of {}, or the path of a table file", names.join(", ")),
    };
    let hint = format!("tables are looked up in {TABLES}/ of the current directory: start where that is");
    let error = UserError::expected(expected).key("the table").value(table.display()).hint(hint);
    Err(error.did_you_mean(&table.to_string_lossy(), names.iter().map(String::as_str)).into())
}

/// Reads a TOML file into `T`.
///
/// # Errors
/// A [`UserError`] that names the file, the key and what was expected.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_text(path)
        .map_err(|error| UserError::expected("a readable file").file(path).key("the file").value(in_words(&error)))?;
    toml::from_str(&text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(before).filter(|byte| *byte == b'\n').count() + 1;
        let expected = error.message().trim_end().replace('\n', "; ");
        UserError::expected(format!("a valid file ({expected})"))
            .file(path)
            .key(format!("line {line}"))
            .hint("docs/paper.md explains the keys of a table")
            .into()
    })
}

/// The overrides in these texts.
///
/// # Errors
/// A [`UserError`] that names the text.
pub(super) fn overrides(texts: &[String], place: &Path, key: &str) -> Result<Vec<Override>, UserError> {
    let parsed = |text: &String| {
        text.parse().map_err(|_| {
            UserError::expected("KEY=VALUE, as in optimizer.lr=0.05").file(place).key(key).value(format!("{text:?}"))
        })
    };
    texts.iter().map(parsed).collect()
}
