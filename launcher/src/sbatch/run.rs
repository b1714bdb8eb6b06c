//! The command: check the configuration, make the script, print, write or submit it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use datasets::{UserError, refuse_existing};
use trainer::config::RunConfig;

use super::script::{Job, quoted};
use crate::command::{Plan, Sbatch, Scheduler};
use crate::console::{Out, say};
use crate::plan;
use crate::train::{refuse_run, seeds_of};

/// Minutes without a plan, and at most with one: the job is requeued until the run is done.
const USUAL: u32 = 4 * 60;
const LONGEST: u32 = 24 * 60;

/// A job's name of letters, digits and the marks that no scheduler splits or refuses.
fn job_name(name: &str) -> String {
    name.chars().map(|one| if one.is_ascii_alphanumeric() || "-_.".contains(one) { one } else { '-' }).collect()
}

/// Prints the script, or writes it and hands it to the scheduler.
///
/// # Errors
/// A mistake of the user; the file cannot be written; the scheduler refuses.
pub(crate) fn run(command: &Sbatch) -> Result<()> {
    // A mistake is told here, not by the queue.
    let config = RunConfig::read(&command.config, &command.overrides)?;
    if !seeds_of(&config, &command.seeds)?.is_empty()
        && let Some(folder) = &command.run
    {
        refuse_run(folder)?;
    }
    let name = command.config.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = command.to.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.{}", command.scheduler.ending())));
    let ranks_per_node = command.ranks_per_node.unwrap_or(command.gpus_per_node.max(1));
    if command.gpus_per_node > 0 && ranks_per_node > command.gpus_per_node {
        return Err(UserError::expected(format!("at most {}, one rank for each GPU", command.gpus_per_node))
            .key("--ranks-per-node")
            .value(ranks_per_node)
            .into());
    }
    let job = Job {
        name: job_name(&name),
        nodes: command.nodes,
        ranks_per_node,
        gpus_per_node: command.gpus_per_node,
        cores: command.cores,
        limit: limit(command, ranks_per_node)?,
        mpirun: command.mpirun,
        lines: command.line.clone(),
        command: line(command)?,
        file: quoted(&file.to_string_lossy()),
    };
    let text = job.text(command.scheduler);
    if command.to.is_none() && !command.submit {
        return write!(Out, "{text}").context("writing to the terminal");
    }
    refuse_existing(&file)?;
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    say(&format!("written {}", file.display()));
    if command.submit { submit(command.scheduler, &file) } else { Ok(()) }
}

/// The program with the arguments of the run.
fn line(command: &Sbatch) -> Result<String> {
    let program = std::env::current_exe().context("finding this program's file")?;
    let mut words = vec![program.to_string_lossy().into_owned(), command.config.to_string_lossy().into_owned()];
    for change in &command.overrides {
        words.extend(["--set".into(), format!("{}={}", change.key, change.value)]);
    }
    if !command.seeds.is_empty() {
        let seeds: Vec<String> = command.seeds.iter().map(u64::to_string).collect();
        words.extend(["--seeds".into(), seeds.join(",")]);
    }
    if let Some(run) = &command.run {
        words.extend(["--run".into(), run.to_string_lossy().into_owned()]);
    }
    if command.gpus_per_node == 0 {
        words.extend(["--device".into(), "cpu".into()]);
    }
    Ok(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

/// Minutes: those that were asked for, else a quarter more than the plan says in half hours, else the usual ones.
fn limit(command: &Sbatch, ranks_per_node: u16) -> Result<u32> {
    if let (None, Some(gpu)) = (command.time, &command.gpu) {
        let of = Plan {
            config: command.config.clone(),
            overrides: command.overrides.clone(),
            seeds: command.seeds.clone(),
            ranks: Some(command.nodes.saturating_mul(ranks_per_node)),
            gpu: Some(gpu.clone()),
            image: None,
            classes: None,
            images: None,
            json: false,
        };
        return Ok(rounded(plan::seconds(&of)?));
    }
    Ok(command.time.unwrap_or(USUAL))
}

fn rounded(seconds: f64) -> u32 {
    let half_hours = (1.25 * seconds / 1800.0).ceil().clamp(1.0, f64::from(LONGEST) / 30.0);
    30 * half_hours as u32
}

fn submit(scheduler: Scheduler, file: &Path) -> Result<()> {
    let name = match scheduler {
        Scheduler::Slurm => "sbatch",
        Scheduler::Pbs => "qsub",
        Scheduler::Lsf => "bsub",
    };
    let mut program = Command::new(name);
    match scheduler {
        Scheduler::Lsf => program.stdin(File::open(file)?),
        Scheduler::Slurm | Scheduler::Pbs => program.arg(file),
    };
    let status = program.status().map_err(|problem| {
        UserError::expected(format!("the scheduler's {name} on this machine"))
            .key("--submit")
            .value(problem)
            .hint(format!("start it on a login node of the cluster, or hand in {} by hand", file.display()))
    })?;
    if !status.success() {
        bail!("{name} {} failed: {status}", file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_room_and_an_end() {
        assert_eq!([60.0, 3600.0, 7200.0, 1e6].map(rounded), [30, 90, 150, 1440]);
    }
}
