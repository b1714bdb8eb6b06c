//! Runs to do: checked together, then trained one after the other on the ranks of this session.

use std::collections::BTreeMap;
use std::env::current_exe;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use anyhow::Result;
use comm::Session;
use toml::Table;
use trainer::config::RunConfig;
use trainer::model::outline;
use trainer::run::changes::{Change, flat};
use trainer::run::folder::RunFolder;
use trainer::run::metrics::Sink;
use trainer::run::prepare::{Learned, Prepared, prepare};
use trainer::run::{Ending, RunContext, Stop, train};
use trainer::system::agreement::{agree, ensure_same};
use trainer::system::files::file_sha256;
use trainer::system::{Stage, Worker};

use crate::console::{Console, Logged, RankLog, say};
use crate::report;
use crate::start::{activity, recorded, set_budgets, start_line, stop_flag, without_passwords};

/// A run to do: a configuration and its folder.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// The configuration.
    pub(crate) config: RunConfig,
    /// The run folder.
    pub(crate) folder: RunFolder,
}

/// Checks folders, data and teachers of all runs. Teachers that an earlier run produces do not exist yet.
///
/// # Errors
/// A mistake of the user.
pub(crate) fn check(jobs: &[Job]) -> Result<()> {
    for (index, job) in jobs.iter().enumerate() {
        job.folder.check(&job.config)?;
        let mut config = job.config.clone();
        config.teachers.retain(|_, teacher| !jobs[..index].iter().any(|made| made.folder.path == teacher.checkpoint));
        prepare(&config, false)?;
    }
    Ok(())
}

/// The folders of the runs.
pub(crate) fn folders(jobs: &[Job]) -> Vec<PathBuf> {
    jobs.iter().map(|job| job.folder.path.clone()).collect()
}

/// Options of the last of several runs. The teachers before them train to their end and without a trace.
#[derive(Default)]
pub(crate) struct TrainOptions {
    /// How many of the runs they are for.
    pub(crate) students: usize,
    /// Stop after this many steps.
    pub(crate) stop_after_steps: Option<u64>,
    /// Trace this many steps.
    pub(crate) trace: Option<u64>,
}

/// Trains the runs in this order.
///
/// # Errors
/// A failed run.
pub(crate) fn train_all(jobs: &[Job], session: &Session, options: &TrainOptions, log: &RankLog) -> Result<Ending> {
    let stop = stop_flag();
    let mut said = BTreeMap::from([("the program's SHA-256".to_string(), file_sha256(&current_exe()?)?)]);
    for job in jobs {
        let folder = job.folder.path.display();
        let keys = flat(&job.config).into_iter();
        said.extend(keys.map(|(key, value)| (format!("{key} of {folder}"), value.to_string())));
    }
    ensure_same(session.ranks.as_ref(), &comm::host_name(), &said)?;
    let ranks = session.ranks.as_ref();
    jobs.iter().try_for_each(|job| agree(ranks, job.config.comm.check_transport(ranks).map_err(Into::into)))?;
    for (index, job) in jobs.iter().enumerate() {
        if stop_agreed(session, &stop)? {
            return Ok(stopped_before(session));
        }
        let none = TrainOptions::default();
        let options = if index + options.students >= jobs.len() { options } else { &none };
        if train_job(job, session, &stop, options, log)? == Ending::Stopped {
            return Ok(Ending::Stopped);
        }
    }
    Ok(Ending::Finished)
}

/// Whether any rank has been asked to stop.
fn stop_agreed(session: &Session, stop: &AtomicBool) -> Result<bool> {
    let mut asked = [f64::from(u8::from(stop.load(Ordering::Relaxed)))];
    session.ranks.sum(&mut asked)?;
    Ok(asked[0] > 0.0)
}

fn stopped_before(session: &Session) -> Ending {
    if session.ranks.is_leader() {
        say("stopped before training began; the same command goes on from here");
    }
    Ending::Stopped
}

fn train_job(
    job: &Job,
    session: &Session,
    stop: &Arc<AtomicBool>,
    options: &TrainOptions,
    log: &RankLog,
) -> Result<Ending> {
    let Job { config, folder } = job;
    let ranks = session.ranks.as_ref();
    set_budgets(config.watchdog);
    activity().begin(Stage::Start, 0);
    // One rank of a node compares the images with their checksums.
    let prepared = agree(ranks, prepare(config, session.local_rank == 0))?;
    ensure_same(ranks, &comm::host_name(), &inputs(config, &prepared)?)?;
    // A finished run is only read, on any disk.
    let finished =
        || folder.check(config).map(|changes| !changes.iter().any(Change::asks_for_more) && folder.is_finished(config));
    let finished = agree(ranks, if ranks.is_leader() { finished() } else { Ok(false) })?;
    if ranks.gather(if finished { "finished" } else { "" })?[0] == "finished" {
        if ranks.is_leader() {
            say(&format!("{} is finished; its results:", folder.path.display()));
            report::show_results(&folder.path)?;
        }
        return Ok(Ending::Finished);
    }
    let claim = || folder.claim(config, &contents(&prepared)?).map(Some);
    let claim = agree(ranks, if ranks.is_leader() { claim() } else { Ok(None) })?;
    log.open(&folder.path, &start_line(folder, session));
    let environment = environment(config, &prepared, folder, session)?;

    let mut silent = ();
    let mut console = None;
    if ranks.is_leader() {
        folder.add_session(&environment)?;
        let steps = prepared.train.len().div_ceil(config.batch.global(ranks.world_size()));
        let console = console.insert(Console::new(folder, config.epochs, steps as u64)?);
        let place = if ranks.world_size() == 1 { "1 rank".into() } else { format!("{} ranks", ranks.world_size()) };
        console.line(&format!("{} on {place} ({})", folder.path.display(), device(session)));
        for warning in folder.put_torn_evaluations_aside()? {
            console.line(&format!("warning: {warning}"));
        }
    }
    let sink: &mut dyn Sink = match console.as_mut() {
        Some(console) => console,
        None => &mut silent,
    };
    let place = Worker { ranks: Arc::clone(&session.ranks), device: session.device, activity: activity() };
    let stop = Stop { requested: stop, after_steps: options.stop_after_steps };
    let context = RunContext { config, prepared: &prepared, folder, place: &place, stop, trace: options.trace };
    let ending = train(&context, &mut Logged { log, activity: activity(), rest: sink })?;
    drop(claim);
    if let Some(console) = &mut console {
        match ending {
            Ending::Finished => report::show_results(&folder.path)?,
            Ending::Stopped => console.line("stopped; the same command goes on from here"),
        }
    }
    Ok(ending)
}

/// `CPU` or `GPU 0`.
fn device(session: &Session) -> String {
    format!("{:?}", session.device).replace("Cpu", "CPU").replace("Cuda(", "GPU ").replace(')', "")
}

/// This rank's view of the inputs that the configuration names.
fn inputs(config: &RunConfig, prepared: &Prepared) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::from([
        ("the network".to_string(), prepared.form.to_string()),
        ("the number of training images".to_string(), prepared.train.len().to_string()),
        ("the number of test images".to_string(), prepared.test.len().to_string()),
    ]);
    if let Some(extra) = &prepared.extra {
        found.insert("the number of images of data.extra".into(), extra.source.len().to_string());
    }
    // The shapes determine every message between ranks.
    let dtype = config.precision.dtype;
    let tensors = outline(prepared.form).into_iter();
    found.extend(tensors.map(|(name, shape)| (format!("tensor {name}"), format!("{dtype:?} {shape:?}"))));
    for (name, learned) in &prepared.learners {
        let tensors = outline(learned.form).into_iter();
        found
            .extend(tensors.map(|(tensor, shape)| (format!("tensor {name}/{tensor}"), format!("{dtype:?} {shape:?}"))));
    }
    for (key, file) in initial_files(prepared) {
        found.insert(format!("the SHA-256 of {key}"), file_sha256(file)?);
    }
    for (name, file) in &prepared.teachers {
        found.insert(format!("the SHA-256 of teacher {name}"), file_sha256(file)?);
    }
    Ok(found)
}

/// The files of the weights that networks begin with, by their keys.
fn initial_files(prepared: &Prepared) -> impl Iterator<Item = (String, &Path)> {
    let student = prepared.initial.iter().map(|initial| ("student.checkpoint".to_string(), initial.file.as_path()));
    let learners = prepared.learners.iter().filter_map(|(name, Learned { initial, .. })| {
        Some((format!("learners.{name}.checkpoint"), initial.as_ref()?.file.as_path()))
    });
    student.chain(learners)
}

/// SHA-256 of the contents of images and teachers, by what they are of.
fn contents(prepared: &Prepared) -> Result<BTreeMap<String, String>> {
    let mut contents = prepared.sha256.clone();
    for (key, file) in initial_files(prepared) {
        contents.insert(format!("the weights of {key}"), file_sha256(file)?);
    }
    for (name, file) in &prepared.teachers {
        contents.insert(format!("the weights of teachers.{name}"), file_sha256(file)?);
    }
    Ok(contents)
}

/// The environment of this session: an entry of environment.toml.
fn environment(config: &RunConfig, prepared: &Prepared, folder: &RunFolder, session: &Session) -> Result<Table> {
    let mut table = Table::new();
    let mut insert = |key: &str, value: toml::Value| drop(table.insert(key.into(), value));
    insert("started", humantime::format_rfc3339_seconds(SystemTime::now()).to_string().into());
    insert("program", format!("iad-launch {} ({})", env!("CARGO_PKG_VERSION"), env!("IAD_COMMIT")).into());
    let command: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    insert("command", without_passwords(&command.join(" ")).into());
    insert("config_sha256", config.hash().into());
    insert("from_checkpoint", folder.checkpoints().first().map_or(0, |(step, _)| *step as i64).into());
    insert("backend", session.backend.into());
    insert("libraries", session.libraries().into());
    insert("precision", config.precision.at_work(session.device).into());
    insert("ranks", (session.places.len() as i64).into());
    insert("places", session.places.clone().into());
    if !session.notes.is_empty() {
        insert("notes", session.notes.clone().into());
    }
    if let Some(initial) = &prepared.initial {
        insert("student_sha256", file_sha256(&initial.file)?.into());
    }
    let teachers = prepared.teachers.iter().map(|(name, file)| Ok((name.clone(), file_sha256(file)?.into())));
    let teachers: Table = teachers.collect::<Result<_>>()?;
    if !teachers.is_empty() {
        insert("teachers_sha256", toml::Value::Table(teachers));
    }
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    insert("variables", toml::Value::Table(recorded(std::env::vars_os().filter_map(text))));
    Ok(table)
}
