//! The folder of a run: what stands where, and the promise that no other configuration overwrites it.
//!
//! `run.toml` (resolved configuration), `environment.toml` (one entry per start), `metrics.jsonl`, `console.log`,
//! `logs/rank-NNNN.log` (one for each rank), `checkpoints/step-NNNNNNNN.safetensors`,
//! `checkpoints/{best,final,ema,swa}.safetensors`, `evaluation.json` and, of other weights than the best,
//! `evaluation-{final,ema,swa}.json`, `report.html`.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datasets::UserError;
use toml::{Table, Value};

use crate::checkpoint::{self, Header, Tensors, write_atomically};
use crate::config::RunConfig;

/// A run's folder.
#[derive(Debug, Clone)]
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
}

/// Keeps a second start out of the folder while it lives.
pub struct Claim {
    _lock: File,
}

impl RunFolder {
    /// The folder at `path`, which need not exist.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// Where the runs of a configuration file go without `--run`: `runs/` and the file's name.
    pub fn default_for(config: &Path) -> PathBuf {
        Path::new("runs").join(config.file_stem().unwrap_or(config.as_os_str()))
    }

    /// The last part of the path.
    pub fn name(&self) -> String {
        let name = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        name.file_name().map_or_else(|| name.display().to_string(), |name| name.to_string_lossy().into_owned())
    }

    /// A file of the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Weights by their name: `best`, `final`, `ema` or `swa`.
    pub fn weights(&self, name: &str) -> PathBuf {
        self.path.join("checkpoints").join(format!("{name}.safetensors"))
    }

    /// The evaluation of the weights a run is judged by, or of others by their name.
    pub fn evaluation(&self, others: Option<&str>) -> PathBuf {
        self.file(&others.map_or("evaluation.json".into(), |name| format!("evaluation-{name}.json")))
    }

    /// The weights to use of a finished run: the best by its selection, else the final ones.
    pub fn finished_weights(&self) -> Option<PathBuf> {
        let (best, last) = (self.weights("best"), self.weights("final"));
        last.is_file().then(|| if best.is_file() { best } else { last })
    }

    /// Whether the run of `config` in this folder has done all there is to do.
    pub fn is_finished(&self, config: &RunConfig) -> bool {
        let evaluated = config.evaluation.suite.is_empty() || self.file("evaluation.json").is_file();
        // The last line of a finished run says so; the file is small beside the time of reading a checkpoint.
        let metrics = fs::read_to_string(self.file("metrics.jsonl")).unwrap_or_default();
        let last = metrics.lines().last().unwrap_or_default();
        evaluated && self.weights("final").is_file() && last.contains("\"event\":\"finished\"")
    }

    /// The configuration a run folder holds.
    ///
    /// # Errors
    /// A [`UserError`] when it is no run folder.
    pub fn config(&self) -> Result<RunConfig> {
        let path = self.file("run.toml");
        if !path.is_file() {
            return Err(UserError::expected("a run folder, with a run.toml in it")
                .file(&self.path)
                .hint("`iad-launch CONFIG` makes one; ready runs stand in runs/")
                .into());
        }
        RunConfig::read(&path, &[])
    }

    /// Refuses a folder that holds anything but a run of `config`.
    ///
    /// # Errors
    /// A [`UserError`] that names what differs.
    pub fn check(&self, config: &RunConfig) -> Result<()> {
        let error = |expected: &str| {
            UserError::expected(expected)
                .file(&self.path)
                .hint("choose another folder with --run, or move this one away")
        };
        if !self.path.exists() {
            return Ok(());
        }
        let mut entries =
            fs::read_dir(&self.path).map_err(|problem| error("a folder that can be read").value(problem))?;
        if !self.file("run.toml").exists() {
            // A start that was killed before its first file was whole may have left these.
            let ours =
                |entry: &fs::DirEntry| ["run.lock", "run.toml.partial"].iter().any(|name| entry.file_name() == *name);
            let foreign = entries.find_map(|entry| entry.ok().filter(|entry| !ours(entry)));
            return match foreign {
                Some(entry) => {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    Err(error("an empty or new folder, or a run of this configuration")
                        .value(format!("a folder with {name} in it"))
                        .into())
                }
                None => Ok(()),
            };
        }
        let (standing, wanted) = (self.config()?.lasting(), config.lasting());
        if standing == wanted {
            return Ok(());
        }
        let (one, other) = (flat(&standing), flat(&wanted));
        let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
        let differences: Vec<String> = keys
            .filter(|key| one.get(*key) != other.get(*key))
            .map(|key| {
                let side = |table: &Table| table.get(key).map_or("nothing".to_string(), ToString::to_string);
                format!("{key} = {} there, {} now", side(&one), side(&other))
            })
            .collect();
        Err(error("a run of the same configuration").key("run.toml").value(differences.join("; ")).into())
    }

    /// Makes or reopens the folder for a run of `config`.
    ///
    /// # Errors
    /// As [`check`](Self::check); another process at work in it; anything the file system says.
    pub fn claim(&self, config: &RunConfig) -> Result<Claim> {
        self.check(config)?;
        let writable = || format!("making the run folder {}", self.path.display());
        fs::create_dir_all(&self.path).with_context(writable)?;
        let lock = File::create(self.file("run.lock")).with_context(writable)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(UserError::expected("a run folder that no other process is using")
                    .file(&self.path)
                    .hint("wait for the other run to end, or choose another folder with --run")
                    .into());
            }
            // File systems without locks exist on clusters; the lock is a courtesy.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        if !self.file("run.toml").exists() {
            write_atomically(&self.file("run.toml"), config.resolved().as_bytes())?;
        }
        let checkpoints = self.path.join("checkpoints");
        fs::create_dir_all(&checkpoints).with_context(writable)?;
        for entry in fs::read_dir(&checkpoints).with_context(writable)?.flatten() {
            // What a killed process had begun to write is of no use to anyone.
            if entry.path().extension().is_some_and(|extension| extension == "partial") {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Claim { _lock: lock })
    }

    /// Adds an entry to environment.toml.
    ///
    /// # Errors
    /// Anything the file system says.
    pub fn add_session(&self, session: &Table) -> Result<()> {
        let path = self.file("environment.toml");
        let entry =
            Table::from_iter([("session".to_string(), vec![session.clone()])].map(|(key, list)| (key, list.into())));
        let entry = toml::to_string(&entry)? + "\n";
        let written = File::options().create(true).append(true).open(&path);
        let written = written.and_then(|mut file| file.write_all(entry.as_bytes()));
        written.with_context(|| format!("writing {}", path.display()))
    }

    /// The file of the checkpoint after `step` steps.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.path.join("checkpoints").join(format!("step-{step:08}.safetensors"))
    }

    /// The checkpoints, newest first, with their numbers of steps.
    pub fn checkpoints(&self) -> Vec<(u64, PathBuf)> {
        let entries = fs::read_dir(self.path.join("checkpoints")).into_iter().flatten().flatten();
        let numbered = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let step = name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()?;
            Some((step, entry.path()))
        });
        let mut found: Vec<(u64, PathBuf)> = numbered.collect();
        found.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
        found
    }

    /// The newest checkpoint that is whole, and what was wrong with newer ones.
    pub fn newest_valid(&self) -> (Option<(Header, Tensors)>, Vec<String>) {
        let mut problems = vec![];
        for (_, path) in self.checkpoints() {
            match checkpoint::read(&path) {
                Ok(found) => return (Some(found), problems),
                Err(error) => problems.push(format!("{error:#}; going back to the one before")),
            }
        }
        (None, problems)
    }

    /// Removes all but the newest `keep` checkpoints.
    pub fn prune(&self, keep: usize) {
        for (_, path) in self.checkpoints().into_iter().skip(keep) {
            // A file that cannot be removed costs space, not correctness.
            let _ = fs::remove_file(path);
        }
    }
}

/// The configuration as one table from dotted keys to values.
pub fn flat(config: &RunConfig) -> Table {
    fn walk(prefix: &str, table: &Table, into: &mut Table) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Table(inner) => walk(&key, inner, into),
                // Lists of tables by their elements' names, so that a difference is shown alone.
                Value::Array(list) if list.iter().all(Value::is_table) => {
                    for (index, element) in list.iter().enumerate() {
                        let name =
                            element.get("name").and_then(Value::as_str).map_or(index.to_string(), str::to_string);
                        element.as_table().into_iter().for_each(|inner| walk(&format!("{key}.{name}"), inner, into));
                    }
                }
                value => drop(into.insert(key, value.clone())),
            }
        }
    }
    let mut into = Table::new();
    walk("", &config.resolved().parse().unwrap_or_default(), &mut into);
    into
}
