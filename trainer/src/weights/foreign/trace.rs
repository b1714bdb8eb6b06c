//! A network of this program as TorchScript, by tracing one forward pass.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use datasets::zip::Zip;
use tch::{CModule, Device, Kind, Tensor, no_grad};

use crate::model::{Mode, Model, ModelSpec};
use crate::weights::checkpoint::Tensors;
use crate::weights::foreign::archive;
use crate::weights::script::{CLASS_NAMES, ScriptedNetwork};
use crate::weights::student::load_student;

/// The largest difference of logits between the network and its trace.
const TOLERANCE: f64 = 1e-4;

/// The TorchScript file of a network with these tensors. The trace lies beside `to` for a moment.
///
/// # Errors
/// Tensors that do not fit the network; a trace whose logits differ from the network's; anything the file system says.
pub(super) fn torch_script(form: ModelSpec, tensors: &Tensors, class_names: &[String], to: &Path) -> Result<Vec<u8>> {
    let float64 = tensors.values().any(|tensor| tensor.kind() == Kind::Double);
    let kind = if float64 { Kind::Double } else { Kind::Float };
    let model = Model::build(form, 0, kind, Device::Cpu, None);
    load_student(&model, tensors)?;
    model.freeze();
    let images = |rows: usize| {
        let shape = [rows, form.image[0], form.image[1], form.image[2]].map(|size| size as i64);
        let count: i64 = shape.iter().product();
        ((Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.618).frac()).view(shape).to_kind(kind)
    };
    let mut forward = |inputs: &[Tensor]| vec![model.logits(&inputs[0], Mode::Eval)];
    let traced = no_grad(|| CModule::create_by_tracing("Network", "forward", &[images(2)], &mut forward))?;

    let file = to.with_extension("traced");
    let made = || -> Result<Vec<u8>> {
        traced.save(&file)?;
        let bytes = with_class_names(&fs::read(&file)?, class_names)?;
        fs::write(&file, &bytes)?;
        // Another number of images than the trace saw.
        let images = images(3);
        let (script, _) = ScriptedNetwork::load(&file, &images, Device::Cpu)?;
        let difference = no_grad(|| script.logits(&images) - model.logits(&images, Mode::Eval)).abs().max();
        let difference = f64::try_from(difference)?;
        ensure!(difference < TOLERANCE, "the trace's logits differ by {difference}");
        Ok(bytes)
    };
    let bytes = made();
    // A trace that cannot be removed costs space.
    let _ = fs::remove_file(&file);
    bytes.context("tracing the network")
}

/// The records of a TorchScript file in one folder, and the class names as an extra file; equal networks make equal bytes.
fn with_class_names(bytes: &[u8], class_names: &[String]) -> Result<Vec<u8>> {
    let zip = Zip::open(bytes)?;
    let mut records = vec![];
    for member in &zip.members {
        let (_, name) = member.name.split_once('/').context("a record outside of the folder")?;
        records.push((format!("network/{name}"), zip.read(member, u64::MAX)?));
    }
    if !class_names.is_empty() {
        records.push((format!("network/{CLASS_NAMES}"), serde_json::to_vec(class_names)?));
    }
    archive::write(&records)
}
