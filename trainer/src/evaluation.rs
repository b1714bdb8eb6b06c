//! The evaluation of finished weights: the numbers together with the protocol they were measured by.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result};
use datasets::{Source, UserError};
use serde::Serialize;

use crate::agreement::agree;
use crate::checkpoint;
use crate::config::RunConfig;
use crate::evaluate::{Accuracy, EvaluationAttack, Protocol, evaluate};
use crate::folder::RunFolder;
use crate::metrics::{Sink, Timing};
use crate::model::Model;
use crate::run::Place;
use crate::state::load_student;

/// What evaluation.json holds.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// The name of the run folder.
    pub run: String,
    /// Which weights: `best`, `final`, or a path.
    pub weights: String,
    /// SHA-256 of their file.
    pub weights_sha256: String,
    /// Steps of training behind them.
    pub step: u64,
    /// The split evaluated.
    pub split: &'static str,
    /// Its number of images.
    pub images: u64,
    /// Radius of every attack's L-infinity ball.
    pub eps: f64,
    /// Step of the attacks with several.
    pub attack_step: f64,
    /// Rows of a batch.
    pub batch: usize,
    /// The seed of random starts.
    pub seed: u64,
    /// How the weights were chosen.
    pub selection: &'static str,
    /// The number of ranks; the results do not depend on it.
    pub ranks: usize,
    /// The results.
    pub attacks: Vec<Accuracy>,
    /// Clocks.
    pub timing: Timing,
}

impl Evaluation {
    /// Writes it as JSON.
    ///
    /// # Errors
    /// Anything the file system says.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        checkpoint::write_atomically(path, text.as_bytes())
    }
}

/// Attacks the weights `(name, path)` on every image of `source`. Returns nothing if it was told to stop.
///
/// # Errors
/// Weights that cannot be read, in agreement of all ranks; a failure to read images or of the transport.
pub fn evaluate_weights(
    config: &RunConfig,
    source: &dyn Source,
    (name, path): (&str, &Path),
    attacks: &[EvaluationAttack],
    place: &Place,
    stop: &AtomicBool,
    console: &mut dyn Sink,
) -> Result<Option<Evaluation>> {
    let began = Instant::now();
    let (model, weights_sha256, step) = agree(place.ranks.as_ref(), load(config, source, path, place))?;
    let protocol = Protocol::of(config);
    let ranks = place.ranks.as_ref();
    let work = format!("evaluating {name}");
    let attacks =
        evaluate(&model, source, attacks, &protocol, ranks, stop, &mut |share| console.progress(&work, share))?;
    let folder = path.parent().and_then(Path::parent).map(|folder| RunFolder::at(folder).name());
    Ok(attacks.map(|attacks| Evaluation {
        run: folder.unwrap_or_default(),
        weights: name.to_string(),
        weights_sha256,
        step,
        split: "test",
        images: source.len() as u64,
        eps: protocol.eps,
        attack_step: protocol.step,
        batch: protocol.batch,
        seed: protocol.seed,
        selection: config.evaluation.selection.name(),
        ranks: ranks.world_size(),
        attacks,
        timing: Timing { seconds: began.elapsed().as_secs_f64(), ..Timing::default() },
    }))
}

fn load(config: &RunConfig, source: &dyn Source, path: &Path, place: &Place) -> Result<(Model, String, u64)> {
    let (header, tensors) = checkpoint::read(path)?;
    let form = header.form;
    if form.image != source.shape() || form.classes < source.class_names().len() {
        let expected = format!("images of {:?} and at most {} classes, as the network", form.image, form.classes);
        let found = format!("{:?} and {} classes", source.shape(), source.class_names().len());
        return Err(UserError::expected(expected).file(&config.data.test).key("data.test").value(found).into());
    }
    let model = Model::build(form, 0, config.precision.dtype.kind(), place.device, None);
    load_student(&model, &tensors).with_context(|| path.display().to_string())?;
    model.freeze();
    Ok((model, checkpoint::file_sha256(path)?, header.progress.step))
}
