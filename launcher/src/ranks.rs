//! What every command on ranks does: join, agree on errors, leave or take all ranks down.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

use anyhow::Result;
use comm::{Communicator, Refusal, Request, Session, World};
use datasets::UserError;
use trainer::agreement::{Agreed, agree, is_user_error};
use trainer::config::Comm;

use crate::command::Where;
use crate::rank_log::RankLog;
use crate::{console, liveness, watch, world};

/// The exit code of an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if is_user_error(error) { 2 } else { 1 }
}

/// A variable of the environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Joins the ranks by the `transport` that the configuration says, does `work`, and leaves. An error that all ranks know of is
/// told by the leader alone; one that only this rank knows of ends every rank, with this rank's message.
///
/// # Errors
/// That of `work`, or of joining.
pub(crate) fn with_session(
    place: &Where,
    transport: impl FnOnce() -> Result<Comm>,
    work: impl FnOnce(&Session, &RankLog) -> Result<u8>,
) -> Result<u8> {
    let log = Arc::new(RankLog::new(comm::launcher_rank().unwrap_or(0)));
    if comm::started_by_mpi() {
        watch::start(&log);
    }
    // MPI sets variables of its own when it finds no launcher.
    let environment: BTreeMap<_, _> = std::env::vars_os().collect();
    let announced = |name: &str| environment.get(OsStr::new(name))?.to_str().map(str::to_string);
    let session = join(place, transport, &log)?;
    let ranks = Arc::clone(&session.ranks);
    if ranks.is_leader() {
        session.notes.iter().for_each(|note| console::say(note));
        session.map.iter().for_each(|line| console::say(line));
    }
    abort_on_panic(Arc::clone(&ranks), Arc::clone(&log));
    let result = agree(ranks.as_ref(), check_world(place, &session, announced))
        .and_then(|()| liveness::start(ranks.as_ref(), &log))
        .and_then(|()| work(&session, &log));
    let agreed = |error: &anyhow::Error| error.downcast_ref::<Agreed>().is_some();
    match result {
        Err(error) if ranks.world_size() > 1 && !agreed(&error) => {
            fail(ranks.as_ref(), &log, &format!("{error:#}"));
        }
        Err(error) => {
            // Before leaving: once another rank is gone with an exit code, mpirun may end this one.
            let text = format!("{error:#}");
            if ranks.is_leader() && world::speaks(announced) {
                log.last_words(&text);
                console::error_text(&text);
            } else {
                log.line(&format!("error: {text}"));
            }
            session.leave()?;
            Ok(exit_code(&error))
        }
        Ok(code) => {
            log.line(if code == crate::STOPPED { "stopped in good order" } else { "done" });
            session.leave()?;
            Ok(code)
        }
    }
}

fn join(place: &Where, transport: impl FnOnce() -> Result<Comm>, log: &Arc<RankLog>) -> Result<Session> {
    let world = World::join()?;
    let transport = agree(world.ranks.as_ref(), transport())?;
    let log = Arc::clone(log);
    let report = move |message: &str| {
        log.last_words(message);
        console::error_text(message);
    };
    let request = Request {
        compute: place.device.compute(),
        backend: transport.backend.into(),
        share_gpus: transport.share_gpus,
        report: Arc::new(report),
    };
    Session::join(world, &request).map_err(|error| match error.downcast::<Refusal>() {
        Ok(Refusal { key, value, expected, hint }) => {
            UserError::expected(expected).key(key).value(value).hint(hint).into()
        }
        Err(error) => error,
    })
}

/// Refuses a launch that did not make the ranks it was meant to.
fn check_world(place: &Where, session: &Session, announced: impl Fn(&str) -> Option<String>) -> Result<()> {
    let ranks = session.ranks.world_size();
    world::check(ranks, announced)?;
    // The iad-launch that started these ranks chose their number, and starts them again.
    if variable(watch::PARENT).is_some() {
        return Ok(());
    }
    if let Some(wanted) = place.ranks.map(usize::from).filter(|wanted| *wanted != ranks) {
        return Err(UserError::expected(format!("{ranks}, the number of ranks the MPI launcher started"))
            .key("--ranks")
            .value(wanted)
            .hint("leave --ranks out under mpirun and srun")
            .into());
    }
    if place.max_restarts > 0 {
        return Err(UserError::expected("no --max-restarts under an MPI launcher, which starts the ranks itself")
            .key("--max-restarts")
            .value(place.max_restarts)
            .hint("start `iad-launch` without it (with --ranks N), or repeat the launcher's line until it ends with 0")
            .into());
    }
    Ok(())
}

/// A panic on one rank must not leave the others waiting for it.
fn abort_on_panic(ranks: Arc<dyn Communicator>, log: Arc<RankLog>) {
    std::panic::set_hook(Box::new(move |panic| {
        if trainer::runner::catches_panics() {
            return;
        }
        let message = panic.payload_as_str().unwrap_or("unknown panic");
        // libtorch adds its whole stack, with its line ends spelt out.
        let message = message.lines().next().unwrap_or_default().split("\\n").next().unwrap_or_default().to_string();
        let place = panic.location().map_or(String::new(), |place| format!(" ({}:{})", place.file(), place.line()));
        fail(ranks.as_ref(), &log, &format!("a bug stopped this rank: {message}{place}"));
    }));
}

fn fail(ranks: &dyn Communicator, log: &RankLog, message: &str) -> ! {
    let message = format!("rank {} of {}: {message}", ranks.rank(), ranks.world_size());
    log.last_words(&message);
    console::error_text(&message);
    ranks.abort(1)
}
