//! The networks of a run: the student with its initial values, the teachers from their files.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use torch_ext::has_fused_batch_norm;

use crate::config::AcrossRanks;
use crate::method::networks::{Networks, over_ranks};
use crate::model::{Model, ModelSpec};
use crate::run::context::RunContext;
use crate::run::prepare::Learned;
use crate::system::timeline::Timeline;
use crate::weights::checkpoint;
use crate::weights::classes::select_outputs;
use crate::weights::student::load_student;

/// A network of the student's form with its first values, whose batch norm spans the ranks as the configuration says.
pub fn student(context: &RunContext, timeline: &Timeline) -> Model {
    learning(context, context.prepared.form, context.config.seed, timeline)
}

/// A network that learns, with its first values.
fn learning(context: &RunContext, form: ModelSpec, seed: u64, timeline: &Timeline) -> Model {
    let RunContext { config, place, .. } = *context;
    // With one rank the batch of all ranks is the batch.
    let sync = config.batch_norm.across_ranks == AcrossRanks::Sync && place.ranks.world_size() > 1;
    let fused = config.batch_norm.fused && has_fused_batch_norm(place.device);
    let reached = sync.then(|| over_ranks(Arc::clone(&place.ranks), timeline.clone(), fused));
    Model::build(form, seed, config.precision.dtype.kind(), place.device, reached)
}

/// The student and the learners with their initial values, random or from their `checkpoint`, and the teachers from their files.
///
/// # Errors
/// A file of weights that cannot be read or does not fit its network.
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
    let learner = |(name, Learned { form, initial }): (&String, &Learned)| {
        let model = learning(context, *form, config.seed_of_learner(name), &timeline);
        initial.as_ref().map_or(Ok(()), |initial| initial.load(&model))?;
        Ok((name.clone(), model))
    };
    let learners = prepared.learners.iter().map(learner).collect::<Result<_>>()?;
    let networks = Networks::new(student, teachers, config.precision).with_learners(learners);
    Ok(Networks { timeline, ..networks })
}
