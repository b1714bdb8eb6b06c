//! `iad-launch eval RUN_OR_WEIGHTS`: attack a network on every test image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use comm::Session;
use datasets::{Choice, Source, Subset, UserError, refuse_existing};
use trainer::agreement::agree;
use trainer::checkpoint::{self, read_header, write_atomically};
use trainer::config::{Backend, Comm, Dtype, Evaluation, Reading, Selection};
use trainer::evaluate::{Protocol, Suite};
use trainer::evaluation::{Request, evaluate_weights};
use trainer::folder::RunFolder;
use trainer::metrics::Sink;
use trainer::prepare::open_test;
use trainer::run::Place;

use crate::command::{Eval, Weights};
use crate::console::Console;
use crate::jobs::start_line;
use crate::ranks::with_session;
use crate::{STOPPED, launch, report, signals};

/// The seed of attacks on weights without a configuration.
const SEED: u64 = 1;

/// An evaluation to do.
struct Job {
    /// The run folder, where there is one.
    folder: Option<RunFolder>,
    run: String,
    weights: String,
    path: PathBuf,
    data: PathBuf,
    source: Arc<dyn Source>,
    suite: Suite,
    protocol: Protocol,
    dtype: Dtype,
    selection: &'static str,
    /// Where the numbers go.
    file: PathBuf,
    csv: Option<PathBuf>,
    adversarial: Option<PathBuf>,
}

/// What a run folder or a file of weights says.
struct Subject {
    folder: Option<RunFolder>,
    run: String,
    weights: String,
    path: PathBuf,
    data: PathBuf,
    subset: Option<Choice>,
    reading: Reading,
    evaluation: Evaluation,
    seed: u64,
    dtype: Dtype,
    selection: &'static str,
    /// The folder and the first part of the name of the results.
    results: (PathBuf, String),
}

/// Evaluates, on as many ranks as asked for.
///
/// # Errors
/// A mistake of the user, or a failed evaluation.
pub(crate) fn run(command: &Eval) -> Result<u8> {
    if !comm::started_by_mpi() {
        let ranks = launch::ranks(&command.place)?;
        if launch::needs_mpirun(&command.place, ranks) {
            let job = plan(command, false)?;
            let folder = job.file.parent().map(Path::to_path_buf);
            return launch::spawn(&command.place, ranks, folder.as_slice());
        }
    }
    // An evaluation adds up a few numbers at its end, wherever the run was trained: MPI will do.
    let transport = || Ok(Comm { backend: Backend::Mpi, share_gpus: shares_gpus(command)?, ..Comm::default() });
    with_session(&command.place, transport, |session, log| {
        let job = agree(session.ranks.as_ref(), plan(command, session.local_rank == 0))?;
        if let Some(folder) = &job.folder {
            log.open(&folder.path, &start_line(folder, session));
        }
        evaluate(&job, session)
    })
}

/// Whether the run was one that lets ranks share a GPU.
fn shares_gpus(command: &Eval) -> Result<bool> {
    Ok(!command.run.is_file() && RunFolder::at(&command.run).config()?.comm.share_gpus)
}

fn plan(command: &Eval, verify: bool) -> Result<Job> {
    let subject = if command.run.is_file() { weights_file(command)? } else { run_folder(command)? };
    let protocol = protocol(command, &subject)?;
    let names = command.suite.as_ref().unwrap_or(&subject.evaluation.suite);
    let suite = Suite::named(names.iter().map(String::as_str));
    let suite = suite.map_err(|name| {
        UserError::expected(format!("{}, each once", Suite::NAMES)).key("--suite").value(format!("{name:?}"))
    })?;
    if suite.attacks.is_empty() {
        return Err(UserError::expected(Suite::NAMES).key("--suite").value("empty").into());
    }
    suite.check(&protocol, read_header(&subject.path)?.form.classes)?;
    for target in [&command.csv, &command.save_adversarial].into_iter().flatten() {
        refuse_existing(target)?;
    }
    let mut source = open_test(&subject.data, subject.subset.as_ref(), subject.reading, verify)?;
    let (folder, name) = subject.results;
    let mut parts = vec![name];
    if let Some(count) = command.images.map(|count| count as usize) {
        if count > source.len() {
            return Err(UserError::expected(format!("at most the {} images of the test set", source.len()))
                .file(&subject.data)
                .key("--images")
                .value(count)
                .into());
        }
        source = Arc::new(Subset::new(source, (0..count).collect()));
        parts.push(format!("first{count}"));
    }
    // Numbers of another kind do not replace those of the run itself.
    if command.weights.is_some() {
        parts.push(subject.weights.clone());
    }
    if command.suite.is_some() {
        parts.push(names.join("+"));
    }
    if command.data.is_some() {
        parts.push(subject.data.file_stem().unwrap_or_default().to_string_lossy().into_owned());
    }
    parts.extend(command.eps.map(|eps| format!("eps{}", eps.to_string().replace('/', "_"))));
    parts.extend(command.batch.map(|batch| format!("batch{batch}")));
    parts.extend(command.seed.map(|seed| format!("seed{seed}")));
    let folder = command.out.clone().unwrap_or(folder);
    if !folder.is_dir() {
        let hint = format!("mkdir -p '{}'", folder.display());
        return Err(UserError::expected("an existing folder").file(&folder).key("--out").hint(hint).into());
    }
    Ok(Job {
        folder: subject.folder.filter(|_| command.out.is_none()),
        run: subject.run,
        weights: subject.weights,
        path: subject.path,
        data: subject.data,
        source,
        suite,
        protocol,
        dtype: subject.dtype,
        selection: subject.selection,
        file: folder.join(parts.join("-") + ".json"),
        csv: command.csv.clone(),
        adversarial: command.save_adversarial.clone(),
    })
}

fn protocol(command: &Eval, subject: &Subject) -> Result<Protocol> {
    let mut protocol = Protocol::stated(&subject.evaluation, command.seed.unwrap_or(subject.seed));
    if let Some(eps) = command.eps {
        if !(eps.0 > 0.0 && eps.0 <= 1.0) {
            return Err(UserError::expected("a length above 0 and up to 1, as in 8/255")
                .key("--eps")
                .value(eps)
                .into());
        }
        protocol.eps = eps.0;
    }
    if let Some(batch) = command.batch {
        if !((16..=65_536).contains(&batch) && batch.is_multiple_of(16)) {
            return Err(UserError::expected("a multiple of 16 up to 65,536").key("--batch").value(batch).into());
        }
        protocol.batch = batch;
    }
    Ok(protocol)
}

fn run_folder(command: &Eval) -> Result<Subject> {
    let folder = RunFolder::at(&command.run);
    let config = folder.config()?;
    let (weights, path) = choose_weights(&folder, command.weights)?;
    Ok(Subject {
        run: folder.name(),
        weights: weights.to_string(),
        path,
        data: command.data.clone().unwrap_or(config.data.test),
        subset: config.data.subset,
        reading: config.data.reading,
        seed: config.seed,
        dtype: config.precision.dtype.of_evaluation(),
        selection: config.evaluation.selection.name(),
        evaluation: config.evaluation,
        results: (folder.path.clone(), "evaluation".into()),
        folder: Some(folder),
    })
}

/// Weights by themselves: the settings are those that a configuration begins with.
fn weights_file(command: &Eval) -> Result<Subject> {
    let path = &command.run;
    if let Some(weights) = command.weights {
        let value = format!("{weights:?}").to_lowercase();
        return Err(UserError::expected("no --weights beside a file of weights").key("--weights").value(value).into());
    }
    let found = checkpoint::read(path);
    found.map_err(|error| {
        UserError::expected("a file of weights of this program").file(path).value(format!("{error:#}"))
    })?;
    let data = command.data.clone().ok_or_else(|| {
        UserError::expected("--data FILE: weights by themselves do not say what to be evaluated on")
            .file(path)
            .hint("add --data FILE.h5, or name the run folder instead of a file in it")
    })?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(Subject {
        folder: None,
        run: stem.clone(),
        weights: stem.clone(),
        path: path.clone(),
        data,
        subset: None,
        reading: Reading::default(),
        evaluation: Evaluation::default(),
        seed: SEED,
        dtype: Dtype::default(),
        selection: Selection::None.name(),
        results: (folder.to_path_buf(), format!("{stem}-evaluation")),
    })
}

/// The name and the file of a run's weights: those wanted, or the first that there are.
///
/// # Errors
/// A [`UserError`] where there are none.
pub(crate) fn choose_weights(folder: &RunFolder, wanted: Option<Weights>) -> Result<(&'static str, PathBuf)> {
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
        let folder = job.folder.as_ref().map(|folder| Console::new(folder, 0, 0));
        console = Some(folder.unwrap_or_else(|| Ok(Console::without_log()))?);
    }
    let sink: &mut dyn Sink = match console.as_mut() {
        Some(console) => console,
        None => &mut silent,
    };
    let request = Request {
        run: job.run.clone(),
        name: &job.weights,
        weights: &job.path,
        source: job.source.as_ref(),
        data: &job.data,
        suite: &job.suite,
        protocol: job.protocol,
        dtype: job.dtype,
        selection: job.selection,
        file: job.file.clone(),
        adversarial: job.adversarial.clone(),
        keeps_journal: false,
    };
    let Some(evaluation) = evaluate_weights(&request, &place, &stop, sink)? else {
        if let Some(console) = &mut console {
            console.line("stopped; the same command goes on from here");
        }
        return Ok(STOPPED);
    };
    if ranks.is_leader() {
        if let Some(csv) = &job.csv {
            write_atomically(csv, evaluation.csv().as_bytes())?;
        }
        report::print_evaluation(&evaluation, &job.file)?;
    }
    Ok(0)
}
