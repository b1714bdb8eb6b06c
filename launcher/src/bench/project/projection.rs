//! `iad-launch bench project`: the step of a run on another cluster, from counted arithmetic and stated links.

use std::path::Path;

use anyhow::{Result, ensure};
use datasets::random::{bits, uniform};
use serde::Serialize;
use trainer::config::RunConfig;
use trainer::model::ModelSpec;
use trainer::run::cost::{Forward, Traffic};

use super::super::output::{check_new, print, write_json};
use super::cluster::Cluster;
use super::simulate::{Played, play};
use super::step_model::{StepModel, learners};
use crate::command::Project;
use crate::console::percent;
use crate::draw::{Chart, Grid, LegendEntry, Line, Point, document, text};

/// Steps simulated for each number of GPUs, since computing times vary.
const STEPS: u32 = 8;
const WIDTH: f64 = 760.0;

/// A run on a number of GPUs of a cluster.
#[derive(Debug, Serialize)]
struct Projected {
    cluster: String,
    gpus: usize,
    images_per_gpu: f64,
    milliseconds: f64,
    images_per_second: f64,
    /// Images a second and GPU, relative to one GPU with as many images.
    efficiency: f64,
    /// The share of the step added by communication and by waiting for stragglers.
    exposed: f64,
}

/// Prints the projection and writes the requested files.
///
/// # Errors
/// A mistake of the user; a file that cannot be written.
pub(crate) fn run(command: &Project) -> Result<()> {
    check_new(command.json.as_deref(), "--json")?;
    check_new(command.figure.as_deref(), "--figure")?;
    let config = RunConfig::read(&command.config, &command.overrides)?;
    let clusters: Vec<Cluster> = command.cluster.iter().map(|file| Cluster::read(file)).collect::<Result<_>>()?;
    let form = form(command, &config);
    let (forward, traffic) = (Forward::of(form), Traffic::of(form));
    let learners = learners(&config, form);
    let mut all = vec![];
    for cluster in &clusters {
        let of_gpus = |gpus: usize| {
            let fused = config.batch_norm.fused.then_some(gpus);
            let run = StepModel::counted(&config, config.epochs - 1, forward, &traffic, &learners, fused);
            project(command, &config, &run, cluster, gpus)
        };
        let projected: Vec<Projected> = command.gpus.iter().map(|gpus| *gpus as usize).map(of_gpus).collect();
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

fn form(command: &Project, config: &RunConfig) -> ModelSpec {
    let summary = datasets::summarise(&config.data.train).ok();
    let found = summary.as_ref().and_then(|summary| Some((summary.splits.first()?.shape, summary.class_names.len())));
    let (image, classes) = found.unwrap_or(([3, 32, 32], 10));
    let classes = command.classes.or(config.student.classes).unwrap_or(classes);
    ModelSpec::new(config.student.architecture, command.image.unwrap_or(image), classes)
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

fn project(command: &Project, config: &RunConfig, run: &StepModel, cluster: &Cluster, gpus: usize) -> Projected {
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

/// A nearly normal number of mean 0 and deviation 1: a function of the step and the GPU.
pub(super) fn deviation(step: u32, gpu: usize) -> f64 {
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
            percent(found.efficiency),
            percent(found.exposed),
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
            .map(|(index, found)| LegendEntry { label: found.cluster.clone(), colour: Some(index), dash: 0 })
            .collect(),
        lines: lines.collect(),
        from_zero: true,
        bounds: Some((0.0, 100.0)),
        ..Chart::default()
    };
    ensure!(chart.has_data(), "there is nothing to draw");
    let rows = chart.head_rows(WIDTH);
    let picture = document(WIDTH, Chart::height(rows), &chart.title, &chart.body(WIDTH, rows));
    trainer::system::files::write_atomically(file, picture.as_bytes())?;
    print(&format!("figure: {}\n", file.display()))
}
