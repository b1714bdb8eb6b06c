//! Saving and restoring a run: the leader reads and writes files, broadcasts give every rank the same state.

use std::io::ErrorKind;

use anyhow::{Context, Result};
use comm::Communicator;
use datasets::UserError;
use tch::{Tensor, no_grad};

use crate::config::STUDENT;
use crate::model::{Model, Named, cut};
use crate::run::averages::Averages;
use crate::run::changes::{Change, changes};
use crate::run::checkpoints::{Newest, newest};
use crate::run::context::RunContext;
use crate::run::events::Event;
use crate::run::metrics::JsonLines;
use crate::run::totals::EpochTotals;
use crate::run::writer::{Contents, WeightsFile};
use crate::step::Step;
use crate::step::guard::Trained;
use crate::system::agreement::agree;
use crate::system::files::{in_words, read_regular};
use crate::weights::checkpoint::{self, Header, Progress, Tensors};
use crate::weights::guarding::Guarding;
use crate::weights::student::{load_network, network_tensors, student_tensors};

/// The state of a run in memory, beside its tensors. Nothing here depends on the number of ranks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunState {
    /// How far the run is.
    pub progress: Progress,
    /// The best selection accuracy so far: correct answers under attack.
    pub best: Option<u64>,
    /// The step after which the student was last measured on the images that choose the best weights, and its correct answers.
    pub measured: Option<(u64, u64)>,
    /// The totals of the epoch so far.
    pub totals: EpochTotals,
    /// The length of metrics.jsonl at the last checkpoint.
    pub metrics_bytes: u64,
    /// Seconds of training at the last checkpoint, over all sessions.
    pub seconds: f64,
    /// How many seconds had passed when the epoch began.
    pub epoch_began: f64,
    /// What the guards remember.
    pub guarding: Guarding,
}

impl RunState {
    /// The header of a file with this state of the run of `context`.
    pub(super) fn header(&self, context: &RunContext) -> Header {
        let Self { progress, best, measured, ref totals, metrics_bytes, seconds, epoch_began, ref guarding } = *self;
        let (totals, guarding) = (totals.to_bits(), guarding.clone());
        let selection = measured.filter(|(step, _)| *step == progress.step).map(|(_, correct)| correct);
        let fresh = Header::new(context.prepared.form, context.config.hash(), context.global_batch());
        let class_names = context.prepared.train.class_names().to_vec();
        let header = Header { progress, best, totals, metrics_bytes, seconds, epoch_began, ..fresh };
        Header { selection, class_names, guarding, ..header }
    }

    /// The state that a file tells of.
    fn from_header(header: &Header) -> Result<Self> {
        let Header { progress, best, ref totals, metrics_bytes, seconds, epoch_began, selection, .. } = *header;
        let measured = selection.map(|correct| (progress.step, correct));
        let (totals, guarding) = (EpochTotals::from_bits(totals)?, header.guarding.clone());
        Ok(Self { progress, best, measured, totals, metrics_bytes, seconds, epoch_began, guarding })
    }
}

/// A file of weights alone, such as `best` or `final`. No clock is in it: equal weights make equal files.
///
/// # Errors
/// libtorch's error of the device.
pub fn weights_file(context: &RunContext, state: &RunState, name: &str, student: &Model) -> Result<WeightsFile> {
    let RunState { progress, best, .. } = *state;
    let state = RunState { progress, best, ..RunState::default() };
    let contents = Contents::new(state.header(context), &student_tensors(student))?;
    Ok(WeightsFile { name: name.to_string(), contents })
}

/// A copy of the whole state, for a checkpoint.
///
/// # Errors
/// libtorch's error of the device.
pub fn contents(context: &RunContext, state: &RunState, step: &Step, averages: &Averages) -> Result<Contents> {
    Contents::new(state.header(context), &tensors(step, averages))
}

/// Where the tensors of a network that learns lie in a checkpoint.
fn place_of(one: Trained) -> String {
    one.learner.map_or(STUDENT.into(), |name| format!("learners/{name}"))
}

/// Where the `state` of its optimizer lies.
fn state_of(one: Trained, state: &str) -> String {
    one.learner.map_or(state.into(), |name| format!("learners/{name}/{state}"))
}

/// The number of a learner's updates, which may begin in any epoch. The student's are the steps of the run.
fn own_updates(one: Trained<'_>) -> Option<&Tensor> {
    one.learner.and(one.optimizer.updates())
}

/// All tensors of a checkpoint.
pub fn tensors(step: &Step, averages: &Averages) -> Tensors {
    let mut tensors = Tensors::new();
    tensors.extend(averages.tensors(&step.work.networks.student));
    for one in step.work.trained() {
        tensors.extend(network_tensors(&place_of(one), one.model));
        for (state, buffer) in one.optimizer.buffers() {
            let named = cut(buffer, &one.model.parameters).into_iter();
            tensors.extend(named.map(|Named { name, tensor }| (format!("{}/{name}", state_of(one, state)), tensor)));
        }
        tensors.extend(own_updates(one).map(|updates| (state_of(one, "updates"), updates.shallow_clone())));
    }
    let remembered = step.work.networks.memory.tensors().into_iter();
    tensors.extend(remembered.map(|Named { name, tensor }| (format!("memory/{name}"), tensor)));
    tensors
}

/// Takes up the newest whole checkpoint that fits metrics.jsonl, if there is one, on every rank. Returns its state, and the
/// leader's events: keys that changed since, and what was wrong with newer ones or with the best weights.
///
/// # Errors
/// Files that cannot be read; checkpoints of which none can be taken; one of another configuration or shape; or a failure of
/// the transport.
pub fn restore(context: &RunContext, step: &mut Step, averages: &Averages) -> Result<(RunState, Vec<Event>)> {
    let ranks = context.ranks();
    let found = || newest(context.folder, JsonLines::length(&context.folder.file("metrics.jsonl"))?);
    let found = agree(ranks, if ranks.is_leader() { found() } else { Ok(None) })?;
    let mut events = vec![];
    let loaded = found.map(|Newest { mut header, tensors, refused }| -> Result<Header> {
        check_global_batch(&header, context)?;
        let changes = changes_since(&header, context)?;
        events.extend(changes.into_iter().map(|Change { key, before, now }| Event::Changed { key, before, now }));
        let mut warn = |message: String| events.push(Event::Warned { message });
        if !refused.is_empty() {
            let taken = context.folder.checkpoint(header.progress.step);
            warn(format!("{}; going back to {}", refused.join("; "), taken.display()));
        }
        if header.best.is_some()
            && let Some(problem) = lost_best(context)?
        {
            warn(problem);
            header.best = None;
        }
        take_up(step, &tensors).context("the newest checkpoint")?;
        averages.load(&step.work.networks.student, &tensors)?;
        Ok(header)
    });
    let header = agree(ranks, loaded.transpose())?;
    Ok((share(header, step, averages, ranks)?.unwrap_or_default(), events))
}

/// Takes up the checkpoint after `saved` steps again, on every rank, and returns its state.
///
/// # Errors
/// A checkpoint that cannot be read, or a failure of the transport.
pub fn go_back_to(context: &RunContext, step: &mut Step, averages: &Averages, saved: u64) -> Result<RunState> {
    let ranks = context.ranks();
    let load = || -> Result<Option<Header>> {
        let (header, tensors) = checkpoint::read(&context.folder.checkpoint(saved))?;
        take_up(step, &tensors)?;
        averages.load(&step.work.networks.student, &tensors)?;
        Ok(Some(header))
    };
    let header = agree(ranks, if ranks.is_leader() { load() } else { Ok(None) })?;
    share(header, step, averages, ranks)?.context("the leader has a checkpoint")
}

/// Loads the student, the learners, the optimizers' states and the method's memory of a checkpoint.
pub(super) fn take_up(step: &Step, tensors: &Tensors) -> Result<()> {
    for one in step.work.trained() {
        load_network(&place_of(one), one.model, tensors)?;
        for (state, buffer) in one.optimizer.buffers() {
            let state = state_of(one, state);
            for Named { name, tensor } in cut(buffer, &one.model.parameters) {
                let saved = tensors.get(&format!("{state}/{name}"));
                let saved = saved.with_context(|| format!("there is no {state} of {name}"))?;
                no_grad(|| tensor.shallow_clone().copy_(saved));
            }
        }
        if let Some(updates) = own_updates(one) {
            let saved = tensors.get(&state_of(one, "updates")).context("there is no number of updates of a learner")?;
            no_grad(|| updates.shallow_clone().copy_(saved));
        }
    }
    for Named { name, tensor } in step.work.networks.memory.tensors() {
        let saved = tensors.get(&format!("memory/{name}"));
        let saved = saved.with_context(|| format!("there is no {name} of the method"))?;
        no_grad(|| tensor.shallow_clone().copy_(saved));
    }
    Ok(())
}

/// Gives every rank what the leader has taken up: no file is needed elsewhere. Nothing where the leader has no `header`.
fn share(
    header: Option<Header>,
    step: &mut Step,
    averages: &Averages,
    ranks: &dyn Communicator,
) -> Result<Option<RunState>> {
    let text = header.map(|header| serde_json::to_string(&header)).transpose()?.unwrap_or_default();
    let text = ranks.gather(&text)?.swap_remove(0);
    if text.is_empty() {
        return Ok(None);
    }
    for one in step.work.trained() {
        for tensor in [&one.parameters.values, &one.model.flat_statistics, &one.model.batches_tracked] {
            ranks.broadcast(tensor)?;
        }
        one.optimizer.buffers().into_iter().try_for_each(|(_, buffer)| ranks.broadcast(buffer))?;
        own_updates(one).map_or(Ok(()), |updates| ranks.broadcast(updates))?;
    }
    averages.broadcast(ranks)?;
    step.work.networks.memory.tensors().iter().try_for_each(|named| ranks.broadcast(&named.tensor))?;
    let state = RunState::from_header(&serde_json::from_str(&text)?)?;
    step.work.optimizer.resume_after(state.progress.step - state.guarding.skipped);
    Ok(Some(state))
}

/// What is wrong with the best weights so far, where they are missing or damaged.
///
/// # Errors
/// A file that is there and cannot be read.
fn lost_best(context: &RunContext) -> Result<Option<String>> {
    let path = context.folder.weights("best");
    let found = match read_regular(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => "are missing".to_string(),
        Err(error) => {
            return Err(UserError::expected("the best weights so far, in a file that can be read")
                .file(&path)
                .value(in_words(&error))
                .hint("make the file readable and give the same command again; to go on without it, move it away")
                .into());
        }
        Ok(bytes) => match checkpoint::from_bytes(&bytes) {
            Ok(_) => return Ok(None),
            Err(error) => format!("are damaged ({error:#})"),
        },
    };
    Ok(Some(format!(
        "the best weights so far, {}, {found}: the best weights of this run are chosen among the epochs still to come, or \
         are the final ones",
        path.display()
    )))
}

/// The keys that changed since a checkpoint was saved.
///
/// # Errors
/// A checkpoint of a configuration that this run folder never had.
fn changes_since(header: &Header, context: &RunContext) -> Result<Vec<Change>> {
    let RunContext { config, folder, .. } = *context;
    if header.config == config.hash() {
        return Ok(vec![]);
    }
    let earlier = folder.earlier_configs()?.into_iter().find(|earlier| earlier.hash() == header.config);
    let error = || {
        UserError::expected("checkpoints of this configuration, as this version of the program states it")
            .file(&folder.path)
            .key("checkpoints")
            .hint("choose another folder with --run, or go on with the version named in environment.toml")
    };
    let earlier = earlier.ok_or_else(|| error().value("those of another configuration or version"))?;
    Ok(changes(&earlier, config, true).map_err(|refused| error().value(refused.join("; ")))?)
}

/// Refuses a checkpoint of another global batch.
fn check_global_batch(header: &Header, context: &RunContext) -> Result<()> {
    if header.global_batch != context.global_batch() {
        // batch.per = "rank" on another number of ranks: other steps, in which the old ones cannot be counted.
        return Err(UserError::expected(format!("{} images a step, as when the run was stopped", header.global_batch))
            .file(&context.folder.path)
            .key("batch.size on all ranks together")
            .value(context.global_batch())
            .hint("resume on as many ranks as before, or set batch.per = \"global\" in a new run")
            .into());
    }
    Ok(())
}
