//! The evaluation of finished weights: the numbers together with the protocol they were measured by.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use datasets::{AdversarialFile, Source, UserError};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::agreement::agree;
use crate::checkpoint::{self, write_atomically};
use crate::config::{AutoAttack, Dtype, hexadecimal};
use crate::evaluate::{Accuracy, Engine, Journal, Keeping, Outcomes, Protocol, Suite, digest, warnings};
use crate::metrics::{Event, Sink, Timing};
use crate::model::{Form, Model};
use crate::run::Place;
use crate::state::load_student;

/// An evaluation to do.
pub struct Request<'a> {
    /// The name of the run, or of the file of weights.
    pub run: String,
    /// Which weights: `best`, `final`, or another name.
    pub name: &'a str,
    /// Their file.
    pub weights: &'a Path,
    /// The images.
    pub source: &'a dyn Source,
    /// Their container.
    pub data: &'a Path,
    /// The attacks.
    pub suite: &'a Suite,
    /// Their settings.
    pub protocol: Protocol,
    /// The type of number to compute with.
    pub dtype: Dtype,
    /// How the weights were chosen, if it is known.
    pub selection: &'static str,
    /// Where the numbers go; the table of samples and the journal stand beside.
    pub file: PathBuf,
    /// Where the adversarial images go, if they are to be kept.
    pub adversarial: Option<PathBuf>,
    /// Whether the journal stays when all is done, so that doing it again is reading it.
    pub keeps_journal: bool,
}

/// What evaluation.json holds.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// The name of the run folder, or of the file of weights.
    pub run: String,
    /// Which weights: `best`, `final`, or another name.
    pub weights: String,
    /// SHA-256 of their file.
    pub weights_sha256: String,
    /// The network.
    pub network: Form,
    /// Steps of training behind the weights.
    pub step: u64,
    /// The split evaluated.
    pub split: &'static str,
    /// The file name of its container.
    pub data: String,
    /// SHA-256 of the images evaluated and their labels, one after the other.
    pub data_sha256: String,
    /// Their number.
    pub images: u64,
    /// Radius of every attack's L-infinity ball.
    pub eps: f64,
    /// Step of the attacks with several.
    pub attack_step: f64,
    /// The lengths of AutoAttack's searches.
    pub autoattack: AutoAttack,
    /// Whether those are the ones of the "standard" version, on nine classes; nothing where none of its attacks is in the suite.
    pub autoattack_standard: Option<bool>,
    /// The rounds, one for each attack and class attacked towards, in their order.
    pub rounds: Vec<String>,
    /// Rows of a batch.
    pub batch: usize,
    /// The seed of everything random.
    pub seed: u64,
    /// How the weights were chosen.
    pub selection: &'static str,
    /// The number of ranks at the end; the results do not depend on it.
    pub ranks: usize,
    /// The results.
    pub attacks: Vec<Accuracy>,
    /// What remains after each of the attacks that one is made of, by its name.
    pub components: BTreeMap<String, Vec<Accuracy>>,
    /// The images that withstand every attack.
    pub worst_case: Accuracy,
    /// What speaks against the numbers.
    pub warnings: Vec<String>,
    /// Seconds spent on each attack.
    pub seconds: BTreeMap<String, f64>,
    /// Clocks, over all sessions.
    pub timing: Timing,
}

/// What the results depend on, and nothing else.
#[derive(Serialize)]
struct Statement<'a> {
    program: &'static str,
    weights_sha256: &'a str,
    data_sha256: &'a str,
    dtype: Dtype,
    rounds: Vec<String>,
    protocol: Protocol,
    adversarial: bool,
}

impl Evaluation {
    /// One line for each accuracy.
    pub fn csv(&self) -> String {
        let mut text = "attack,component,correct,of,accuracy,standard_error,seconds\n".to_string();
        let mut line =
            |attack: &str, component: &str, Accuracy { correct, of, .. }: &Accuracy, seconds: Option<&f64>| {
                let share = *correct as f64 / (*of).max(1) as f64;
                let error = (share * (1.0 - share) / (*of).max(1) as f64).sqrt();
                let seconds = seconds.map(|seconds| format!("{seconds:.3}")).unwrap_or_default();
                text += &format!("{attack},{component},{correct},{of},{share:.6},{error:.6},{seconds}\n");
            };
        for attack in &self.attacks {
            for part in self.components.get(&attack.name).into_iter().flatten() {
                line(&attack.name, &part.name, part, None);
            }
            line(&attack.name, "", attack, self.seconds.get(&attack.name));
        }
        line(&self.worst_case.name, "", &self.worst_case, None);
        text
    }

    fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, (serde_json::to_string_pretty(self)? + "\n").as_bytes())
    }
}

/// Attacks weights on every image, going on where an interrupted evaluation of the same left off. The leader writes the files
/// that [`Request`] names. Returns nothing if it was told to stop.
///
/// # Errors
/// Weights that cannot be read, in agreement of all ranks; a failure to read images, to write, or of the transport.
pub fn evaluate_weights(
    request: &Request,
    place: &Place,
    stop: &AtomicBool,
    console: &mut dyn Sink,
) -> Result<Option<Evaluation>> {
    let ranks = place.ranks.as_ref();
    let (model, weights_sha256, step) = agree(ranks, load(request, place))?;
    let Request { source, suite, protocol, .. } = request;
    agree(ranks, suite.check(protocol, model.form.classes).map_err(Into::into))?;
    let engine = Engine { model: &model, source: *source, suite, protocol, ranks, stop, distrust: true };
    let opened = if ranks.is_leader() { open(request, &engine, &weights_sha256) } else { Ok(Default::default()) };
    let (data_sha256, mut keeping, problems) = agree(ranks, opened)?;
    keeping.saves_images = request.adversarial.is_some();
    for message in problems {
        console.record(&Event::Warned { message })?;
    }
    let work = format!("evaluating {}", request.name);
    let found = engine.run(&mut keeping, &mut |standing| console.evaluating(&work, standing))?;
    let Some(outcomes) = found else { return Ok(None) };
    let evaluation = Evaluation {
        run: request.run.clone(),
        weights: request.name.to_string(),
        weights_sha256,
        network: model.form,
        step,
        split: "test",
        data: request.data.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        data_sha256,
        images: source.len() as u64,
        eps: protocol.eps,
        attack_step: protocol.step,
        autoattack: protocol.autoattack,
        autoattack_standard: suite.standard(protocol, model.form.classes),
        rounds: labels(&outcomes),
        batch: protocol.batch,
        seed: protocol.seed,
        selection: request.selection,
        ranks: ranks.world_size(),
        attacks: outcomes.accuracies()?,
        components: outcomes.components(),
        worst_case: outcomes.worst_case(),
        warnings: warnings(&outcomes),
        seconds: outcomes.seconds_of_attacks(),
        timing: Timing { seconds: outcomes.seconds.iter().sum(), ..Timing::default() },
    };
    if ranks.is_leader() {
        finish(request, &evaluation, &outcomes, keeping)?;
    }
    for message in &evaluation.warnings {
        console.record(&Event::Warned { message: message.clone() })?;
    }
    Ok(Some(evaluation))
}

/// What the leader keeps: the checksum of the images, the journal, and what was wrong with it.
fn open(request: &Request, engine: &Engine, weights_sha256: &str) -> Result<(String, Keeping, Vec<String>)> {
    let data_sha256 = source_sha256(request.source)?;
    let fresh = engine.fresh();
    let evaluation = digest(&Statement {
        program: env!("CARGO_PKG_VERSION"),
        weights_sha256,
        data_sha256: &data_sha256,
        dtype: request.dtype,
        rounds: labels(&fresh),
        protocol: request.protocol,
        adversarial: request.adversarial.is_some(),
    })?;
    // Another protocol has another journal.
    let path = request.file.with_extension(format!("{}.journal", &evaluation[..8]));
    let mut problems = vec![];
    let images = request.adversarial.as_deref().map(partial);
    let mut file = images.as_deref().and_then(|path| AdversarialFile::open(path, &evaluation).ok());
    if let Some(images) = images.as_deref().filter(|_| file.is_none() && path.exists()) {
        problems.push(format!("{} is not there any more: the evaluation begins anew", images.display()));
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    let (journal, known, damage) = Journal::open(&path, &evaluation, &fresh)?;
    problems.extend(damage);
    if let Some(images) = images.filter(|_| known.is_empty()) {
        file = Some(AdversarialFile::create(&images, request.source, &labels(&fresh), &evaluation)?);
    }
    Ok((data_sha256, Keeping { journal: Some(journal), known, images: file, saves_images: false }, problems))
}

/// The leader's files: the numbers last, for they say that all is done.
fn finish(request: &Request, evaluation: &Evaluation, outcomes: &Outcomes, keeping: Keeping) -> Result<()> {
    if let (Some(target), Some(file)) = (&request.adversarial, &keeping.images) {
        file.sync()?;
        fs::rename(partial(target), target).with_context(|| format!("renaming to {}", target.display()))?;
    }
    let table = outcomes.table(|sample| request.source.label(sample));
    write_atomically(&request.file.with_extension("samples.csv"), table.as_bytes())?;
    evaluation.write(&request.file)?;
    if let Some(journal) = keeping.journal.filter(|_| !request.keeps_journal) {
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
            // A journal too many costs space, not correctness.
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
    Ok(hexadecimal(&hash.finalize()))
}

fn load(request: &Request, place: &Place) -> Result<(Model, String, u64)> {
    let (path, source) = (request.weights, request.source);
    let (header, tensors) = checkpoint::read(path)?;
    let form = header.form;
    if form.image != source.shape() || form.classes < source.class_names().len() {
        let expected = format!("images of {:?} and at most {} classes, as the network", form.image, form.classes);
        let found = format!("{:?} and {} classes", source.shape(), source.class_names().len());
        return Err(UserError::expected(expected).file(request.data).key("data.test").value(found).into());
    }
    let model = Model::build(form, 0, request.dtype.kind(), place.device, None);
    load_student(&model, &tensors).with_context(|| path.display().to_string())?;
    model.freeze();
    model.fold_batch_norm(model.kind());
    Ok((model, checkpoint::file_sha256(path)?, header.progress.step))
}
