//! `iad-launch bench project`: a run's step on a cluster that is not here, from counted arithmetic and stated links.

mod cluster;
mod measured;
mod simulate;

use std::path::Path;

use anyhow::{Result, ensure};
use datasets::random::{bits, uniform};
use serde::Serialize;
use trainer::config::{AcrossRanks, AttackBatchNorm, AttackKind, GradientDtype, RunConfig};
use trainer::cost::{Forward, Traffic, passes, step_per_image};
use trainer::model::Form;
use trainer::views::STUDENT;

use self::cluster::Cluster;
pub(crate) use self::measured::{Measured, played_as_measured};
use self::simulate::{Played, Work, play};
use super::{check_new, print, write_json};
use crate::command::Project;
use crate::report::chart::{Chart, Key, Line, Point, document};
use crate::report::summary::Grid;
use crate::report::table::text;

/// Steps that are played for each number of GPUs: computing times vary.
const STEPS: u32 = 8;
const WIDTH: f64 = 760.0;

/// A run on so many GPUs of a cluster.
#[derive(Debug, Serialize)]
struct Projected {
    cluster: String,
    gpus: usize,
    images_per_gpu: f64,
    milliseconds: f64,
    images_per_second: f64,
    /// Images a second and GPU, of those of one GPU with as many images.
    efficiency: f64,
    /// The part of the step that communication adds and stragglers make others wait.
    exposed: f64,
}

/// What of a step does not depend on the cluster.
struct Run {
    /// Floating-point operations for one image: of the backward pass to the parameters, and of everything before it.
    backward: f64,
    before: f64,
    /// Bytes of gradients, and of a bucket.
    gradients: f64,
    bucket: f64,
    /// Bytes of batch norm's sums before and in the backward pass, in order.
    sums_before: Vec<f64>,
    sums_in_backward: Vec<f64>,
}

/// Prints the projection, and writes what was asked for.
///
/// # Errors
/// A mistake of the user; a file that cannot be written.
pub(crate) fn run(command: &Project) -> Result<()> {
    check_new(command.json.as_deref(), "--json")?;
    check_new(command.figure.as_deref(), "--figure")?;
    let config = RunConfig::read(&command.config, &command.overrides)?;
    let clusters: Vec<Cluster> = command.cluster.iter().map(|file| Cluster::read(file)).collect::<Result<_>>()?;
    let form = form(command, &config);
    let run = Run::new(&config, form, config.epochs - 1);
    let mut all = vec![];
    for cluster in &clusters {
        let projected: Vec<Projected> =
            command.gpus.iter().map(|gpus| project(command, &config, &run, cluster, *gpus as usize)).collect();
        print(&format!("{}: {form}, {}\n", cluster.name, assumptions(cluster)))?;
        print(&text(&grid(&projected), 120))?;
        print(&format!("sources: {}\n\n", cluster.sources.join("; ")))?;
        all.push(projected);
    }
    print(
        "Projected, not measured: computing time is counted operations at the stated part of the peak, split evenly over \
         buckets and batch norms.\n",
    )?;
    if let Some(file) = &command.figure {
        draw(&all, file)?;
    }
    command.json.as_ref().map_or(Ok(()), |file| write_json(file, &all))
}

fn form(command: &Project, config: &RunConfig) -> Form {
    let summary = datasets::summarise(&config.data.train).ok();
    let found = summary.as_ref().and_then(|summary| Some((summary.splits.first()?.shape, summary.class_names.len())));
    let (image, classes) = found.unwrap_or(([3, 32, 32], 10));
    let classes = command.classes.or(config.student.classes).unwrap_or(classes);
    Form { architecture: config.student.architecture, image: command.image.unwrap_or(image), classes }
}

fn assumptions(cluster: &Cluster) -> String {
    let Cluster { gpu, inside, between, jitter, .. } = cluster;
    format!(
        "{:.0} % of {} TFLOP/s, {} GB/s and {} us in a node, {} GB/s and {} us for each GPU between nodes of {}, computing \
         times vary by {} %",
        100.0 * gpu.utilisation,
        gpu.peak_tflops,
        inside.gigabytes_per_second,
        inside.microseconds,
        between.gigabytes_per_second,
        between.microseconds,
        cluster.gpus_per_node,
        100.0 * jitter,
    )
}

impl Run {
    /// A step of `epoch`, with a student of this form and teachers like it.
    fn new(config: &RunConfig, form: Form, epoch: u64) -> Self {
        let forward = Forward::of(form);
        let traffic = Traffic::of(form);
        let names = config.teachers.keys().cloned().chain([STUDENT.to_string()]);
        let networks = names.map(|name| (name, forward)).collect();
        let whole = 2.0 * step_per_image(config, epoch, &networks) as f64;
        let student = passes(config, epoch)[STUDENT];
        let to_parameters = trainer::cost::Passes { forward: 0, to_image: 0, ..student };
        let backward = 2.0 * to_parameters.multiply_adds(forward) as f64;
        let value = if config.comm.gradient_dtype == GradientDtype::Bfloat16 { 2.0 } else { 4.0 };

        // Forward sums are n, sum x and sum x^2 in float64; backward sums are two gradients for each channel.
        let sync = config.batch_norm.across_ranks == AcrossRanks::Sync;
        let norms = || traffic.batch_norms.iter().filter(|_| sync).map(|channels| *channels as f64);
        let ahead: Vec<f64> = norms().map(|channels| 8.0 * (2.0 * channels + 1.0)).collect();
        let back: Vec<f64> = norms().map(|channels| 16.0 * channels).rev().collect();
        let attacked = config.attack.kind != AttackKind::None && config.attack.batch_norm != AttackBatchNorm::Eval;
        let steps = if attacked { student.to_image } else { 0 };
        let mut sums_before = vec![];
        (0..steps).for_each(|_| sums_before.extend(ahead.iter().chain(&back)));
        let outer = student.forward - if config.attack.kind == AttackKind::None { 0 } else { student.to_image };
        (0..outer).for_each(|_| sums_before.extend(&ahead));
        let mut sums_in_backward = vec![];
        (0..student.to_parameters).for_each(|_| sums_in_backward.extend(&back));
        Self {
            backward,
            before: whole - backward,
            gradients: value * traffic.gradients as f64,
            bucket: config.comm.bucket_mib * 1048576.0,
            sums_before,
            sums_in_backward,
        }
    }

    /// A step that computes `before` seconds, and `backward` seconds in its last backward pass. Where the transport does not
    /// work beside the computation, all gradients travel as one at the end.
    fn step(&self, before: f64, backward: f64, overlaps: bool) -> Vec<Work> {
        let mut step = vec![];
        let parts = |seconds: f64, count: usize| Work::Compute(seconds / count.max(1) as f64);
        let before = parts(before, self.sums_before.len());
        if self.sums_before.is_empty() {
            step.push(before);
        }
        for bytes in &self.sums_before {
            step.extend([before, Work::StartSum(*bytes), Work::FinishSums]);
        }
        // Buckets are filled, and batch norms summed, at even distances. Batch norm waits for its sum, which stands behind
        // the buckets that were started before it.
        let buckets = if overlaps { (self.gradients / self.bucket).ceil().max(1.0) as usize } else { 1 };
        let norms = self.sums_in_backward.len();
        let pieces = buckets + norms;
        let piece = parts(backward, pieces);
        let (mut filled, mut summed) = (0, 0);
        for _ in 0..pieces {
            step.push(piece);
            // The last bucket is full when nothing is left to do.
            let due = if filled + 1 == buckets { summed == norms } else { filled * norms <= summed * buckets };
            if due {
                step.push(Work::StartSum(self.gradients / buckets as f64));
                filled += 1;
            } else {
                step.extend([Work::StartSum(self.sums_in_backward[summed]), Work::FinishSums]);
                summed += 1;
            }
        }
        step.push(Work::FinishSums);
        step
    }
}

fn project(command: &Project, config: &RunConfig, run: &Run, cluster: &Cluster, gpus: usize) -> Projected {
    let images = match command.per_gpu {
        Some(images) => f64::from(images),
        None if command.strong => config.batch.size as f64 / gpus as f64,
        None => config.batch.size as f64,
    };
    let rate = cluster.gpu.peak_tflops * 1e12 * cluster.gpu.utilisation;
    let step = run.step(run.before * images / rate, run.backward * images / rate, true);
    let played: Vec<Played> = (0..STEPS)
        .map(|number| {
            let slowness: Vec<f64> = (0..gpus).map(|gpu| 1.0 + cluster.jitter * deviation(number, gpu)).collect();
            play(&step, &slowness, |bytes| cluster.seconds_of_sum(bytes, gpus))
        })
        .collect();
    let mean = |value: fn(&Played) -> f64| played.iter().map(value).sum::<f64>() / f64::from(STEPS);
    let (seconds, exposed) = (mean(|played| played.seconds), mean(|played| played.exposed));
    let alone = (run.before + run.backward) * images / rate;
    Projected {
        cluster: cluster.name.clone(),
        gpus,
        images_per_gpu: images,
        milliseconds: 1e3 * seconds,
        images_per_second: images * gpus as f64 / seconds,
        efficiency: alone / seconds,
        exposed: exposed / seconds,
    }
}

/// A number of mean 0 and deviation 1, nearly normal: a function of the step and the GPU.
fn deviation(step: u32, gpu: usize) -> f64 {
    let key = u64::from(bits(0x5741_1e55, step)) << 32 | gpu as u64;
    (0..12).map(|element| uniform(key, element)).sum::<f64>() - 6.0
}

fn grid(projected: &[Projected]) -> Grid {
    let columns = ["GPUs", "images/GPU", "step ms", "images/s", "efficiency", "exposed"];
    let row = |found: &Projected| {
        vec![
            found.gpus.to_string(),
            format!("{:.4}", found.images_per_gpu).trim_end_matches('0').trim_end_matches('.').to_string(),
            format!("{:.2}", found.milliseconds),
            format!("{:.0}", found.images_per_second),
            format!("{:.1} %", 100.0 * found.efficiency),
            format!("{:.1} %", 100.0 * found.exposed),
        ]
    };
    Grid { columns: columns.map(str::to_owned).into(), rows: projected.iter().map(row).collect() }
}

fn draw(all: &[Vec<Projected>], file: &Path) -> Result<()> {
    let lines = all.iter().enumerate().map(|(colour, projected)| {
        let point =
            |found: &Projected| Point { x: (found.gpus as f64).log2(), y: Some(100.0 * found.efficiency), error: 0.0 };
        Line { colour, points: projected.iter().map(point).collect(), ..Line::default() }
    });
    let names = all.iter().filter_map(|projected| projected.first()).enumerate();
    let chart = Chart {
        title: "Projected scaling efficiency".into(),
        across: "GPUs, as a power of 2".into(),
        up: "images/s and GPU, % of one GPU".into(),
        legend: names
            .map(|(index, found)| Key { label: found.cluster.clone(), colour: Some(index), dash: 0 })
            .collect(),
        lines: lines.collect(),
        from_zero: true,
        bounds: Some((0.0, 100.0)),
    };
    ensure!(chart.has_data(), "there is nothing to draw");
    let rows = chart.legend_rows(WIDTH);
    let picture = document(WIDTH, Chart::height(rows), &chart.title, &chart.body(WIDTH, rows));
    trainer::checkpoint::write_atomically(file, picture.as_bytes())?;
    print(&format!("figure: {}\n", file.display()))
}

#[cfg(test)]
mod tests;
