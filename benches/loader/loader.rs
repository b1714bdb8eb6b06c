//! How fast training batches are made, as ratios of one run: `cargo run --release -p datasets --example loader -- PYTHON`.
//!
//! CSV on stdout, a line for each measurement; progress on stderr. Docs: benches/loader/README.md.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use datasets::{About, Augment, Container, Extra, Layout, Pipeline, Policy, Shard, Source, Split, write_from};

/// What one H100 can consume in a step of IAD with ResNet-18, in images a second: an estimate.
const CONSUMED: f64 = 10_000.0;
const RUNS: usize = 5;
/// Bytes of images that are read at once.
const WINDOW: usize = 128 << 20;

/// Images of smooth patterns under noise, made as they are asked for.
struct Made {
    count: usize,
    shape: [usize; 3],
    class_names: Vec<String>,
}

impl Made {
    fn new(count: usize, shape: [usize; 3]) -> Self {
        Self { count, shape, class_names: (0..10).map(|class| format!("class {class}")).collect() }
    }
}

impl Source for Made {
    fn len(&self) -> usize {
        self.count
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, sample: usize) -> i64 {
        (sample % 10) as i64
    }

    fn read(&self, sample: usize, image: &mut [u8]) -> Result<()> {
        let mut state = sample as u64 + 1;
        for (place, pixel) in image.iter_mut().enumerate() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *pixel = (place / 8 * 3 + sample) as u8 / 2 + (state >> 60) as u8;
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["hold", reading, path, rank, ranks] => hold(reading, Path::new(path), rank.parse()?, ranks.parse()?),
        ["augment"] => measure_augmentations(),
        [python] => measure(python),
        _ => anyhow::bail!("expected the python of a torch installation, or augment, as the only argument"),
    }
}

fn measure(python: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    writeln!(stdout(), "what,reading,threads,run,value,unit")?;
    let path = make(folder.path(), "contiguous", 50_000, [3, 32, 32], &Layout::default())?;
    let chunked = Layout { chunk: Some(64), ..Layout::default() };
    let chunked = make(folder.path(), "chunked", 50_000, [3, 32, 32], &chunked)?;
    let deflated = Layout { chunk: Some(64), compress: Some(1), ..Layout::default() };
    let deflated = make(folder.path(), "deflated", 50_000, [3, 32, 32], &deflated)?;
    let extra = make(folder.path(), "extra", 200_000, [3, 32, 32], &Layout::default())?;
    let mut rates = vec![];
    for (name, path, stream, extra) in [
        ("resident", &path, false, None),
        ("streaming", &path, true, None),
        ("resident with extra", &path, false, Some(&extra)),
        ("streaming with extra", &path, true, Some(&extra)),
        ("streaming chunks", &chunked, true, None),
        ("streaming deflated chunks", &deflated, true, None),
    ] {
        for threads in [1, 2] {
            let mut pipeline = pipeline(path, stream, threads, Shard { rank: 0, world_size: 1 })?;
            if let Some(extra) = extra {
                pipeline.extra =
                    Some(Extra { source: Arc::new(Container::stream(extra, Split::Train)?), fraction: 0.7 });
                pipeline.window = WINDOW;
            }
            rates.push((name, threads, rate(name, &pipeline)?));
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/loader/dataloader.py");
    let output = Command::new(python).arg(script).arg(RUNS.to_string()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "dataloader.py failed");
    let mut others = vec![];
    for (run, line) in String::from_utf8(output.stdout)?.lines().enumerate() {
        let value: f64 = line.parse()?;
        others.push(value);
        writeln!(stdout(), "batches,PyTorch DataLoader,2,{run},{value:.0},images/s")?;
    }
    let other = median(others);
    let of = |name: &str, threads: usize| {
        rates.iter().find(|rate| (rate.0, rate.1) == (name, threads)).map_or(f64::NAN, |rate| rate.2)
    };
    for threads in [1, 2] {
        let resident = of("resident", threads);
        for (what, value) in [
            ("resident / consumed by an H100", resident / CONSUMED),
            ("resident / DataLoader with 2 workers", resident / other),
            ("streaming / resident", of("streaming", threads) / resident),
            ("streaming chunks / resident", of("streaming chunks", threads) / resident),
            ("streaming deflated chunks / resident", of("streaming deflated chunks", threads) / resident),
            ("resident with extra / resident", of("resident with extra", threads) / resident),
            ("streaming with extra / resident", of("streaming with extra", threads) / resident),
        ] {
            writeln!(stdout(), "{what},,{threads},,{value:.3},ratio")?;
        }
    }
    let large = make(folder.path(), "large", 100_000, [3, 64, 64], &Layout::default())?;
    for reading in ["resident", "streaming"] {
        for ranks in [1, 2, 4, 8] {
            memory(reading, &large, ranks)?;
        }
    }
    Ok(())
}

/// Images a second of 32 x 32 pixels in three channels under each augmentation, on 2 threads.
fn measure_augmentations() -> Result<()> {
    let folder = tempfile::tempdir()?;
    writeln!(stdout(), "what,reading,threads,run,value,unit")?;
    let path = make(folder.path(), "contiguous", 20_000, [3, 32, 32], &Layout::default())?;
    let plain = Augment { crop: 4, flip: true, ..Augment::default() };
    let policy = |policy: Policy, crop: usize| Augment { policy: Some(policy), crop, ..plain.clone() };
    for (name, augment) in [
        ("crop and flip", plain.clone()),
        ("cutout", Augment { cutout: 16, ..plain.clone() }),
        ("cutmix", Augment { cutmix: 1.0, ..plain.clone() }),
        ("auto_augment", policy(Policy::AutoAugment, 4)),
        ("rand_augment", policy(Policy::RandAugment, 4)),
        ("trivial_augment", policy(Policy::TrivialAugment, 4)),
        ("idbh_strong", policy(Policy::IdbhStrong, 0)),
    ] {
        let mut pipeline = pipeline(&path, false, 2, Shard { rank: 0, world_size: 1 })?;
        pipeline.augment = Some(augment);
        rate(name, &pipeline)?;
    }
    Ok(())
}

fn make(folder: &Path, name: &str, count: usize, shape: [usize; 3], layout: &Layout) -> Result<PathBuf> {
    let path = folder.join(format!("{name}.h5"));
    let made = Made::new(count, shape);
    let about = About { name: name.into(), class_names: made.class_names.clone(), ..About::default() };
    write_from(&path, &about, &[(Split::Train, &made)], layout)?;
    let size = fs::metadata(&path)?.len();
    writeln!(stdout(), "container of {count} images,{name},,,{:.1},MB", size as f64 / 1e6)?;
    Ok(path)
}

fn pipeline(path: &Path, stream: bool, threads: usize, shard: Shard) -> Result<Pipeline> {
    let split = Split::Train;
    let source: Arc<dyn Source> =
        Arc::new(if stream { Container::stream(path, split)? } else { Container::map(path, split)? });
    let augment = Some(Augment { crop: 4, flip: true, ..Augment::default() });
    let window = if stream { WINDOW } else { 0 };
    Ok(Pipeline { source, extra: None, augment, shard, global_batch: 128, seed: 1, ahead: 4, threads, window })
}

/// Images a second over an epoch, the median of some epochs after a first one that fills the page cache.
fn rate(name: &str, pipeline: &Pipeline) -> Result<f64> {
    let threads = pipeline.threads;
    // A second source fills the last batch up.
    let batches = pipeline.batches_per_epoch() * pipeline.global_batch;
    let expected = if pipeline.extra.is_some() { batches } else { pipeline.source.len() };
    let mut rates = vec![];
    for run in 0..=RUNS {
        let began = Instant::now();
        let mut images = 0;
        for batch in pipeline.epoch(run as u64, 0) {
            images += batch?.labels.len();
        }
        ensure!(images == expected, "{images} images of {expected}");
        let rate = images as f64 / began.elapsed().as_secs_f64();
        if run > 0 {
            writeln!(stdout(), "batches,{name},{threads},{run},{rate:.0},images/s")?;
            rates.push(rate);
        }
    }
    Ok(median(rates))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Makes a rank's batches of an epoch, says so, and waits to be looked at.
fn hold(reading: &str, path: &Path, rank: usize, world_size: usize) -> Result<()> {
    let pipeline = pipeline(path, reading == "streaming", 1, Shard { rank, world_size })?;
    for epoch in 0..2 {
        for batch in pipeline.epoch(epoch, 0) {
            batch?;
        }
    }
    writeln!(stdout(), "done")?;
    stdin().read_line(&mut String::new())?;
    Ok(())
}

/// The memory of so many ranks that have all made their batches: PSS divides what processes share among them.
fn memory(reading: &str, path: &Path, ranks: usize) -> Result<()> {
    let start = |rank: usize| -> Result<Child> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["hold", reading]).arg(path).args([rank.to_string(), ranks.to_string()]);
        Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
    };
    let mut children = (0..ranks).map(start).collect::<Result<Vec<_>>>()?;
    for child in &mut children {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("piped")?).read_line(&mut line)?;
        ensure!(line == "done\n", "a rank said {line:?}");
    }
    for field in ["Rss", "Pss", "Anonymous"] {
        let mut sum = 0.0;
        for child in &children {
            sum += kilobytes(child.id(), field)? / 1e3;
        }
        writeln!(stdout(), "{field} of {ranks} ranks,{reading},1,,{sum:.1},MB")?;
    }
    for mut child in children {
        drop(child.stdin.take());
        child.wait()?;
    }
    Ok(())
}

/// A field of the memory map of a process, in units of 1,000 bytes.
fn kilobytes(process: u32, field: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = text.lines().find(|line| line.starts_with(&format!("{field}:"))).context("a field of smaps_rollup")?;
    let number = line.split_whitespace().nth(1).context("a number")?;
    Ok(number.parse::<f64>()? * 1.024)
}
