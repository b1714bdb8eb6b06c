//! `iad-launch CONFIG`: check everything, start the ranks, train on each.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use anyhow::Result;
use comm::Session;
use datasets::UserError;
use toml::Table;
use trainer::agreement::agree;
use trainer::checkpoint;
use trainer::config::{RunConfig, Teacher};
use trainer::folder::RunFolder;
use trainer::metrics::Sink;
use trainer::prepare::{Prepared, find_teacher, prepare};
use trainer::run::{Ending, Place, Stop, train};

use crate::command::Train;
use crate::console::{Console, say};
use crate::ranks::{LastWords, with_session};
use crate::{STOPPED, launch, report, signals};

/// A run to do: a configuration and its folder.
struct Job {
    config: RunConfig,
    folder: RunFolder,
}

/// Trains, on as many ranks as asked for.
///
/// # Errors
/// A mistake of the user, found before any rank starts; or a failed run.
pub(crate) fn run(command: &Train) -> Result<u8> {
    if !comm::started_by_mpi() {
        // All that can be wrong is told once, before ranks are started.
        let jobs = plan(command)?;
        let ranks = launch::ranks(&command.place)?;
        if ranks > 1 {
            check(&jobs)?;
            return launch::spawn(ranks);
        }
    }
    with_session(&command.place, |session, last_words| {
        let jobs = agree(session.ranks.as_ref(), plan(command).and_then(|jobs| check(&jobs).map(|()| jobs)))?;
        let stop = signals::stop_flag()?;
        for (index, job) in jobs.iter().enumerate() {
            // Only the run that was asked for stops at a given step; its teachers are made whole.
            let after_steps = command.stop_after_steps.filter(|_| index + 1 == jobs.len());
            if train_job(job, session, &stop, after_steps, last_words)? == Ending::Stopped {
                return Ok(STOPPED);
            }
        }
        Ok(0)
    })
}

/// The runs to do, teachers first. Without `--with-teachers` it is one.
fn plan(command: &Train) -> Result<Vec<Job>> {
    let config = RunConfig::read(&command.config, &command.overrides)?;
    let folder = command.run.clone().unwrap_or_else(|| RunFolder::default_for(&command.config));
    let mut jobs = vec![];
    if command.with_teachers {
        add_teachers(&config, &mut jobs, &mut vec![command.config.clone()])?;
    }
    jobs.push(Job { config, folder: RunFolder::at(&folder) });
    Ok(jobs)
}

/// Adds the runs of missing teachers, theirs before them. `path` are the configurations that led here.
fn add_teachers(config: &RunConfig, jobs: &mut Vec<Job>, path: &mut Vec<PathBuf>) -> Result<()> {
    for (name, teacher) in &config.teachers {
        let Teacher { checkpoint, config: Some(file) } = teacher else { continue };
        if find_teacher(name, teacher).is_ok() || jobs.iter().any(|job| job.folder.path == *checkpoint) {
            continue;
        }
        let error = |expected: &str| UserError::expected(expected).file(file).key(format!("teachers.{name}.config"));
        if path.contains(file) {
            return Err(error("a configuration that does not need itself as a teacher").into());
        }
        if checkpoint.extension().is_some_and(|extension| extension == "safetensors") {
            return Err(error("teachers.NAME.checkpoint to be a run folder, for --with-teachers to train it there")
                .value(checkpoint.display())
                .into());
        }
        let teacher = RunConfig::read(file, &[])?;
        path.push(file.clone());
        add_teachers(&teacher, jobs, path)?;
        path.pop();
        jobs.push(Job { config: teacher, folder: RunFolder::at(checkpoint) });
    }
    Ok(())
}

/// Checks folders, data and teachers of all runs. Teachers that an earlier run makes are not there yet.
fn check(jobs: &[Job]) -> Result<()> {
    for (index, job) in jobs.iter().enumerate() {
        job.folder.check(&job.config)?;
        let mut config = job.config.clone();
        config.teachers.retain(|_, teacher| !jobs[..index].iter().any(|made| made.folder.path == teacher.checkpoint));
        prepare(&config, false)?;
    }
    Ok(())
}

fn train_job(
    job: &Job,
    session: &Session,
    stop: &Arc<AtomicBool>,
    after_steps: Option<u64>,
    last_words: &LastWords,
) -> Result<Ending> {
    let Job { config, folder } = job;
    let ranks = session.ranks.as_ref();
    // One rank of a node compares the images with their checksums.
    let prepared = agree(ranks, prepare(config, session.local_rank == 0))?;
    let claim = agree(ranks, if ranks.is_leader() { folder.claim(config).map(Some) } else { Ok(None) })?;
    let finished = ranks.gather(if ranks.is_leader() && folder.is_finished(config) { "finished" } else { "" })?;
    if finished[0] == "finished" {
        if ranks.is_leader() {
            say(&format!("{} is finished; its results:", folder.path.display()));
            report::run(std::slice::from_ref(&folder.path), None, None)?;
        }
        return Ok(Ending::Finished);
    }
    *last_words.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(folder.path.clone());
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
    let stop = Stop { requested: stop, after_steps };
    let ending = train(config, &prepared, folder, &place, &stop, sink)?;
    drop(claim);
    if let Some(console) = &mut console {
        match ending {
            Ending::Finished => report::run(std::slice::from_ref(&folder.path), None, None)?,
            Ending::Stopped => console.line("stopped; the same command goes on from here"),
        }
    }
    Ok(ending)
}

/// What this start ran on: an entry of environment.toml.
fn environment(config: &RunConfig, prepared: &Prepared, folder: &RunFolder, session: &Session) -> Result<Table> {
    let place = format!("{}: {:?}, {} threads", comm::host_name(), session.device, session.threads);
    let hosts = session.ranks.gather(&place)?;
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
    insert("ranks", (hosts.len() as i64).into());
    insert("places", hosts.into());
    let teachers =
        prepared.teachers.iter().map(|(name, file)| Ok((name.clone(), checkpoint::file_sha256(file)?.into())));
    let teachers: Table = teachers.collect::<Result<_>>()?;
    if !teachers.is_empty() {
        insert("teachers_sha256", toml::Value::Table(teachers));
    }
    Ok(table)
}
