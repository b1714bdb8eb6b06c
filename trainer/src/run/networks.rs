//! The networks of a run: the student with its initial values, the teachers from their files.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use torch_ext::has_fused_batch_norm;

use crate::config::AcrossRanks;
use crate::method::networks::{Networks, over_ranks};
use crate::model::Model;
use crate::run::context::RunContext;
use crate::system::timeline::Timeline;
use crate::weights::checkpoint;
use crate::weights::classes::select_outputs;
use crate::weights::student::load_student;

/// A network of the student's form with its first values, whose batch norm spans the ranks as the configuration says.
pub fn student(context: &RunContext, timeline: &Timeline) -> Model {
    let RunContext { config, prepared, place, .. } = *context;
    // With one rank the batch of all ranks is the batch.
    let sync = config.batch_norm.across_ranks == AcrossRanks::Sync && place.ranks.world_size() > 1;
    let fused = config.batch_norm.fused && has_fused_batch_norm(place.device);
    let reached = sync.then(|| over_ranks(Arc::clone(&place.ranks), timeline.clone(), fused));
    Model::build(prepared.form, config.seed, config.precision.dtype.kind(), place.device, reached)
}

/// The student with its initial values, random or from `student.checkpoint`, and the teachers from their files.
///
/// # Errors
/// A teacher's file that cannot be read or does not fit its network.
pub fn build(context: &RunContext) -> Result<Networks> {
    let RunContext { config, prepared, place, .. } = *context;
    let kind = config.precision.dtype.kind();
    let timeline = Timeline::new(place.device, place.activity.clone());
    let student = student(context, &timeline);
    if let Some(initial) = &prepared.initial {
        initial.load(&student)?;
    }
    let load = |(name, weights): (&String, &PathBuf)| {
        let (header, mut tensors) = checkpoint::read(weights)?;
        let mut form = header.form;
        if let Some(outputs) = prepared.teacher_outputs.get(name) {
            select_outputs(&mut form, &mut tensors, outputs);
        }
        let teacher = Model::build(form, 0, kind, place.device, None);
        load_student(&teacher, &tensors).with_context(|| format!("teacher {name}: {}", weights.display()))?;
        Ok((name.clone(), teacher))
    };
    let teachers = prepared.teachers.iter().map(load).collect::<Result<_>>()?;
    Ok(Networks { timeline, ..Networks::new(student, teachers, config.precision) })
}
