//! Loading the network of an evaluation from its file, and holding it against the images.

use anyhow::{Context, Result};
use datasets::UserError;
use serde::Serialize;
use tch::{Device, Kind};

use crate::config::Precision;
use crate::evaluate::Classifier;
use crate::evaluate::batch::read_filled;
use crate::evaluate::precision::in_precision;
use crate::evaluate::request::EvaluationRequest;
use crate::model::{Model, ModelSpec};
use crate::system::files::file_sha256;
use crate::weights::checkpoint;
use crate::weights::classes::{ClassMatch, NetworkClasses, match_classes, select_outputs};
use crate::weights::script::{ScriptSpec, ScriptedNetwork, is_script};
use crate::weights::student::load_student;

/// A network that is ready for attacks, and what its file says of it.
pub struct LoadedNetwork {
    /// The network.
    pub classifier: Box<dyn Classifier>,
    /// What it takes and gives.
    pub spec: NetworkSpec,
    /// SHA-256 of its file.
    pub sha256: String,
    /// Steps of training behind it.
    pub step: u64,
    /// How its outputs serve the classes of the images.
    pub classes: ClassMatch,
    /// Reasons to distrust the numbers that loading it gave.
    pub warnings: Vec<String>,
}

/// What a network takes and gives, as evaluation.json states it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum NetworkSpec {
    /// A network of this program.
    Model(ModelSpec),
    /// A TorchScript network.
    Script(ScriptSpec),
}

/// Loads the network of a request onto `device`.
///
/// # Errors
/// A [`UserError`] for a file that cannot be read or does not fit the images.
pub fn load(request: &EvaluationRequest, device: Device) -> Result<LoadedNetwork> {
    if is_script(&request.weights.file) { load_script(request, device) } else { load_model(request, device) }
}

fn load_script(request: &EvaluationRequest, device: Device) -> Result<LoadedNetwork> {
    let (file, source) = (&request.weights.file, request.data.source.as_ref());
    let rows = request.protocol.batch;
    let samples: Vec<usize> = (0..source.len().min(rows)).collect();
    let batch = read_filled(source, &samples, rows, (Kind::Float, device))?;
    let (mut network, warnings) = ScriptedNetwork::load(file, &batch.images, device)?;
    let classes = matched(network.spec.classes, &network.class_names, request)?;
    network.select(classes.outputs());
    Ok(LoadedNetwork {
        spec: NetworkSpec::Script(network.spec),
        classifier: in_precision(Box::new(network), request.protocol.precision),
        sha256: file_sha256(file)?,
        step: 0,
        classes,
        warnings,
    })
}

fn load_model(request: &EvaluationRequest, device: Device) -> Result<LoadedNetwork> {
    let (file, source) = (&request.weights.file, request.data.source.as_ref());
    let (header, mut tensors) = checkpoint::read(file)?;
    let spec = header.form;
    if spec.image != source.shape() {
        let shape = |[channels, height, width]: [usize; 3]| format!("{channels}x{height}x{width}");
        let expected = format!("images of {}, as the network takes", shape(spec.image));
        let error = UserError::expected(expected).file(&request.data.file).key("data.test");
        return Err(error.value(format!("images of {}", shape(source.shape()))).into());
    }
    let classes = matched(spec.classes, &header.class_names, request)?;
    let mut form = spec;
    if let Some(outputs) = classes.outputs() {
        select_outputs(&mut form, &mut tensors, outputs);
    }
    let model = Model::build(form, 0, request.dtype.kind(), device, None);
    load_student(&model, &tensors).with_context(|| file.display().to_string())?;
    let dtype = request.dtype.evaluated_in(request.protocol.precision);
    Precision { dtype, ..Precision::default() }.freeze(&model);
    Ok(LoadedNetwork {
        classifier: in_precision(Box::new(model), dtype),
        spec: NetworkSpec::Model(spec),
        sha256: file_sha256(file)?,
        step: header.progress.step,
        classes,
        warnings: vec![],
    })
}

fn matched(outputs: usize, names: &[String], request: &EvaluationRequest) -> Result<ClassMatch, UserError> {
    let matching = request.weights.match_classes;
    match_classes(NetworkClasses { outputs, names }, request.data.source.class_names(), matching).map_err(|error| {
        error.file(&request.data.file).key("data.test").hint(
            "choose a container of the classes that the network was trained on; or add --match-classes order if they only have \
             other names",
        )
    })
}
