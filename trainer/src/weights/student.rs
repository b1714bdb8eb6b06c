//! The student, and the networks that learn beside it, among the tensors of a checkpoint.

use anyhow::Result;
use tch::no_grad;

use crate::config::STUDENT;
use crate::model::{Model, Named};
use crate::weights::checkpoint::Tensors;

/// The student's tensors under the names of a checkpoint. Each batch norm gets the pass counter that PyTorch keeps in it.
pub fn student_tensors(student: &Model) -> Tensors {
    network_tensors(STUDENT, student)
}

/// The tensors of a network under the names of a checkpoint, which begin with `place` and a slash.
pub fn network_tensors(place: &str, network: &Model) -> Tensors {
    let mut tensors: Tensors =
        network.tensors().map(|Named { name, tensor }| (format!("{place}/{name}"), tensor.shallow_clone())).collect();
    for Named { name, .. } in &network.statistics {
        if let Some(layer) = name.strip_suffix(".running_mean") {
            tensors.insert(format!("{place}/{layer}.num_batches_tracked"), network.batches_tracked.shallow_clone());
        }
    }
    tensors
}

/// Loads the student's tensors of a checkpoint into `model`.
///
/// # Errors
/// A name that is missing or a shape that differs.
pub fn load_student(model: &Model, tensors: &Tensors) -> Result<()> {
    load_network(STUDENT, model, tensors)
}

/// Loads the tensors at `place` of a checkpoint into `model`.
///
/// # Errors
/// A name that is missing or a shape that differs.
pub fn load_network(place: &str, model: &Model, tensors: &Tensors) -> Result<()> {
    model.load(|name| tensors.get(&format!("{place}/{name}")))?;
    let mut here =
        tensors.iter().filter(|(name, _)| name.strip_prefix(place).is_some_and(|rest| rest.starts_with('/')));
    let counter = here.find(|(name, _)| name.ends_with(".num_batches_tracked"));
    if let Some((_, passes)) = counter {
        no_grad(|| model.batches_tracked.shallow_clone().copy_(passes));
    }
    Ok(())
}
