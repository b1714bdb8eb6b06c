//! `iad-launch eval RUN_OR_WEIGHTS`: attack a network on every test image.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use comm::Session;
use trainer::config::{Backend, Comm};
use trainer::evaluate::finished::evaluate_weights;
use trainer::evaluate::request::EvaluationRequest;
use trainer::run::folder::RunFolder;
use trainer::run::metrics::{Sink, listener};
use trainer::system::Worker;
use trainer::system::agreement::agree;
use trainer::system::files::write_atomically;

use super::plan::plan;
use crate::command::Eval;
use crate::console::{Console, Logged, RankLog};
use crate::exit::STOPPED;
use crate::report::print_evaluation;
use crate::start::{self, activity, start_line, stop_flag, with_session};

/// Evaluates on the requested number of ranks.
///
/// # Errors
/// A mistake of the user, or a failed evaluation.
pub(crate) fn run(command: &Eval) -> Result<u8> {
    if !comm::started_by_mpi() {
        let ranks = start::ranks(&command.launch)?;
        if start::needs_mpirun(&command.launch, ranks) {
            let requests = plan(command, false)?;
            let folder = requests.first().and_then(|request| request.outputs.results.parent()).map(Path::to_path_buf);
            return start::spawn(&command.launch, ranks, folder.as_slice());
        }
    }
    // An evaluation sums a few numbers at its end, so MPI serves every device.
    let transport = || Ok(Comm { backend: Backend::Mpi, share_gpus: shares_gpus(command)?, ..Comm::default() });
    with_session(&command.launch, transport, |session, log| {
        let requests = agree(session.ranks.as_ref(), plan(command, session.local_rank == 0))?;
        let folder = run_folder(command);
        if let Some(folder) = &folder {
            log.open(&folder.path, &start_line(folder, session));
        }
        for request in &requests {
            let code = evaluate(command, request, (session, log))?;
            if code != 0 {
                return Ok(code);
            }
        }
        Ok(0)
    })
}

/// Whether the run let ranks share a GPU.
fn shares_gpus(command: &Eval) -> Result<bool> {
    Ok(!command.run.is_file() && RunFolder::at(&command.run).config()?.comm.share_gpus)
}

/// The run folder whose logs the evaluation writes to: none for a file of weights, or with results elsewhere.
fn run_folder(command: &Eval) -> Option<RunFolder> {
    (!command.run.is_file() && command.out.is_none()).then(|| RunFolder::at(&command.run))
}

fn evaluate(command: &Eval, request: &EvaluationRequest, (session, log): (&Session, &RankLog)) -> Result<u8> {
    let folder = run_folder(command);
    let ranks = session.ranks.as_ref();
    let stop = stop_flag();
    let place = Worker { ranks: Arc::clone(&session.ranks), device: session.device, activity: activity() };
    let (mut silent, mut console) = ((), None);
    if ranks.is_leader() {
        let folder = folder.map(|folder| Console::new(&folder, 0, 0));
        console = Some(folder.unwrap_or_else(|| Ok(Console::without_log()))?);
    }
    let sink: &mut dyn Sink = match console.as_mut() {
        Some(console) => console,
        None => &mut silent,
    };
    agree(ranks, if ranks.is_leader() { make_folders(command, request) } else { Ok(()) })?;
    let mut sink = Logged { log, activity: activity(), rest: sink };
    let Some(evaluation) = evaluate_weights(request, &place, &stop, &mut listener(&mut sink))? else {
        if let Some(console) = &mut console {
            console.line("stopped; the same command goes on from here");
        }
        return Ok(STOPPED);
    };
    if ranks.is_leader() {
        if let Some(csv) = &command.csv {
            write_atomically(csv, evaluation.csv().as_bytes())?;
        }
        print_evaluation(&evaluation, &request.outputs.results)?;
    }
    Ok(0)
}

/// Makes the folders of all files that the evaluation writes.
fn make_folders(command: &Eval, request: &EvaluationRequest) -> Result<()> {
    let files = [Some(&request.outputs.results), request.outputs.adversarial.as_ref(), command.csv.as_ref()];
    for folder in files.into_iter().flatten().filter_map(|file| file.parent()) {
        if !folder.as_os_str().is_empty() {
            fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
        }
    }
    Ok(())
}
