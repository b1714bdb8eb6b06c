//! A table with everything resolved: each row's configurations, run folders, teachers and published numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use datasets::UserError;
use trainer::config::{Override, RunConfig};
use trainer::run::folder::RunFolder;

use super::file::{self, Block, CostMetric, DatasetSize, RowEntry, TableFile};
use super::published::{Number, Published, PublishedKey};
use crate::train::Job;

/// A table.
#[derive(Debug)]
pub(super) struct PaperTable {
    /// Its file.
    pub(super) path: PathBuf,
    /// Its title.
    pub(super) title: String,
    /// Notes for the reader.
    pub(super) notes: Vec<String>,
    /// The rows, including teachers that are no rows of the paper.
    pub(super) rows: Vec<Row>,
}

/// A row.
#[derive(Debug)]
pub(super) struct Row {
    /// Its name.
    pub(super) name: String,
    /// The data set.
    pub(super) dataset: String,
    /// The network.
    pub(super) model: String,
    /// The paper's name of the method.
    pub(super) method: String,
    /// The paper's name of the robust teacher.
    pub(super) teacher: String,
    /// The difference from rows of the same method and teacher.
    pub(super) variant: String,
    /// Whether it is a row of the paper's table.
    pub(super) shown: bool,
    /// The indices of its teachers among the table's rows.
    pub(super) teachers: Vec<usize>,
    /// The size of its data set, if stated.
    pub(super) size: Option<DatasetSize>,
    /// The paper's numbers.
    pub(super) numbers: Vec<Number>,
    /// The data set and network of the paper's numbers, if they differ from this row's.
    pub(super) elsewhere: Option<String>,
    /// The numbers to show that are no accuracies.
    pub(super) costs: Vec<CostMetric>,
    /// Its runs, one for each seed.
    pub(super) runs: Vec<PlannedRun>,
}

/// A run of a row.
#[derive(Debug)]
pub(super) struct PlannedRun {
    /// Its name: the row's, and the seed unless it is 1.
    pub(super) name: String,
    /// Its configuration and folder.
    pub(super) job: Job,
}

/// The command's changes of a table.
pub(super) struct Changes<'a> {
    /// The folder of its run folders.
    pub(super) runs: &'a Path,
    /// The seeds, if they are not the table's.
    pub(super) seeds: &'a [u64],
    /// Overrides of all rows.
    pub(super) overrides: &'a [Override],
}

impl PaperTable {
    /// Reads a table, its base run files and the published numbers. No image is read.
    ///
    /// # Errors
    /// A [`UserError`] that names the file, the row or key, and what was expected.
    pub(super) fn read(path: &Path, changes: &Changes) -> Result<Self> {
        let file: TableFile = file::read(path)?;
        let beside = |other: &PathBuf| path.parent().unwrap_or(Path::new("")).join(other);
        let sizes: BTreeMap<String, DatasetSize> =
            file.datasets.as_ref().map(|sizes| file::read(&beside(sizes))).transpose()?.unwrap_or_default();
        let published = file.published.as_ref().map(|published| Published::read(&beside(published))).transpose()?;
        let entries: Vec<(&Block, &RowEntry)> =
            file.blocks.iter().flat_map(|block| block.rows.iter().map(move |row| (block, row))).collect();
        check_names(path, &entries)?;
        let seeds = if changes.seeds.is_empty() { &file.seeds } else { changes.seeds };
        check_seeds(path, seeds)?;
        let mut rows = vec![];
        for (block, entry) in &entries {
            let resolved = Resolve { path, file: &file, block, entry, changes, entries: &entries };
            rows.push(resolved.row(seeds, sizes.get(&block.dataset), published.as_ref())?);
        }
        let table = Self { path: path.to_path_buf(), title: file.title.clone(), notes: file.notes.clone(), rows };
        table.check_runs()?;
        table.check_circles()?;
        Ok(table)
    }

    /// The length of the chain of teachers above a row; 0 for rows without teachers.
    pub(super) fn depth(&self, row: usize) -> usize {
        self.rows[row].teachers.iter().map(|&teacher| self.depth(teacher) + 1).max().unwrap_or(0)
    }

    /// A row must not have the name of another row's run with a seed.
    fn check_runs(&self) -> Result<(), UserError> {
        let names: Vec<&String> = self.rows.iter().flat_map(|row| &row.runs).map(|run| &run.name).collect();
        match names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
            None => Ok(()),
            Some((_, name)) => Err(UserError::expected("a run folder of its own for each row and seed")
                .file(&self.path)
                .key("blocks.rows.name")
                .value(format!("{name:?}, twice"))),
        }
    }

    fn check_circles(&self) -> Result<(), UserError> {
        for start in 0..self.rows.len() {
            let mut waiting = self.rows[start].teachers.clone();
            let mut seen = vec![];
            while let Some(row) = waiting.pop() {
                if row == start {
                    return Err(UserError::expected("teachers that do not learn from their student")
                        .file(&self.path)
                        .key(format!("row {}: teachers", self.rows[start].name)));
                }
                if !seen.contains(&row) {
                    seen.push(row);
                    waiting.extend(&self.rows[row].teachers);
                }
            }
        }
        Ok(())
    }
}

fn full_name(block: &Block, entry: &RowEntry) -> String {
    format!("{}{}", block.prefix, entry.name)
}

fn check_names(path: &Path, entries: &[(&Block, &RowEntry)]) -> Result<(), UserError> {
    let error = |expected: &str, name: &str| {
        UserError::expected(expected).file(path).key("blocks.rows.name").value(format!("{name:?}"))
    };
    let mut names = vec![];
    for name in entries.iter().map(|(block, entry)| full_name(block, entry)) {
        let plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(error("a name of letters, digits, - and _: it becomes a folder", &name));
        }
        if names.contains(&name) {
            return Err(error("a name of its own for each row", &name));
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(UserError::expected("at least one row").file(path).key("blocks"));
    }
    Ok(())
}

fn check_seeds(path: &Path, seeds: &[u64]) -> Result<(), UserError> {
    let different = seeds.iter().enumerate().all(|(index, seed)| !seeds[..index].contains(seed));
    if different && !seeds.is_empty() {
        return Ok(());
    }
    Err(UserError::expected("one or more different seeds").file(path).key("seeds").value(format!("{seeds:?}")))
}

/// The name of a row's run and of its folder. Seed 1 adds nothing, so that more seeds can be added later.
fn run_name(row: &str, seed: u64) -> String {
    if seed == 1 { row.to_string() } else { format!("{row}-seed{seed}") }
}

/// A row and everything that its configuration depends on.
struct Resolve<'a> {
    path: &'a Path,
    file: &'a TableFile,
    block: &'a Block,
    entry: &'a RowEntry,
    changes: &'a Changes<'a>,
    entries: &'a [(&'a Block, &'a RowEntry)],
}

impl Resolve<'_> {
    fn row(&self, seeds: &[u64], size: Option<&DatasetSize>, published: Option<&Published>) -> Result<Row> {
        let Self { block, entry, .. } = *self;
        let name = full_name(block, entry);
        let mut runs = vec![];
        for &seed in seeds {
            let name = run_name(&name, seed);
            let folder = RunFolder::at(&self.changes.runs.join(&name));
            runs.push(PlannedRun { name, job: Job { config: self.config(seed)?, folder } });
        }
        let dataset = block.published_dataset.clone().unwrap_or_else(|| block.dataset.clone());
        let model = block.published_model.clone().unwrap_or_else(|| block.model.clone());
        let elsewhere =
            ((&dataset, &model) != (&block.dataset, &block.model)).then(|| format!("{dataset} with {model}"));
        let mut numbers = vec![];
        if let Some(published) = published.filter(|_| entry.shown) {
            let table = self.file.table.ok_or_else(|| {
                UserError::expected("the number of the table in the file of published numbers")
                    .file(self.path)
                    .key("table")
                    .value("missing")
            })?;
            let [teacher, method, variant] = [&entry.teacher, &entry.method, &entry.variant].map(String::clone);
            numbers = published
                .row(&PublishedKey { table, dataset, model, teacher, method, variant })
                .map_err(|error| error.file(self.path).key(format!("row {name}")))?;
        }
        Ok(Row {
            dataset: block.dataset.clone(),
            model: block.model.clone(),
            method: entry.method.clone(),
            teacher: entry.teacher.clone(),
            variant: entry.variant.clone(),
            shown: entry.shown,
            teachers: entry.teachers.values().map(|teacher| self.place_of(teacher)).collect::<Result<_, _>>()?,
            size: size.cloned(),
            costs: self.file.costs.clone(),
            numbers,
            elsewhere,
            runs,
            name,
        })
    }

    fn place_of(&self, teacher: &str) -> Result<usize, UserError> {
        // Within its block, like every name there.
        let name = format!("{}{teacher}", self.block.prefix);
        self.entries.iter().position(|(block, entry)| full_name(block, entry) == name).ok_or_else(|| {
            UserError::expected("the name of a row of this table, without the block's prefix")
                .file(self.path)
                .key(format!("row {}: teachers", full_name(self.block, self.entry)))
                .value(format!("{teacher:?}"))
        })
    }

    /// The row's configuration with a seed: its base, then the overrides of the table, the block, the row and the
    /// command.
    fn config(&self, seed: u64) -> Result<RunConfig> {
        let Self { path, file, block, entry, changes, .. } = *self;
        let row = format!("row {}", full_name(block, entry));
        let base = path.parent().unwrap_or(Path::new("")).join(&entry.base);
        let mut overrides = file::overrides(&file.set, path, "set")?;
        overrides.extend(file::overrides(&block.set, path, "blocks.set")?);
        overrides.extend(file::overrides(&entry.set, path, &format!("{row}: set"))?);
        overrides.push(Override { key: "seed".into(), value: seed.to_string() });
        overrides.push(Override { key: "teachers".into(), value: self.teachers(seed) });
        overrides.extend(changes.overrides.iter().cloned());
        let read = RunConfig::read(&base, &overrides).map(|config| config.of_seed(config.seed));
        read.map_err(|error| {
            let fits = RunConfig::read(&base, &[]).is_ok();
            match error.downcast::<UserError>() {
                // The run file itself is valid; the changes of this table are not.
                Ok(mut error) if fits => {
                    let key = error.key.take().map_or(row.clone(), |key| format!("{row}: {key}"));
                    error.file(path).key(key).into()
                }
                Ok(error) => error.into(),
                Err(error) => error.context(row),
            }
        })
    }

    /// The `teachers` table of a run with this seed, in TOML.
    fn teachers(&self, seed: u64) -> String {
        let folder = |teacher: &String| {
            let name = run_name(&format!("{}{teacher}", self.block.prefix), seed);
            self.changes.runs.join(name).display().to_string()
        };
        let one = |(name, teacher): (&String, &String)| {
            let checkpoint = [("checkpoint".to_string(), folder(teacher).into())];
            (name.clone(), toml::Value::Table(checkpoint.into_iter().collect()))
        };
        toml::Value::Table(self.entry.teachers.iter().map(one).collect()).to_string()
    }
}
