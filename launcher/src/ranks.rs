//! What every command on ranks does: join, agree on errors, leave or take all ranks down.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use comm::{Communicator, Refusal, Request, Session, World};
use datasets::UserError;
use trainer::agreement::{Agreed, agree, is_user_error};
use trainer::config::Comm;

use crate::command::Where;
use crate::{console, launch};

/// The exit code of an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if is_user_error(error) { 2 } else { 1 }
}

/// Where a failing rank leaves its last words, once there is a run folder.
pub(crate) type LastWords = Arc<Mutex<Option<PathBuf>>>;

/// Joins the ranks by the `transport` that the configuration says, does `work`, and leaves. An error that all ranks know of is
/// told by the leader alone; one that only this rank knows of ends every rank, with this rank's message.
///
/// # Errors
/// That of `work`, or of joining.
pub(crate) fn with_session(
    place: &Where,
    transport: impl FnOnce() -> Result<Comm>,
    work: impl FnOnce(&Session, &LastWords) -> Result<u8>,
) -> Result<u8> {
    let last_words = LastWords::default();
    let session = join(place, transport, &last_words)?;
    let ranks = Arc::clone(&session.ranks);
    if ranks.is_leader() {
        session.notes.iter().for_each(|note| console::say(note));
        session.map.iter().for_each(|line| console::say(line));
    }
    launch::watch_parent(&ranks);
    abort_on_panic(Arc::clone(&ranks), Arc::clone(&last_words));
    let result = agree(ranks.as_ref(), check_world(place, &session)).and_then(|()| work(&session, &last_words));
    let agreed = |error: &anyhow::Error| error.downcast_ref::<Agreed>().is_some();
    match result {
        Err(error) if ranks.world_size() > 1 && !agreed(&error) => {
            fail(ranks.as_ref(), &last_words, &format!("{error:#}"));
        }
        Err(error) => {
            // Before leaving: once another rank is gone with an exit code, mpirun may end this one.
            if ranks.is_leader() {
                write_last_words(&last_words, &format!("error: {error:#}"));
                console::error(&error);
            }
            session.leave()?;
            Ok(exit_code(&error))
        }
        Ok(code) => {
            session.leave()?;
            Ok(code)
        }
    }
}

fn join(place: &Where, transport: impl FnOnce() -> Result<Comm>, last_words: &LastWords) -> Result<Session> {
    let world = World::join()?;
    let transport = agree(world.ranks.as_ref(), transport())?;
    let words = Arc::clone(last_words);
    let report = move |message: &str| {
        write_last_words(&words, &format!("error: {message}"));
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
fn check_world(place: &Where, session: &Session) -> Result<()> {
    let ranks = session.ranks.world_size();
    if let Some(wanted) = place.ranks.map(usize::from).filter(|wanted| *wanted != ranks) {
        return Err(UserError::expected(format!("{ranks}, the number of ranks the MPI launcher started"))
            .key("--ranks")
            .value(wanted)
            .hint("leave --ranks out under mpirun and srun")
            .into());
    }
    let tasks: usize = std::env::var("SLURM_STEP_NUM_TASKS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    if ranks == 1 && tasks > 1 {
        return Err(UserError::expected(format!("one MPI job of {tasks} ranks"))
            .value(format!("{tasks} copies of this program, started by srun without MPI"))
            .hint("start with `srun --mpi=pmix` (`srun --mpi=list` shows what this cluster has), or with mpirun")
            .into());
    }
    Ok(())
}

/// A panic on one rank must not leave the others waiting for it.
fn abort_on_panic(ranks: Arc<dyn Communicator>, last_words: LastWords) {
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or("unknown panic").lines().next().unwrap_or_default().to_string();
        let place = panic.location().map_or(String::new(), |place| format!(" ({}:{})", place.file(), place.line()));
        fail(ranks.as_ref(), &last_words, &format!("a bug stopped this rank: {message}{place}"));
    }));
}

fn fail(ranks: &dyn Communicator, last_words: &LastWords, message: &str) -> ! {
    let message = format!("rank {} of {}: {message}", ranks.rank(), ranks.world_size());
    write_last_words(last_words, &format!("error: {message}"));
    console::error_text(&message);
    ranks.abort(1)
}

fn write_last_words(last_words: &LastWords, message: &str) {
    let folder = last_words.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    if let Some(folder) = folder {
        console::append_log(&folder, message);
    }
}
