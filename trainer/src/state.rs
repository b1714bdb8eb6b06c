//! Saving and restoring a run: the leader reads and writes files, broadcasts give every rank the same state.

use anyhow::{Context, Result};
use comm::Communicator;
use datasets::UserError;
use sha2::{Digest, Sha256};
use tch::{Tensor, no_grad};

use crate::agreement::{Agreed, agree};
use crate::averages::Averages;
use crate::checkpoint::{self, Header, Tensors};
use crate::config::hexadecimal;
use crate::folder::RunFolder;
use crate::model::{Model, Named, cut};
use crate::observe::Sums;
use crate::step::Step;

/// The student's tensors under the names of a checkpoint. Each batch norm gets the pass counter that PyTorch keeps in it.
fn student_tensors(student: &Model) -> Tensors {
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

/// Writes the weights alone, as `best` or `final`.
///
/// # Errors
/// Anything the file system says.
pub fn save_weights(folder: &RunFolder, name: &str, header: &Header, student: &Model) -> Result<()> {
    checkpoint::write(&folder.weights(name), header.clone(), &student_tensors(student))
}

/// Writes the whole state and removes all but the newest `keep` checkpoints.
///
/// # Errors
/// Anything the file system says; older checkpoints are then still there.
pub fn save(folder: &RunFolder, header: &Header, step: &Step, averages: &Averages, keep: usize) -> Result<()> {
    let student = &step.networks.student;
    let mut tensors = student_tensors(student);
    tensors.extend(averages.tensors(student));
    for Named { name, tensor } in cut(&step.optimizer.velocity, &student.parameters) {
        tensors.insert(format!("momentum/{name}"), tensor);
    }
    checkpoint::write(&folder.checkpoint(header.progress.step), header.clone(), &tensors)?;
    folder.prune(keep);
    Ok(())
}

/// Takes up the newest whole checkpoint, if there is one, on every rank. Returns its header and what was wrong with newer
/// ones.
///
/// # Errors
/// A checkpoint of another configuration or shape, or a failure of the transport.
pub fn restore(
    folder: &RunFolder,
    fresh: Header,
    step: &mut Step,
    averages: &Averages,
    ranks: &dyn Communicator,
) -> Result<(Header, Vec<String>)> {
    let (found, problems) = if ranks.is_leader() { folder.newest_valid() } else { (None, vec![]) };
    let loaded = found.map(|(header, tensors)| -> Result<Header> {
        if header.config != fresh.config {
            return Err(UserError::expected(
                "checkpoints of this configuration, as this version of the program states it",
            )
            .file(&folder.path)
            .key("checkpoints")
            .value("those of another configuration or version")
            .hint("choose another folder with --run, or go on with the version named in environment.toml")
            .into());
        }
        if header.global_batch != fresh.global_batch {
            // batch.per = "rank" on another number of ranks: other steps, in which the old ones cannot be counted.
            return Err(UserError::expected(format!(
                "{} images a step, as when the run was stopped",
                header.global_batch
            ))
            .file(&folder.path)
            .key("batch.size on all ranks together")
            .value(fresh.global_batch)
            .hint("resume on as many ranks as before, or set batch.per = \"global\" in a new run")
            .into());
        }
        let student = &step.networks.student;
        load_student(student, &tensors).context("the newest checkpoint")?;
        for Named { name, tensor } in cut(&step.optimizer.velocity, &student.parameters) {
            let momentum = tensors.get(&format!("momentum/{name}"));
            let momentum = momentum.with_context(|| format!("the newest checkpoint has no momentum of {name}"))?;
            no_grad(|| tensor.shallow_clone().copy_(momentum));
        }
        averages.load(student, &tensors)?;
        Ok(header)
    });
    let header = agree(ranks, loaded.transpose())?;
    // What the leader has, every rank gets: no file is needed elsewhere.
    let text = header.map(|header| serde_json::to_string(&header)).transpose()?.unwrap_or_default();
    let text = ranks.gather(&text)?.swap_remove(0);
    if text.is_empty() {
        return Ok((fresh, problems));
    }
    let student = &step.networks.student;
    for tensor in
        [&step.parameters.values, &step.optimizer.velocity, &student.flat_statistics, &student.batches_tracked]
    {
        ranks.broadcast(tensor)?;
    }
    averages.broadcast(ranks)?;
    Ok((serde_json::from_str(&text)?, problems))
}

/// The sums of an unfinished epoch, to the bit.
pub fn sums_from_bits(header: &Header) -> Sums {
    header.totals.iter().map(|(name, bits)| (name.clone(), f64::from_bits(*bits))).collect()
}

/// The opposite of [`sums_from_bits`].
pub fn bits_of_sums(sums: &Sums) -> std::collections::BTreeMap<String, u64> {
    sums.iter().map(|(name, sum)| (name.clone(), sum.to_bits())).collect()
}

/// Adds the sums of a step.
pub fn add(totals: &mut Sums, sums: &Sums) {
    for (name, sum) in sums {
        *totals.entry(name.clone()).or_default() += sum;
    }
}

/// Whether all ranks hold the same parameters, momentum, statistics and averages, to the bit.
///
/// # Errors
/// The ranks that differ from the leader, or a failure of the transport.
pub fn ensure_equal_on_all_ranks(step: &Step, averages: &Averages, ranks: &dyn Communicator) -> Result<()> {
    let state = [&step.parameters.values, &step.optimizer.velocity, &step.networks.student.flat_statistics];
    let digest = |tensor: &Tensor| hexadecimal(&Sha256::digest(checkpoint::bytes_of(tensor)));
    let all = ranks.gather(&state.into_iter().chain(averages.buffers()).map(digest).collect::<String>())?;
    let different: Vec<String> =
        (1..all.len()).filter(|&rank| all[rank] != all[0]).map(|rank| rank.to_string()).collect();
    if different.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the parameters, momentum, statistics or averages of rank {} differ from those of rank 0 at the same step",
        different.join(", ")
    );
    // Every rank has compared the same list.
    Err(Agreed { message, user: false }.into())
}
