//! `iad-launch eval RUN`: attack a run's network on every test image.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use comm::Session;
use datasets::{Source, Subset, UserError};
use trainer::agreement::agree;
use trainer::evaluate::EvaluationAttack;
use trainer::evaluation::evaluate_weights;
use trainer::folder::RunFolder;
use trainer::metrics::Sink;
use trainer::prepare::open_test;
use trainer::run::Place;

use crate::command::{Eval, Weights};
use crate::console::Console;
use crate::ranks::with_session;
use crate::{STOPPED, launch, report, signals};

/// An evaluation to do.
struct Job {
    folder: RunFolder,
    config: trainer::config::RunConfig,
    weights: &'static str,
    path: PathBuf,
    attacks: Vec<EvaluationAttack>,
    source: Arc<dyn Source>,
    /// Where the numbers go.
    file: String,
}

/// Evaluates, on as many ranks as asked for.
///
/// # Errors
/// A mistake of the user, or a failed evaluation.
pub(crate) fn run(command: &Eval) -> Result<u8> {
    if !comm::started_by_mpi() {
        let ranks = launch::ranks(&command.place)?;
        if ranks > 1 {
            plan(command, false)?;
            return launch::spawn(ranks);
        }
    }
    with_session(&command.place, |session, _| {
        let job = agree(session.ranks.as_ref(), plan(command, session.local_rank == 0))?;
        evaluate(&job, session)
    })
}

fn plan(command: &Eval, verify: bool) -> Result<Job> {
    let folder = RunFolder::at(&command.run);
    let mut config = folder.config()?;
    if let Some(data) = &command.data {
        config.data.test.clone_from(data);
    }
    let (weights, path) = choose_weights(&folder, command.weights)?;
    let suite = command.suite.as_ref().unwrap_or(&config.evaluation.suite);
    let attack = |name: &String| {
        EvaluationAttack::named(name)
            .ok_or_else(|| UserError::expected(EvaluationAttack::NAMES).key("--suite").value(format!("{name:?}")))
    };
    let attacks = suite.iter().map(attack).collect::<Result<Vec<_>, _>>()?;
    if attacks.is_empty() {
        return Err(UserError::expected(EvaluationAttack::NAMES).key("--suite").value("empty").into());
    }
    let mut source = open_test(&config, verify)?;
    let mut parts = vec!["evaluation".to_string()];
    if let Some(count) = command.images.map(|count| count as usize) {
        if count > source.len() {
            return Err(UserError::expected(format!("at most the {} images of the test set", source.len()))
                .file(&config.data.test)
                .key("--images")
                .value(count)
                .into());
        }
        source = Arc::new(Subset::new(source, (0..count).collect()));
        parts.push(format!("first{count}"));
    }
    // Numbers of another kind do not replace those of the run itself.
    if command.weights.is_some() {
        parts.push(weights.to_string());
    }
    if command.suite.is_some() {
        parts.push(suite.join("+"));
    }
    if command.data.is_some() {
        parts.push(config.data.test.file_stem().unwrap_or_default().to_string_lossy().into_owned());
    }
    Ok(Job { folder, config, weights, path, attacks, source, file: parts.join("-") + ".json" })
}

fn choose_weights(folder: &RunFolder, wanted: Option<Weights>) -> Result<(&'static str, PathBuf)> {
    let file = |name: &'static str| Some((name, folder.weights(name))).filter(|(_, path)| path.is_file());
    let latest = || folder.checkpoints().into_iter().next().map(|(_, path)| ("latest", path));
    let found = match wanted {
        Some(Weights::Best) => file("best"),
        Some(Weights::Final) => file("final"),
        Some(Weights::Latest) => latest(),
        Some(Weights::Ema) => file("ema"),
        Some(Weights::Swa) => file("swa"),
        None => file("best").or_else(|| file("final")).or_else(latest),
    };
    found.ok_or_else(|| {
        UserError::expected("a run with such weights")
            .file(&folder.path)
            .key("--weights")
            .value(wanted.map_or("none at all".into(), |wanted| format!("{wanted:?}").to_lowercase()))
            .hint("train it first: `iad-launch CONFIG`")
            .into()
    })
}

fn evaluate(job: &Job, session: &Session) -> Result<u8> {
    let ranks = session.ranks.as_ref();
    let stop = signals::stop_flag()?;
    let place = Place { ranks: Arc::clone(&session.ranks), device: session.device };
    let (mut silent, mut console) = ((), None);
    if ranks.is_leader() {
        console = Some(Console::new(&job.folder, 0, 0)?);
    }
    let sink: &mut dyn Sink = match console.as_mut() {
        Some(console) => console,
        None => &mut silent,
    };
    let source = job.source.as_ref();
    let found = evaluate_weights(&job.config, source, (job.weights, &job.path), &job.attacks, &place, &stop, sink)?;
    let Some(evaluation) = found else { return Ok(STOPPED) };
    if ranks.is_leader() {
        evaluation.write(&job.folder.file(&job.file))?;
        report::print_evaluation(&evaluation, &job.folder.file(&job.file))?;
    }
    Ok(0)
}
