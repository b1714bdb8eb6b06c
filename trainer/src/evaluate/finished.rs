//! The evaluation of finished weights: it opens the records, runs the engine and writes the results.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use datasets::{AdversarialFile, Source};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::config::{Dtype, Protocol};
use crate::evaluate::load::{LoadedNetwork, load};
use crate::evaluate::request::EvaluationRequest;
use crate::evaluate::results::samples_of;
use crate::evaluate::sanity_checks::warnings;
use crate::evaluate::{Engine, Evaluation, Journal, Outcomes, Records, Seconds, Standing, digest};
use crate::system::Worker;
use crate::system::agreement::agree;
use crate::system::files::write_atomically;

/// What an evaluation tells during its work.
pub enum Heard<'a> {
    /// Something the reader of the numbers should know.
    Warning(&'a str),
    /// The name of the work, and how far it is.
    Progress(&'a str, &'a Standing),
}

/// Everything that the results depend on. Its digest names the journal.
#[derive(Serialize)]
struct Statement<'a> {
    program: &'static str,
    weights_sha256: &'a str,
    data_sha256: &'a str,
    dtype: Dtype,
    rounds: Vec<String>,
    protocol: Protocol,
    adversarial: bool,
    /// Not written where the outputs are in order, so that earlier journals still fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<&'a [usize]>,
}

/// Attacks weights on every image, and continues an interrupted evaluation of the same request. The leader writes the files
/// that the request names. Returns `None` after a request to stop.
///
/// # Errors
/// Weights that cannot be read, in agreement of all ranks; a failure to read images, to write, or of the transport.
pub fn evaluate_weights(
    request: &EvaluationRequest,
    place: &Worker,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Heard) -> Result<()>,
) -> Result<Option<Evaluation>> {
    let ranks = place.ranks.as_ref();
    let network = agree(ranks, load(request, place.device))?;
    let (suite, protocol) = (&request.suite, &request.protocol);
    agree(ranks, suite.check(protocol, network.classifier.classes()).map_err(Into::into))?;
    let engine = Engine {
        network: network.classifier.as_ref(),
        source: request.data.source.as_ref(),
        suite,
        protocol,
        ranks,
        stop,
        checks_sanity: true,
        saves_images: request.outputs.adversarial.is_some(),
    };
    let opened = if ranks.is_leader() { open(request, &engine, &network) } else { Ok(Default::default()) };
    let Opened { data_sha256, mut records, problems } = agree(ranks, opened)?;
    let note = network.classes.note().map(|note| format!("{}: {note}", request.run));
    for message in problems.iter().chain(&note) {
        hear(Heard::Warning(message))?;
    }
    let work = format!("evaluating {}", request.weights.name);
    let mut problem = Ok(());
    let found = engine.run(&mut records, &mut |standing| {
        if problem.is_ok() {
            problem = hear(Heard::Progress(&work, standing));
        }
    })?;
    problem?;
    let Some(outcomes) = found else { return Ok(None) };
    let evaluation = results(request, &network, &outcomes, data_sha256, (place, records.rows.clone()))?;
    if ranks.is_leader() {
        finish(request, &evaluation, &outcomes, records)?;
    }
    for message in &evaluation.warnings {
        hear(Heard::Warning(message))?;
    }
    Ok(Some(evaluation))
}

/// The numbers, with the protocol that led to them.
fn results(
    request: &EvaluationRequest,
    network: &LoadedNetwork,
    outcomes: &Outcomes,
    data_sha256: String,
    (place, rows): (&Worker, Vec<usize>),
) -> Result<Evaluation> {
    let EvaluationRequest { run, weights, data, suite, protocol, .. } = request;
    let precision =
        format!("{}; {}", request.dtype.evaluated_in(protocol.precision).name(), torch_ext::instructions(place.device));
    Ok(Evaluation {
        run: run.clone(),
        weights: weights.name.clone(),
        weights_sha256: network.sha256.clone(),
        network: network.spec,
        outputs: network.classes.outputs().map(<[usize]>::to_vec),
        step: network.step,
        split: "test",
        data: data.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        data_sha256,
        images: data.source.len() as u64,
        norm: protocol.norm,
        eps: protocol.eps,
        attack_step: protocol.step,
        precision: protocol.precision,
        autoattack: protocol.autoattack,
        autoattack_standard: suite.standard(protocol, network.classifier.classes()),
        rounds: labels(outcomes),
        batch: protocol.batch,
        seed: protocol.seed,
        selection: weights.selection,
        ranks: place.ranks.world_size(),
        attacks: outcomes.accuracies()?,
        components: outcomes.components(),
        worst_case: outcomes.worst_case(),
        warnings: network.warnings.iter().cloned().chain(warnings(outcomes, &request.command)).collect(),
        seconds: outcomes.seconds_of_attacks(),
        timing: Seconds { seconds: outcomes.seconds.iter().sum(), precision, rows },
    })
}

/// The leader's records, and what was wrong with them.
#[derive(Default)]
struct Opened {
    data_sha256: String,
    records: Records,
    problems: Vec<String>,
}

fn open(request: &EvaluationRequest, engine: &Engine, network: &LoadedNetwork) -> Result<Opened> {
    let data_sha256 = source_sha256(engine.source)?;
    let fresh = engine.fresh();
    let adversarial = request.outputs.adversarial.as_deref();
    let evaluation = digest(&Statement {
        program: env!("CARGO_PKG_VERSION"),
        weights_sha256: &network.sha256,
        data_sha256: &data_sha256,
        dtype: request.dtype,
        rounds: labels(&fresh),
        protocol: request.protocol,
        adversarial: adversarial.is_some(),
        outputs: network.classes.outputs(),
    })?;
    // Another protocol has another journal.
    let path = request.outputs.results.with_extension(format!("{}.journal", &evaluation[..8]));
    let mut problems = vec![];
    let images = adversarial.map(partial);
    let mut file = images.as_deref().and_then(|path| AdversarialFile::open(path, &evaluation).ok());
    if let Some(images) = images.as_deref().filter(|_| file.is_none() && path.exists()) {
        problems.push(format!("{} is missing: the evaluation begins anew", images.display()));
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    let (journal, known, damage) = Journal::open(&path, &evaluation, &fresh)?;
    problems.extend(damage);
    if let Some(images) = images.filter(|_| known.is_empty()) {
        file = Some(AdversarialFile::create(&images, engine.source, &labels(&fresh), &evaluation)?);
    }
    Ok(Opened { data_sha256, records: Records { journal: Some(journal), known, images: file, rows: vec![] }, problems })
}

/// Writes the leader's files. The numbers come last, because their file marks the evaluation as done.
fn finish(request: &EvaluationRequest, evaluation: &Evaluation, outcomes: &Outcomes, records: Records) -> Result<()> {
    let outputs = &request.outputs;
    if let (Some(target), Some(file)) = (&outputs.adversarial, &records.images) {
        file.sync()?;
        fs::rename(partial(target), target).with_context(|| format!("renaming to {}", target.display()))?;
    }
    let table = outcomes.table(|sample| request.data.source.label(sample));
    write_atomically(&samples_of(&outputs.results), table.as_bytes())?;
    evaluation.write(&outputs.results)?;
    if let Some(journal) = records.journal.filter(|_| !outputs.keeps_journal) {
        journal.remove();
    }
    Ok(())
}

/// Removes the journals of the evaluation in `file`.
pub fn remove_journals(file: &Path) {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned() + ".";
    for entry in file.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&stem) && name.ends_with(".journal") {
            // A journal that stays costs space, not correctness.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn labels(outcomes: &Outcomes) -> Vec<String> {
    outcomes.rounds.iter().map(|round| round.label(&outcomes.suite)).collect()
}

fn partial(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    partial.into()
}

/// SHA-256 of all images and then all labels (int64, little-endian).
fn source_sha256(source: &dyn Source) -> Result<String> {
    let mut hash = Sha256::new();
    let mut image = vec![0; source.shape().iter().product()];
    for sample in 0..source.len() {
        source.read(sample, &mut image)?;
        hash.update(&image);
    }
    (0..source.len()).for_each(|sample| hash.update(source.label(sample).to_le_bytes()));
    Ok(base16ct::lower::encode_string(&hash.finalize()))
}
