//! `iad-launch bench scaling`: the real step on growing numbers of ranks, compared with independent ranks and with the
//! event model of `bench project`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use trainer::config::RunConfig;

use super::output::{check_new, print, write_json};
use super::project::{MeasuredStep, played_as_measured};
use crate::command::{Scaling, ScalingMode};
use crate::console::{counted, percent};
use crate::draw::{Chart, Grid, LegendEntry, Line, NOTHING, Point, document, text};
use crate::start;

const WIDTH: f64 = 760.0;

/// The output of `bench step`.
#[derive(Debug, Clone, Deserialize)]
struct Timed {
    seconds: f64,
    #[serde(default)]
    phases: BTreeMap<String, f64>,
    /// For each rank, the seconds in which it did not wait for sums and other ranks.
    #[serde(default)]
    computing: Vec<f64>,
}

/// Where a step of several ranks loses against as many independent ones: milliseconds of the mean step, which add up to it.
#[derive(Debug, Clone, Serialize, PartialEq)]
struct Lost {
    /// What the mean rank computes longer than an independent one.
    slower: f64,
    /// What the slowest rank of a step computes longer than the mean one.
    uneven: f64,
    /// What that rank waits for: the sums themselves and, where a step has several, others that were slower on the way.
    sums: f64,
}

/// Results for a number of ranks and a mode of scaling.
#[derive(Debug, Clone, Serialize)]
struct Scaled {
    mode: String,
    ranks: usize,
    images_per_step: usize,
    /// Median.
    milliseconds: f64,
    images_per_second: f64,
    /// Images a second and rank, relative to one rank alone with as many images.
    efficiency: f64,
    /// Relative to as many independent ranks at the same time on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_independent: Option<f64>,
    /// Where the difference to them goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_milliseconds: Option<Lost>,
    /// The share of the step in which the leader waited for other ranks and for sums.
    exposed: f64,
    /// Bandwidth of the sum of all gradients, in GB/s.
    bus_gb_per_s: f64,
    /// The prediction of the event model from the independent ranks and the timed sums.
    #[serde(skip_serializing_if = "Option::is_none")]
    modelled_milliseconds: Option<f64>,
}

/// Measures every number of ranks in every mode; prints and writes the table.
///
/// # Errors
/// A mistake of the user; a measurement that fails.
pub(crate) fn run(command: &Scaling) -> Result<()> {
    check_new(command.json.as_deref(), "--json")?;
    check_new(command.figure.as_deref(), "--figure")?;
    let config = RunConfig::read(&command.of.config, &command.of.overrides)?;
    let modes: &[ScalingMode] = match command.mode {
        ScalingMode::Both => &[ScalingMode::Weak, ScalingMode::Strong],
        ScalingMode::Weak => &[ScalingMode::Weak],
        ScalingMode::Strong => &[ScalingMode::Strong],
    };
    let mut all = vec![];
    for mode in modes {
        for &ranks in &command.ranks {
            let ranks = usize::from(ranks);
            if *mode == ScalingMode::Strong && config.batch.size < ranks {
                print(&format!("strong scaling on {ranks} ranks: batch.size has only {} images\n", config.batch.size))?;
                continue;
            }
            print(&format!("{}, {} ...\n", mode.name(), counted(ranks as u64, "rank")))?;
            all.push(measure(command, &config, *mode, ranks)?);
        }
    }
    print(&text(&grid(&all), 140))?;
    print(
        "slower, uneven, sums: what the mean step loses against independent ranks, by computing longer, by waiting for the slowest \
         rank, and by waiting for sums; exposed: the part of the step in which rank 0 waited for sums and other ranks; busbw: of the \
         sum of all gradients; modelled: from independent ranks and the sums timed alone\n",
    )?;
    if let Some(file) = &command.figure {
        draw(&all, file)?;
    }
    command.json.as_ref().map_or(Ok(()), |file| write_json(file, &all))
}

fn measure(command: &Scaling, config: &RunConfig, mode: ScalingMode, ranks: usize) -> Result<Scaled> {
    let each = match mode {
        ScalingMode::Strong => config.batch.size.div_ceil(ranks),
        _ => config.batch.size,
    };
    let images = if mode == ScalingMode::Strong { config.batch.size } else { each * ranks };
    let same = |count: usize| -> Result<Vec<Vec<Timed>>> {
        let alone: Vec<Command> = (0..count).map(|_| started_alone(command, each, ranks)).collect::<Result<_>>()?;
        steps(command, &alone)
    };
    // Alternately, so that other load on the machine slows all alike.
    let (mut together, mut alone, mut independent) = (vec![], vec![], vec![vec![]; ranks]);
    for _ in 0..command.rounds {
        together.extend(steps(command, &[started(command, images, ranks)?])?.swap_remove(0));
        alone.extend(same(1)?.swap_remove(0));
        // GPUs do not share their memory bandwidth, as ranks on one CPU do.
        let apart = if command.independent && ranks > 1 { same(ranks)? } else { vec![] };
        independent.iter_mut().zip(apart).for_each(|(all, one)| all.extend(one));
    }
    let measured = !independent[0].is_empty();
    // A replay is one piece, its sums included.
    let told = measured && together.iter().all(|step| phase(step, "replay") == 0.0);
    let lost_milliseconds = told.then(|| Lost::of(&together, &independent.concat()));
    let (together, alone) = (median(&together), median(&alone));
    let independent = measured.then(|| {
        let each: Vec<Timed> = independent.iter().map(|one| median(one)).collect();
        slowest(&each)
    });
    let sums = if ranks > 1 { sums(command, ranks)? } else { vec![] };
    let largest = sums.last();
    let modelled = independent.as_ref().map(|alone| {
        let measured = MeasuredStep { seconds: alone.seconds, backward: phase(alone, "backward"), sums: &pairs(&sums) };
        played_as_measured(config, command.of.image, command.of.classes, command.of.epoch, ranks, &measured)
    });
    Ok(Scaled {
        mode: mode.name().into(),
        ranks,
        images_per_step: images,
        milliseconds: 1e3 * together.seconds,
        images_per_second: images as f64 / together.seconds,
        efficiency: images as f64 / (each * ranks) as f64 * alone.seconds / together.seconds,
        of_independent: independent
            .map(|alone| images as f64 / (each * ranks) as f64 * alone.seconds / together.seconds),
        lost_milliseconds,
        exposed: phase(&together, "communication") / together.phases.values().sum::<f64>().max(f64::MIN_POSITIVE),
        bus_gb_per_s: largest.map_or(0.0, |sum| sum.bus_gb_per_s),
        modelled_milliseconds: modelled.map(|seconds| 1e3 * seconds),
    })
}

impl Lost {
    /// Between steps of ranks together and steps of independent ranks.
    fn of(together: &[Timed], independent: &[Timed]) -> Self {
        let milliseconds = |of: &dyn Fn(&Timed) -> f64| 1e3 * mean(together.iter().map(of));
        let step = milliseconds(&|step| step.seconds);
        let average = milliseconds(&|step| mean(step.computing.iter().copied()));
        let slowest = milliseconds(&|step| step.computing.iter().copied().fold(f64::NAN, f64::max));
        let apart = 1e3 * mean(independent.iter().map(|step| step.seconds));
        Self { slower: average - apart, uneven: slowest - average, sums: step - slowest }
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn phase(timed: &Timed, name: &str) -> f64 {
    timed.phases.get(name).copied().unwrap_or(0.0)
}

/// `iad-launch bench step` on ranks that share `images`.
fn started(command: &Scaling, images: usize, ranks: usize) -> Result<Command> {
    start::on_ranks(ranks, arguments(command, images))
}

/// One independent rank, with the threads that a rank has beside others.
fn started_alone(command: &Scaling, images: usize, ranks: usize) -> Result<Command> {
    start::one_of(ranks, arguments(command, images))
}

fn arguments(command: &Scaling, images: usize) -> Vec<String> {
    let [channels, height, width] = command.of.image;
    let mut arguments = vec!["bench".to_string(), "step".into(), command.of.config.display().to_string()];
    for set in &command.of.overrides {
        arguments.extend(["--set".into(), format!("{}={}", set.key, set.value)]);
    }
    let device = if command.device.compute() == comm::Compute::Cpu { "cpu" } else { "auto" };
    arguments.extend(
        [
            ("--set", format!("batch.size={images}")),
            ("--set", "batch.per=\"global\"".to_string()),
            ("--image", format!("{channels}x{height}x{width}")),
            ("--classes", command.of.classes.to_string()),
            ("--epoch", command.of.epoch.to_string()),
            ("--steps", (command.steps + 1).to_string()),
            ("--device", device.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_string(), value]),
    );
    arguments
}

/// Runs all of `commands` at once. Their first steps, which allocate memory, do not count.
fn steps(command: &Scaling, commands: &[Command]) -> Result<Vec<Vec<Timed>>> {
    let outputs = together(commands)?;
    let parse = |text: &String| -> Result<Vec<Timed>> {
        let timed: Vec<Timed> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        ensure!(timed.len() == command.steps + 1, "bench step told {} of {} steps", timed.len(), command.steps + 1);
        Ok(timed[1..].to_vec())
    };
    outputs.iter().map(parse).collect()
}

/// The outputs of programs that run at the same time.
fn together(commands: &[Command]) -> Result<Vec<String>> {
    let children: Vec<_> = commands
        .iter()
        .map(|command| {
            let mut again = Command::new(command.get_program());
            again.args(command.get_args());
            again.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            again.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
            again.spawn().with_context(|| format!("starting {}", command.get_program().display()))
        })
        .collect::<Result<_>>()?;
    let outputs: Vec<_> = children.into_iter().map(std::process::Child::wait_with_output).collect();
    outputs
        .into_iter()
        .map(|output| {
            let output = output.context("waiting for a measurement")?;
            if !output.status.success() {
                bail!("a measurement ended with {}; its message is above", output.status);
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        })
        .collect()
}

/// The output of `bench comm`.
#[derive(Debug, Clone, Deserialize)]
struct Sum {
    bytes: f64,
    microseconds: f64,
    bus_gb_per_s: f64,
}

#[derive(Debug, Deserialize)]
struct SumsFile {
    sums: Vec<Sum>,
}

/// Sums of growing sizes up to that of the gradients.
fn sums(command: &Scaling, ranks: usize) -> Result<Vec<Sum>> {
    let folder = std::env::temp_dir().join(format!("iad-bench-{}-{ranks}", std::process::id()));
    let arguments = ["bench", "comm", "--from", "64", "--to", "1048576", "--factor", "4", "--gradients"];
    let mut arguments: Vec<String> = arguments.map(String::from).into();
    arguments.extend([command.of.config.display().to_string(), "--json".into(), folder.display().to_string()]);
    together(&[start::on_ranks(ranks, &arguments)?])?;
    let text = std::fs::read(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let _ = std::fs::remove_file(&folder);
    let mut sums = serde_json::from_slice::<SumsFile>(&text)?.sums;
    sums.sort_by(|one, other| one.bytes.total_cmp(&other.bytes));
    Ok(sums)
}

fn pairs(sums: &[Sum]) -> Vec<(f64, f64)> {
    sums.iter().map(|sum| (sum.bytes, 1e-6 * sum.microseconds)).collect()
}

/// The step of the median time.
fn median(steps: &[Timed]) -> Timed {
    let mut sorted: Vec<&Timed> = steps.iter().collect();
    sorted.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    sorted[sorted.len() / 2].clone()
}

fn slowest(steps: &[Timed]) -> Timed {
    let slowest = steps.iter().max_by(|one, other| one.seconds.total_cmp(&other.seconds));
    slowest.cloned().unwrap_or(Timed { seconds: f64::NAN, phases: BTreeMap::new(), computing: vec![] })
}

fn grid(all: &[Scaled]) -> Grid {
    let columns = [
        "scaling",
        "ranks",
        "images",
        "step ms",
        "images/s",
        "efficiency",
        "of independent",
        "slower",
        "uneven",
        "sums ms",
        "exposed",
        "busbw GB/s",
        "modelled ms",
    ];
    let row = |found: &Scaled| {
        let lost = |part: fn(&Lost) -> f64| {
            found.lost_milliseconds.as_ref().map_or(NOTHING.into(), |lost| format!("{:.1}", part(lost)))
        };
        vec![
            found.mode.clone(),
            found.ranks.to_string(),
            found.images_per_step.to_string(),
            format!("{:.1}", found.milliseconds),
            format!("{:.1}", found.images_per_second),
            percent(found.efficiency),
            found.of_independent.map_or(NOTHING.into(), percent),
            lost(|lost| lost.slower),
            lost(|lost| lost.uneven),
            lost(|lost| lost.sums),
            percent(found.exposed),
            format!("{:.2}", found.bus_gb_per_s),
            found.modelled_milliseconds.map_or(NOTHING.into(), |modelled| format!("{modelled:.1}")),
        ]
    };
    Grid { columns: columns.map(str::to_owned).into(), rows: all.iter().map(row).collect() }
}

fn draw(all: &[Scaled], file: &Path) -> Result<()> {
    let mut modes: Vec<&str> = all.iter().map(|found| found.mode.as_str()).collect();
    modes.dedup();
    let line = |(colour, mode): (usize, &&str)| {
        let points = all.iter().filter(|found| found.mode == **mode).map(|found| Point {
            x: found.ranks as f64,
            y: Some(100.0 * found.efficiency),
            error: 0.0,
        });
        Line { label: (*mode).to_string(), colour, points: points.collect(), ..Line::default() }
    };
    let chart = Chart {
        title: "Scaling efficiency".into(),
        across: "ranks".into(),
        up: "images/s and rank, % of one rank".into(),
        legend: modes
            .iter()
            .enumerate()
            .map(|(index, mode)| LegendEntry { label: (*mode).into(), colour: Some(index), dash: 0 })
            .collect(),
        lines: modes.iter().enumerate().map(line).collect(),
        from_zero: true,
        ..Chart::default()
    };
    let rows = chart.head_rows(WIDTH);
    let picture = document(WIDTH, Chart::height(rows), &chart.title, &chart.body(WIDTH, rows));
    trainer::system::files::write_atomically(file, picture.as_bytes())?;
    print(&format!("figure: {}\n", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(seconds: f64, computing: &[f64]) -> Timed {
        Timed { seconds, phases: BTreeMap::new(), computing: computing.to_vec() }
    }

    #[test]
    fn what_a_step_loses_adds_up_to_the_difference() {
        let together = [step(1.5, &[1.0, 1.25]), step(2.5, &[1.75, 1.0])];
        let lost = Lost::of(&together, &[step(1.0, &[1.0]), step(0.5, &[0.5])]);
        assert_eq!(lost, Lost { slower: 500.0, uneven: 250.0, sums: 500.0 });
        assert_eq!(lost.slower + lost.uneven + lost.sums, 2000.0 - 750.0);
    }
}
