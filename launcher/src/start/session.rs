//! The session of a command on its ranks: join, agree on errors, then leave or end all ranks.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

use anyhow::Result;
use comm::{Communicator, Refusal, Request, Session, World};
use datasets::UserError;
use trainer::config::Comm;
use trainer::run::folder::RunFolder;
use trainer::system::agreement::{Agreed, agree};
use trainer::system::memory::out_of_memory;
use trainer::system::{Stage, Watched};

use super::beat::Beat;
use super::control::Line;
use super::deadline::Deadline;
use super::environment::{AGAIN, PARENT, is_under_typed_hydra, variable};
use super::{announced, heartbeat, watch};
use crate::command::LaunchArgs;
use crate::console::{self, RankLog};
use crate::exit::{STOPPED, exit_code};

/// Joins the ranks over the configured `transport`, does `work`, and leaves. The leader prints an error that all ranks have; an
/// error of this rank alone ends every rank, with this rank's message.
///
/// # Errors
/// That of `work`, or of joining.
pub(crate) fn with_session(
    launch: &LaunchArgs,
    transport: impl FnOnce() -> Result<Comm>,
    work: impl FnOnce(&Session, &RankLog) -> Result<u8>,
) -> Result<u8> {
    let log = Arc::new(RankLog::new(comm::launcher_rank().unwrap_or(0)));
    watch::start(&log, Deadline::of(launch));
    // MPI sets variables of its own when it finds no launcher.
    let environment: BTreeMap<_, _> = std::env::vars_os().collect();
    let variables = |name: &str| environment.get(OsStr::new(name))?.to_str().map(str::to_string);
    let mut session = join(launch, transport, &log)?;
    session.ranks = Arc::new(Watched::new(session.ranks, watch::activity()));
    let ranks = Arc::clone(&session.ranks);
    if ranks.is_leader() {
        session.notes.iter().for_each(|note| console::say(note));
        session.map.iter().for_each(|line| console::tell(line));
    }
    abort_on_panic(Arc::clone(&ranks), Arc::clone(&log));
    inject(launch, ranks.rank(), &log);
    let result = agree(ranks.as_ref(), check_world(launch, &session, variables))
        .and_then(|()| heartbeat::start(ranks.as_ref(), &log))
        .and_then(|()| work(&session, &log));
    let agreed = |error: &anyhow::Error| error.downcast_ref::<Agreed>().is_some();
    match result {
        Err(error) if ranks.world_size() > 1 && !agreed(&error) => {
            fail(ranks.as_ref(), &log, &format!("{error:#}"));
        }
        Err(error) => {
            // Before leaving: once another rank is gone with an exit code, mpirun may end this one.
            let text = format!("{error:#}");
            if ranks.is_leader() && announced::speaks(variables) {
                log.last_words(&text);
                console::error_text(&text);
            } else {
                log.line(&format!("error: {text}"));
            }
            let code = tell_end(exit_code(&error), ranks.as_ref())?;
            session.leave()?;
            Ok(code)
        }
        Ok(code) => {
            log.line(if code == STOPPED { "stopped in good order" } else { "done" });
            if code == STOPPED && ranks.is_leader() && is_under_typed_hydra() {
                console::say("MPICH's mpirun may end with another code than 85 now; `iad-launch --ranks N` keeps it");
            }
            let code = tell_end(code, ranks.as_ref())?;
            session.leave()?;
            Ok(code)
        }
    }
}

/// Puts the fault that was asked for into this rank, if it is this one's; in the first attempt only, so that restarts can help.
fn inject(launch: &LaunchArgs, rank: usize, log: &Arc<RankLog>) {
    let Some(fault) = launch.inject.clone().filter(|fault| fault.rank == rank && variable(AGAIN).is_none()) else {
        return;
    };
    let log = Arc::clone(log);
    let tell = move |text: &str| {
        let text = format!("rank {rank}: {text}");
        log.line(&text);
        console::say(&text);
    };
    watch::activity().inject(fault, Arc::new(tell));
}

/// Tells the launcher that started these ranks how they end, and returns the code for mpirun: 0 where the launcher knows
/// better, for mpirun takes every other one for a failure and may replace it.
fn tell_end(code: u8, ranks: &dyn Communicator) -> Result<u8> {
    watch::activity().begin_next(Stage::End);
    let beat = Beat::of(ranks.rank(), &watch::activity().look(), Some(code));
    let told = ranks.is_leader() && Line::of_environment().is_some_and(|line| line.tell_end(&beat));
    let mut known = [f64::from(u8::from(told))];
    ranks.sum(&mut known)?;
    Ok(if known[0] > 0.0 { 0 } else { code })
}

fn join(launch: &LaunchArgs, transport: impl FnOnce() -> Result<Comm>, log: &Arc<RankLog>) -> Result<Session> {
    let world = World::join().map_err(of_the_user)?;
    let transport = agree(world.ranks.as_ref(), transport())?;
    let log = Arc::clone(log);
    let report = move |message: &str| {
        log.last_words(message);
        console::error_text(message);
    };
    let request = Request {
        compute: launch.device.compute(),
        backend: transport.backend.into(),
        share_gpus: transport.share_gpus,
        in_graphs: transport.in_graphs,
        windows: transport.windows,
        report: Arc::new(report),
    };
    Session::join(world, &request).map_err(of_the_user)
}

/// A refusal as a mistake of the user.
fn of_the_user(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Refusal>() {
        Ok(Refusal { key, value, expected, hint }) => {
            UserError::expected(expected).key(key).value(value).hint(hint).into()
        }
        Err(error) => error,
    }
}

/// Refuses a launch that did not make the ranks it was meant to.
fn check_world(launch: &LaunchArgs, session: &Session, variables: impl Fn(&str) -> Option<String>) -> Result<()> {
    let ranks = session.ranks.world_size();
    announced::check(ranks, variables)?;
    // The iad-launch that started these ranks chose their number, and starts them again.
    if variable(PARENT).is_some() {
        return Ok(());
    }
    if let Some(wanted) = launch.ranks.map(usize::from).filter(|wanted| *wanted != ranks) {
        return Err(UserError::expected(format!("{ranks}, the number of ranks the MPI launcher started"))
            .key("--ranks")
            .value(wanted)
            .hint("leave --ranks out under mpirun and srun")
            .into());
    }
    if launch.max_restarts > 0 {
        return Err(UserError::expected("no --max-restarts under an MPI launcher, which starts the ranks itself")
            .key("--max-restarts")
            .value(launch.max_restarts)
            .hint("start `iad-launch` without it (with --ranks N), or repeat the launcher's line until it ends with 0")
            .into());
    }
    Ok(())
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

/// A panic on one rank must not leave the others waiting for it.
fn abort_on_panic(ranks: Arc<dyn Communicator>, log: Arc<RankLog>) {
    std::panic::set_hook(Box::new(move |panic| {
        if trainer::step::graph_capture::catches_panics() {
            return;
        }
        let message = panic.payload_as_str().unwrap_or("unknown panic");
        // libtorch adds its whole stack, with its line ends spelt out.
        let message = message.lines().next().unwrap_or_default().split("\\n").next().unwrap_or_default().to_string();
        let place = panic.location().map_or(String::new(), |place| format!(" ({}:{})", place.file(), place.line()));
        let bug = || format!("a bug stopped this rank: {message}{place}");
        fail(ranks.as_ref(), &log, &out_of_memory(&message).unwrap_or_else(bug));
    }));
}

fn fail(ranks: &dyn Communicator, log: &RankLog, message: &str) -> ! {
    let message = format!("rank {} of {}: {message}", ranks.rank(), ranks.world_size());
    log.last_words(&message);
    console::error_text(&message);
    ranks.abort(1)
}
