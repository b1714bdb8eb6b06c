//! The plan as text.

use std::fmt::Write as _;

use super::launches::Kernels;
use super::numbers::StepWork;
use super::planned::{OverSeeds, Planned};
use crate::console::{bytes, counted, duration, operations};
use crate::draw::grouped;

/// The plan, a line for each subject and two for each warning.
pub(super) fn text(plan: &Planned) -> String {
    let mut rows = vec![
        ("run", format!("{} on {}, configuration {}", plan.config, ranks(plan.ranks), &plan.config_sha256[..12])),
        ("student", format!("{}, {} parameters", plan.network, grouped(plan.parameters as i64))),
        ("images", images(plan)),
    ];
    rows.extend(extra(plan).map(|extra| ("", extra)));
    rows.push(("precision", plan.precision.clone()));
    rows.push(("step", step(plan)));
    rows.extend(plan.work.iter().map(|work| ("work", work_text(work))));
    rows.push((
        "",
        format!(
            "training {}, selection {}, evaluation {}",
            operations(plan.training_operations),
            operations(plan.selection_operations),
            operations(plan.evaluation_operations)
        ),
    ));
    rows.push(("sums", sums(plan)));
    rows.extend(plan.kernels.as_ref().map(|kernels| ("kernels", kernels_text(kernels))));
    rows.push(("memory", memory(plan)));
    rows.push(("time", time(plan)));
    rows.push(("", format!("by {}", plan.time.basis)));
    rows.push(("disk", format!("{} of checkpoints and weights", bytes(plan.disk_bytes))));
    rows.extend(plan.over_seeds.as_ref().map(|all| ("seeds", over_seeds(all))));
    let mut text = rows.into_iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<10}{value}");
        text
    });
    for warning in &plan.warnings {
        let _ = writeln!(text, "\nwarning: {}\n  next: {}", warning.text, warning.next);
    }
    text
}

fn ranks(ranks: usize) -> String {
    if ranks == 1 { "1 rank".into() } else { format!("{ranks} ranks") }
}

fn images(plan: &Planned) -> String {
    let images = &plan.images;
    let [channels, height, width] = images.shape;
    format!(
        "{} to train on, {} to select by, {} to test on; {channels}x{height}x{width}, {} classes ({})",
        grouped(images.train as i64),
        grouped(images.selection as i64),
        grouped(images.test as i64),
        images.classes,
        images.source
    )
}

fn extra(plan: &Planned) -> Option<String> {
    let extra = plan.images.extra.as_ref()?;
    let images = extra.images.map_or("images".into(), |images| format!("{} images", grouped(images as i64)));
    let size = extra.bytes.map_or(String::new(), |size| format!(", {} on disk", bytes(size as f64)));
    let count = plan.steps.extra.unwrap_or(0);
    Some(format!("{} of each step drawn from the {images} of {}{size}", grouped(count as i64), extra.file))
}

fn step(plan: &Planned) -> String {
    let steps = &plan.steps;
    let share = if steps.least == steps.most {
        format!("{} of each rank", grouped(steps.most as i64))
    } else {
        format!("{} to {} of a rank", steps.least, steps.most)
    };
    format!(
        "{} images, {share}; {} steps of an epoch, {} of the run",
        grouped(steps.images as i64),
        grouped(steps.per_epoch as i64),
        grouped(steps.all as i64)
    )
}

fn work_text(work: &StepWork) -> String {
    let share = |part: f64| 100.0 * part / work.all().max(1.0);
    format!(
        "from epoch {}: {} for each image of a step (attack {:.0} %, predictions {:.0} %, backward {:.0} %)",
        work.from_epoch,
        operations(work.all()),
        share(work.attack),
        share(work.predictions),
        share(work.backward)
    )
}

fn sums(plan: &Planned) -> String {
    if plan.ranks == 1 {
        return "none: one rank sends nothing".into();
    }
    let sums = &plan.sums;
    let norms = match sums.batch_norm {
        0 => String::new(),
        count => format!(", {} of batch norm ({})", grouped(count as i64), bytes(sums.batch_norm_bytes)),
    };
    format!("in a step: gradients ({}){norms}", bytes(sums.gradient_bytes))
}

fn kernels_text(kernels: &Kernels) -> String {
    let count = |all: f64| grouped(all as i64);
    let fused = kernels.not_fused_and_fused.map_or(String::new(), |[without, with]| {
        format!(": {} without batch_norm.fused, {} with it", count(without), count(with))
    });
    let recorded = if kernels.recorded { ", in a CUDA graph" } else { "" };
    let [before, backward] = [kernels.all - kernels.in_backward, kernels.in_backward].map(count);
    format!(
        "about {} of a step on each GPU{recorded} ({before} before the last backward pass, {backward} in it){fused}; counted, not measured",
        count(kernels.all)
    )
}

fn memory(plan: &Planned) -> String {
    let memory = &plan.memory;
    let activations = memory.activations.map_or(String::new(), |known| format!(", activations {}", bytes(known)));
    let teachers = if memory.teachers > 0.0 { format!(", teachers {}", bytes(memory.teachers)) } else { String::new() };
    let learners = if memory.learners > 0.0 { format!(", learners {}", bytes(memory.learners)) } else { String::new() };
    format!(
        "about {} of each rank, beside libraries and images: student with gradients and momentum {}{learners}{teachers}{activations}",
        bytes(memory.all()),
        bytes(memory.student)
    )
}

fn time(plan: &Planned) -> String {
    let time = &plan.time;
    let step: Vec<String> = time.step.iter().map(|seconds| milliseconds(*seconds)).collect();
    format!(
        "about {}: training {} (a step {}), selection {}, evaluation {}",
        duration(time.all()),
        duration(time.training),
        step.join(", then "),
        duration(time.selection),
        duration(time.evaluation)
    )
}

fn over_seeds(all: &OverSeeds) -> String {
    let seeds: Vec<String> = all.seeds.iter().map(u64::to_string).collect();
    format!(
        "{} ({}), one after another: about {} and {} of disk in all; the lines above are of one",
        counted(seeds.len() as u64, "run"),
        seeds.join(", "),
        duration(all.seconds),
        bytes(all.disk_bytes)
    )
}

fn milliseconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", 1e3 * seconds) } else { format!("{seconds:.1} s") }
}
