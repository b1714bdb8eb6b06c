//! Runs to do: checked together, then trained one after the other on the ranks of this session.

use std::collections::BTreeMap;
use std::env::current_exe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use anyhow::Result;
use comm::Session;
use toml::Table;
use trainer::agreement::{agree, ensure_same};
use trainer::checkpoint;
use trainer::config::RunConfig;
use trainer::folder::{RunFolder, flat};
use trainer::metrics::Sink;
use trainer::model::outline;
use trainer::prepare::{Prepared, prepare};
use trainer::run::{Ending, Place, Stop, train};

use crate::console::{Console, say};
use crate::rank_log::{Logged, RankLog};
use crate::{report, signals};

/// A run to do: a configuration and its folder.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// What to train.
    pub(crate) config: RunConfig,
    /// Where.
    pub(crate) folder: RunFolder,
}

/// Checks folders, data and teachers of all runs. Teachers that an earlier run makes are not there yet.
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

/// What is asked of the last of several runs; its teachers are made whole and without a trace.
#[derive(Default)]
pub(crate) struct Wishes {
    /// To stop once it has done this many steps.
    pub(crate) stop_after_steps: Option<u64>,
    /// To trace this many steps.
    pub(crate) trace: Option<u64>,
}

/// Trains the runs in this order.
///
/// # Errors
/// A failed run.
pub(crate) fn train_all(jobs: &[Job], session: &Session, wishes: &Wishes, log: &RankLog) -> Result<Ending> {
    let stop = signals::stop_flag()?;
    let mut said = BTreeMap::from([("the program's SHA-256".to_string(), checkpoint::file_sha256(&current_exe()?)?)]);
    for job in jobs {
        let folder = job.folder.path.display();
        let keys = flat(&job.config).into_iter();
        said.extend(keys.map(|(key, value)| (format!("{key} of {folder}"), value.to_string())));
    }
    ensure_same(session.ranks.as_ref(), &comm::host_name(), &said)?;
    let ranks = session.ranks.as_ref();
    jobs.iter().try_for_each(|job| agree(ranks, job.config.comm.check_transport(ranks).map_err(Into::into)))?;
    for (index, job) in jobs.iter().enumerate() {
        let none = Wishes::default();
        let wishes = if index + 1 == jobs.len() { wishes } else { &none };
        if train_job(job, session, &stop, wishes, log)? == Ending::Stopped {
            return Ok(Ending::Stopped);
        }
    }
    Ok(Ending::Finished)
}

fn train_job(job: &Job, session: &Session, stop: &Arc<AtomicBool>, wishes: &Wishes, log: &RankLog) -> Result<Ending> {
    let Job { config, folder } = job;
    let ranks = session.ranks.as_ref();
    // One rank of a node compares the images with their checksums.
    let prepared = agree(ranks, prepare(config, session.local_rank == 0))?;
    ensure_same(ranks, &comm::host_name(), &inputs(config, &prepared)?)?;
    let claim = agree(ranks, if ranks.is_leader() { folder.claim(config).map(Some) } else { Ok(None) })?;
    let finished = ranks.gather(if ranks.is_leader() && folder.is_finished(config) { "finished" } else { "" })?;
    if finished[0] == "finished" {
        if ranks.is_leader() {
            say(&format!("{} is finished; its results:", folder.path.display()));
            report::run(std::slice::from_ref(&folder.path), None, None)?;
        }
        return Ok(Ending::Finished);
    }
    log.open(&folder.path, &start_line(folder, session));
    let environment = environment(config, &prepared, folder, session)?;

    let mut silent = ();
    let mut console = None;
    if ranks.is_leader() {
        folder.add_session(&environment)?;
        let steps = prepared.train.len().div_ceil(config.batch.global(ranks.world_size()));
        let console = console.insert(Console::new(folder, config.epochs, steps as u64)?);
        let newest = folder.checkpoints().first().map_or(0, |(step, _)| *step);
        let from = if newest > 0 { format!(", going on from step {newest}") } else { String::new() };
        let place = if ranks.world_size() == 1 { "1 rank".into() } else { format!("{} ranks", ranks.world_size()) };
        console.line(&format!("{} on {place} ({:?}){from}", folder.path.display(), session.device));
    }
    let sink: &mut dyn Sink = match console.as_mut() {
        Some(console) => console,
        None => &mut silent,
    };
    let place = Place { ranks: Arc::clone(&session.ranks), device: session.device };
    let stop = Stop { requested: stop, after_steps: wishes.stop_after_steps };
    let ending = train(config, &prepared, folder, &place, &stop, wishes.trace, &mut Logged { log, rest: sink })?;
    drop(claim);
    if let Some(console) = &mut console {
        match ending {
            Ending::Finished => report::run(std::slice::from_ref(&folder.path), None, None)?,
            Ending::Stopped => console.line("stopped; the same command goes on from here"),
        }
    }
    Ok(ending)
}

/// What a rank found where the configuration told it to look.
fn inputs(config: &RunConfig, prepared: &Prepared) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::from([
        ("the network".to_string(), prepared.form.to_string()),
        ("the number of training images".to_string(), prepared.train.len().to_string()),
        ("the number of test images".to_string(), prepared.test.len().to_string()),
    ]);
    // All that travels between ranks is cut by them.
    let dtype = config.precision.dtype;
    let tensors = outline(prepared.form).into_iter();
    found.extend(tensors.map(|(name, shape)| (format!("tensor {name}"), format!("{dtype:?} {shape:?}"))));
    for (name, file) in &prepared.teachers {
        found.insert(format!("the SHA-256 of teacher {name}"), checkpoint::file_sha256(file)?);
    }
    Ok(found)
}

/// Who this rank is in this session: the first line in its log.
pub(crate) fn start_line(folder: &RunFolder, session: &Session) -> String {
    let (ranks, process) = (session.ranks.as_ref(), std::process::id());
    let step = folder.checkpoints().first().map_or(0, |(step, _)| *step);
    format!(
        "rank {} of {} on {}: process {process}, {:?}, {} threads, from step {step}",
        ranks.rank(),
        ranks.world_size(),
        comm::host_name(),
        session.device,
        session.threads
    )
}

/// What this start ran on: an entry of environment.toml.
fn environment(config: &RunConfig, prepared: &Prepared, folder: &RunFolder, session: &Session) -> Result<Table> {
    let mut table = Table::new();
    let mut insert = |key: &str, value: toml::Value| drop(table.insert(key.into(), value));
    insert("started", humantime::format_rfc3339_seconds(SystemTime::now()).to_string().into());
    insert("program", format!("iad-launch {} ({})", env!("CARGO_PKG_VERSION"), env!("IAD_COMMIT")).into());
    let command: Vec<String> = std::env::args().collect();
    insert("command", command.join(" ").into());
    insert("config_sha256", config.hash().into());
    insert("from_checkpoint", folder.checkpoints().first().map_or(0, |(step, _)| *step as i64).into());
    insert("backend", session.backend.into());
    insert("libraries", session.libraries().into());
    insert("ranks", (session.places.len() as i64).into());
    insert("places", session.places.clone().into());
    if !session.notes.is_empty() {
        insert("notes", session.notes.clone().into());
    }
    let teachers =
        prepared.teachers.iter().map(|(name, file)| Ok((name.clone(), checkpoint::file_sha256(file)?.into())));
    let teachers: Table = teachers.collect::<Result<_>>()?;
    if !teachers.is_empty() {
        insert("teachers_sha256", toml::Value::Table(teachers));
    }
    Ok(table)
}
