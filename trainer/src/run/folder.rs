//! The folder of a run: its files, and the refusal of any other configuration.
//!
//! `run.toml` (resolved configuration), `run-N.toml` (what it held before its Nth change), `inputs.toml` (format, contents of the inputs), `environment.toml` (one entry per start), `metrics.jsonl`, `console.log`,
//! `logs/rank-NNNN.log` (one for each rank), `checkpoints/step-NNNNNNNN.safetensors`,
//! `checkpoints/{best,final,ema,swa}.safetensors`, `evaluation.json` and, of other weights than the best,
//! `evaluation-{final,ema,swa}.json`, `examples.safetensors` (a few images under attack), `report.html`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datasets::UserError;
use serde_json::Value;
use toml::Table;

use crate::config::RunConfig;
use crate::run::changes::{Change, changes};
use crate::run::inputs;
use crate::system::files::{ensure_regular, in_words, read_regular, write_atomically};

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

    /// Where the runs of a configuration go without `--run`: for a file, `runs/` and its name; a run folder is its own.
    pub fn default_for(config: &Path) -> PathBuf {
        if config.is_dir() {
            return config.to_path_buf();
        }
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

    /// The images under attack that the run kept for people to look at.
    pub fn examples(&self) -> PathBuf {
        self.file("examples.safetensors")
    }

    /// The weights to use of a finished run: the best by its selection, else the final ones.
    pub fn finished_weights(&self) -> Option<PathBuf> {
        let (best, last) = (self.weights("best"), self.weights("final"));
        last.is_file().then(|| if best.is_file() { best } else { last })
    }

    /// Whether the run of `config` in this folder has done all there is to do.
    pub fn is_finished(&self, config: &RunConfig) -> bool {
        let evaluated = config.evaluation.suite.is_empty() || self.file("evaluation.json").is_file();
        evaluated
            && self.weights("final").is_file()
            && self.has_done_steps_of(config.epochs)
            && self.torn_evaluations().is_empty()
    }

    /// Whether the last event says that the run finished, after as many steps as `epochs` have. A run that became longer can
    /// be killed before its first new event.
    fn has_done_steps_of(&self, epochs: u64) -> bool {
        // The file is small beside the time of reading a checkpoint.
        let metrics = read_regular(&self.file("metrics.jsonl")).unwrap_or_default();
        let metrics = String::from_utf8(metrics).unwrap_or_default();
        let event = |line: Option<&str>| serde_json::from_str::<Value>(line.unwrap_or_default()).unwrap_or_default();
        let (first, last) = (event(metrics.lines().next()), event(metrics.lines().last()));
        let wanted = first["steps_per_epoch"].as_u64().map_or(0, |steps| steps.saturating_mul(epochs));
        last["event"] == "finished" && last["step"].as_u64().is_none_or(|step| step >= wanted)
    }

    /// The evaluations of this run that are cut off or damaged.
    fn torn_evaluations(&self) -> Vec<PathBuf> {
        let names = [None, Some("final"), Some("ema"), Some("swa")];
        let torn = |path: &PathBuf| {
            read_regular(path).is_ok_and(|bytes| serde_json::from_slice::<serde_json::Map<_, _>>(&bytes).is_err())
        };
        names.into_iter().map(|name| self.evaluation(name)).filter(torn).collect()
    }

    /// Moves damaged evaluations out of the way, so that they are made again. Returns a warning for each.
    ///
    /// # Errors
    /// An I/O error.
    pub fn put_torn_evaluations_aside(&self) -> Result<Vec<String>> {
        let aside = |path: PathBuf| {
            let aside = path.with_extension("json.damaged");
            fs::rename(&path, &aside).with_context(|| format!("renaming {}", path.display()))?;
            Ok(format!("{} is damaged: it is now {}, and is made again", path.display(), aside.display()))
        };
        self.torn_evaluations().into_iter().map(aside).collect()
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

    /// Refuses a folder that holds anything but a run that can be resumed with `config`. Returns the keys that change.
    ///
    /// # Errors
    /// A [`UserError`] that names what differs.
    pub fn check(&self, config: &RunConfig) -> Result<Vec<Change>> {
        let error = |expected: &str| {
            UserError::expected(expected)
                .file(&self.path)
                .hint("choose another folder with --run, or move this one away")
        };
        if !self.path.exists() {
            if self.path.is_symlink() {
                return Err(error("a folder, or nothing yet").value("a link to nothing, or in a circle").into());
            }
            return Ok(vec![]);
        }
        let mut entries =
            fs::read_dir(&self.path).map_err(|problem| error("a folder that can be read").value(in_words(&problem)))?;
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
                None => Ok(vec![]),
            };
        }
        let inputs_known = self.file("inputs.toml").exists();
        changes(&self.config()?, config, inputs_known).map_err(|refused| {
            let hint = "choose another folder with --run, or move this one away; docs/durability.md lists the keys that may change";
            error("a run of the same configuration").key("run.toml").value(refused.join("; ")).hint(hint).into()
        })
    }

    /// The configurations of earlier starts that `run.toml` replaced, newest first.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn earlier_configs(&self) -> Result<Vec<RunConfig>> {
        let all = (1..).map(|number| self.earlier_config(number)).take_while(|path| path.exists());
        let mut all = all.map(|path| RunConfig::read(&path, &[])).collect::<Result<Vec<_>>>()?;
        all.reverse();
        Ok(all)
    }

    /// Where the configuration is that `run.toml` held before its `number`-th change.
    fn earlier_config(&self, number: usize) -> PathBuf {
        self.file(&format!("run-{number}.toml"))
    }

    /// Keeps the old `run.toml` beside the new one.
    fn replace_config(&self, config: &RunConfig) -> Result<()> {
        let path = self.file("run.toml");
        let aside = (1..).map(|number| self.earlier_config(number)).find(|path| !path.exists());
        let old = read_regular(&path).with_context(|| format!("reading {}", path.display()))?;
        write_atomically(&aside.unwrap_or_default(), &old)?;
        write_atomically(&path, config.resolved().as_bytes())
    }

    /// Makes or reopens the folder for a run of `config`.
    ///
    /// # Errors
    /// As [`check`](Self::check); another process at work in it; other `contents` of the inputs (SHA-256 by what they are of)
    /// than at the first start; an I/O error.
    pub fn claim(&self, config: &RunConfig, contents: &BTreeMap<String, String>) -> Result<Claim> {
        let changes = self.check(config)?;
        let writable = || format!("making the run folder {}", self.path.display());
        fs::create_dir_all(&self.path).with_context(writable)?;
        let lock = self.file("run.lock");
        // Opening a pipe would wait for its other end.
        let known =
            ensure_regular(&lock).or_else(|error| (error.kind() == ErrorKind::NotFound).then_some(()).ok_or(error));
        let lock = known.and_then(|()| File::create(lock)).with_context(writable)?;
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
        let known = self.file("inputs.toml");
        inputs::compare(&known, contents)?;
        if !self.file("run.toml").exists() {
            write_atomically(&self.file("run.toml"), config.resolved().as_bytes())?;
        } else if !changes.is_empty() {
            self.replace_config(config)?;
        }
        inputs::record(&known, contents)?;
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
    /// An I/O error.
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

    /// The checkpoints, newest first, with their numbers of steps; none where they cannot be listed.
    pub fn checkpoints(&self) -> Vec<(u64, PathBuf)> {
        self.list_checkpoints().unwrap_or_default()
    }

    /// The checkpoints, newest first, with their numbers of steps.
    ///
    /// # Errors
    /// A folder that is there and cannot be read.
    pub fn list_checkpoints(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let entries = match fs::read_dir(self.path.join("checkpoints")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
            entries => entries?.collect::<io::Result<Vec<_>>>()?,
        };
        let numbered = entries.iter().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let step = name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()?;
            Some((step, entry.path()))
        });
        let mut found: Vec<(u64, PathBuf)> = numbered.collect();
        found.sort_by_key(|(step, _)| Reverse(*step));
        Ok(found)
    }
}
