//! The student among the tensors of a checkpoint.

use anyhow::Result;
use tch::no_grad;

use crate::model::{Model, Named};
use crate::weights::checkpoint::Tensors;

/// The student's tensors under the names of a checkpoint. Each batch norm gets the pass counter that PyTorch keeps in it.
pub fn student_tensors(student: &Model) -> Tensors {
    let mut tensors: Tensors =
        student.tensors().map(|Named { name, tensor }| (format!("student/{name}"), tensor.shallow_clone())).collect();
    for Named { name, .. } in &student.statistics {
        if let Some(layer) = name.strip_suffix(".running_mean") {
            tensors.insert(format!("student/{layer}.num_batches_tracked"), student.batches_tracked.shallow_clone());
        }
    }
    tensors
}

/// Loads the student's tensors of a checkpoint into `model`.
///
/// # Errors
/// A name that is missing or a shape that differs.
pub fn load_student(model: &Model, tensors: &Tensors) -> Result<()> {
    model.load(|name| tensors.get(&format!("student/{name}")))?;
    let counter = tensors.iter().find(|(name, _)| name.ends_with(".num_batches_tracked"));
    if let Some((_, passes)) = counter {
        no_grad(|| model.batches_tracked.shallow_clone().copy_(passes));
    }
    Ok(())
}
