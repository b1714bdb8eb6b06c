//! A long run keeps what it has: memory, open files and threads do not grow from step to step, nor with evaluations and saves.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::{Images, Program, World, tell};

/// Steps in a test run; `IAD_LEAK_STEPS` sets another number.
const STEPS: u64 = 1200;

/// Steps of an epoch. Each epoch ends with an evaluation and a save.
const EPOCH: u64 = 16;

/// What a process has at a moment of its run.
#[derive(Debug, Clone, Copy)]
struct Held {
    step: u64,
    /// Anonymous memory that is resident, in KiB.
    memory: u64,
    files: u64,
    threads: u64,
}

/// What `process` has now; none where it is gone.
fn held(process: u32, step: u64) -> Option<Held> {
    let folder = |name: &str| Some(fs::read_dir(format!("/proc/{process}/{name}")).ok()?.count() as u64);
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let memory = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Held { step, memory, files: folder("fd")?, threads: folder("task")? })
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// What grew from the second quarter of `steps` steps to the last one, by medians, in words. Memory may grow by 1 % and by
/// 2 MiB, which is what the allocator's arenas and its returning of pages vary by; files and threads by 2, for the loader's
/// threads come and go with the epochs.
fn grown(all: &[Held], steps: u64) -> Result<Vec<String>> {
    let quarter = |number: u64| -> Result<Vec<Held>> {
        let (from, to) = (steps * (number - 1) / 4, steps * number / 4);
        let found: Vec<Held> = all.iter().copied().filter(|held| (from..to).contains(&held.step)).collect();
        ensure!(found.len() >= 20, "only {} looks at quarter {number} of the run", found.len());
        Ok(found)
    };
    let (early, late) = (quarter(2)?, quarter(4)?);
    let of = |value: fn(&Held) -> u64| [&early, &late].map(|quarter| median(quarter.iter().map(value).collect()));
    let (memory, files, threads) = (of(|held| held.memory), of(|held| held.files), of(|held| held.threads));
    let mut grown = vec![];
    for (name, [early, late], most) in [
        ("KiB of memory", memory, memory[0] + memory[0] / 100 + 2048),
        ("open files", files, files[0] + 2),
        ("threads", threads, threads[0] + 2),
    ] {
        tell(&format!("leaks: {early} {name} in the second quarter of {steps} steps, {late} in the last"));
        if late > most {
            grown.push(format!("{early} {name} became {late}"));
        }
    }
    Ok(grown)
}

#[test]
fn a_long_run_does_not_grow() -> Result<()> {
    let wanted = std::env::var("IAD_LEAK_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(STEPS);
    let epochs = (wanted / EPOCH).max(8);
    let world = World::new()?;
    let images = Images { train: 40, test: 16, shape: [3, 8, 8], classes: 4 };
    let data = world.images("data", images)?;
    let epochs_text = epochs.to_string();
    let changes = [
        ("epochs", epochs_text.as_str()),
        ("batch.size", "2"),
        ("evaluation.selection", "\"held_out\""),
        ("evaluation.held_out", "0.2"),
        ("evaluation.suite", "[\"natural\"]"),
        ("averages", "{ ema = { decay = 0.9 } }"),
        ("checkpoint.keep_best", "2"),
        ("metrics.every", "10"),
    ];
    let config = world.config("long", &data, &changes)?;
    let run = world.run("run");
    let mut running = Program::alone().limit(60 + wanted / 10).train(&config, &run).start()?;
    let (process, journal) = (running.process(), run.join("metrics.jsonl"));
    running.wait_until("the first step", || tests::has_done(&run, 1))?;
    let (mut all, began) = (vec![], Instant::now());
    let steps = epochs * EPOCH;
    while let Some(found) = held(process, 0) {
        let text = fs::read_to_string(&journal)?;
        let last = text.lines().rev().find(|line| line.contains("\"event\":\"step\"")).context("no step")?;
        let step = last.split("\"step\":").nth(1).and_then(|rest| rest.split(',').next());
        let step = step.and_then(|step| step.parse().ok()).with_context(|| last.to_string())?;
        all.push(Held { step, ..found });
        if text.contains("\"event\":\"finished\"") {
            break;
        }
        thread::sleep(Duration::from_millis(wanted / 100).max(Duration::from_millis(10)));
    }
    running.wait()?.expect(0);
    tell(&format!("leaks: {steps} steps in {:.0} s, {} looks", began.elapsed().as_secs_f64(), all.len()));
    assert!(all.iter().all(|held| held.step <= steps), "an epoch has more than {EPOCH} steps");
    assert_eq!(grown(&all, steps)?, [""; 0]);
    Ok(())
}

#[test]
fn what_grows_is_told() -> Result<()> {
    let run = |memory: fn(u64) -> u64, files: fn(u64) -> u64| -> Vec<Held> {
        let held = |step| Held { step, memory: memory(step), files: files(step), threads: 9 };
        (0..1000).map(held).collect()
    };
    assert_eq!(grown(&run(|step| 200_000 + step % 7 * 500, |step| 12 + step % 2), 1000)?, [""; 0]);
    let leaks = grown(&run(|step| 200_000 + step * 10, |step| 12 + step / 100), 1000)?;
    assert!(leaks.len() == 2 && leaks[0].contains("memory") && leaks[1].contains("open files"), "{leaks:?}");
    assert!(grown(&run(|_| 1, |_| 1)[..100], 1000).is_err(), "a run that nobody looked at");
    Ok(())
}
