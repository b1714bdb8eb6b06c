//! Where the time goes: phases that add up to the whole, and a trace of all ranks on one clock.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World};

fn events(run: &std::path::Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(run.join("metrics.jsonl"))?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn distillation(world: &World) -> Result<std::path::PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    let changes = World::distil(&world.teacher(&data)?);
    let mut changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    changes.push(("epochs", "2"));
    changes.push(("evaluation.suite", "[]"));
    world.config("distil", &data, &changes)
}

#[test]
fn the_phases_of_an_epoch_add_up_to_its_time() -> Result<()> {
    let world = World::new()?;
    let config = distillation(&world)?;
    for ranks in 1..=2 {
        let run = world.run(&format!("{ranks}-ranks"));
        Program::on(ranks).train(&config, &run).set("metrics.every", 4).run()?.expect(0);
        let events = events(&run)?;
        rates_are_of_the_steps_since_the_last_record(&events)?;
        let epochs: Vec<&Value> = events.iter().filter(|event| event["event"] == "epoch").collect();
        assert_eq!(epochs.len(), 2);
        for epoch in epochs {
            let timing = &epoch["timing"];
            let seconds = timing["seconds"].as_f64().context("seconds")?;
            let phases = timing["phases"].as_object().context("phases")?;
            let of = |name: &str| phases[name].as_f64().unwrap_or(f64::NAN);
            let sum: f64 = phases.values().filter_map(Value::as_f64).sum();
            assert!((sum / seconds - 1.0).abs() <= 0.03, "{sum} of {seconds} s on {ranks} ranks: {phases:?}");
            for phase in ["attack", "teacher", "forward", "backward", "update"] {
                assert!(of(phase) > 0.0, "{phase} on {ranks} ranks: {phases:?}");
            }
            assert_eq!(phases.len(), 8);
            let (flops, utilisation) = (timing["flops"].as_f64(), timing["utilisation"].as_f64());
            assert!(flops.is_some_and(|flops| flops > 0.0), "{timing}");
            assert!(utilisation.is_some_and(|share| share > 0.0 && share <= 1.0), "{timing}");
            assert!(timing["peak_memory"].as_u64().is_some_and(|bytes| bytes > 1 << 24), "{timing}");
        }
    }
    Ok(())
}

/// Of the same epoch: what was trained before it is in the record of that epoch.
fn rates_are_of_the_steps_since_the_last_record(events: &[Value]) -> Result<()> {
    let steps_per_epoch = events[0]["steps_per_epoch"].as_u64().context("steps_per_epoch")?;
    let mut before = 0;
    let steps = events.iter().filter(|event| event["event"] == "step");
    for event in steps.clone() {
        let (step, timing) = (event["step"].as_u64().context("step")?, &event["timing"]);
        let since = before.max(event["epoch"].as_u64().context("epoch")? * steps_per_epoch);
        let expected = 96.0 / steps_per_epoch as f64 * (step - since) as f64;
        let seconds: f64 = timing["phases"].as_object().context("phases")?.values().filter_map(Value::as_f64).sum();
        let images = timing["images_per_second"].as_f64().context("images_per_second")? * seconds;
        assert!((images / expected - 1.0).abs() < 1e-6, "step {step}: {images} images, not {expected}");
        before = step;
    }
    assert!(steps.count() >= 3);
    Ok(())
}

#[test]
fn an_injected_delay_stands_in_the_trace_where_it_was() -> Result<()> {
    let world = World::new()?;
    let config = distillation(&world)?;
    let run = world.run("traced");
    let ended = Program::under_mpirun(2)
        .variable("IAD_TEST_OVERLAP", "1")
        .train(&config, &run)
        .set("comm.bucket_mib", 0.05)
        .args(["--trace=4", "--allow-fault-injection", "--inject=rank=1,step=3,phase=teacher,kind=slow,ms=50"])
        .stop_after(5)
        .run()?;
    let said = &ended.expect(85).said;
    assert!(said.contains("trace of 4 steps on 2 ranks"), "{said}");
    let trace: Value = serde_json::from_slice(&fs::read(run.join("trace-0.json"))?)?;
    let all = trace["traceEvents"].as_array().context("events")?;
    let spans = |rank: u64, category: &'static str| {
        let mine = move |event: &&Value| event["pid"] == rank && event["ph"] == "X" && event["cat"] == category;
        all.iter().filter(mine).map(|event| {
            let number = |key: &str| event[key].as_f64().unwrap_or(f64::NAN) / 1e3;
            (event["name"].as_str().unwrap_or_default(), event["args"]["step"].as_u64(), number("ts"), number("dur"))
        })
    };
    // In milliseconds: the pause is in the teacher's pass of that step on that rank, and nowhere else.
    let (mut delayed, mut usual) = (vec![], vec![]);
    for (rank, (name, step, began, length)) in
        (0..2).flat_map(|rank| spans(rank, "teacher").map(move |span| (rank, span)))
    {
        assert_eq!(name, "robust");
        if length >= 50.0 { delayed.push((rank, step, began, length)) } else { usual.push(length) }
    }
    usual.sort_by(f64::total_cmp);
    let [(rank, step, began, length)] = delayed[..] else { panic!("delays {delayed:?}, usual {usual:?}") };
    assert_eq!((rank, step), (1, Some(2)));
    let typical = usual[usual.len() / 2];
    assert!(length - typical - 50.0 < 2.0, "{length} ms, usually {typical}");
    // The other rank waited for it meanwhile.
    let overlap = |(_, _, from, length_of_wait): (&str, Option<u64>, f64, f64)| {
        (from + length_of_wait).min(began + length) - from.max(began)
    };
    let waited: f64 = spans(0, "communication").map(overlap).filter(|overlap| *overlap > 0.0).sum();
    assert!(waited > 0.9 * 50.0, "rank 0 waited {waited} of {length} ms");
    // Gradients are summed in buckets during the backward pass.
    let backward: Vec<(f64, f64)> = spans(0, "backward").map(|(_, _, from, length)| (from, from + length)).collect();
    let first: Vec<f64> = spans(0, "communication")
        .filter(|(name, ..)| name.starts_with("bucket 1 of"))
        .map(|(_, _, from, _)| from)
        .collect();
    assert_eq!((backward.len(), first.len()), (4, 4));
    assert!(backward.iter().zip(&first).all(|((from, to), bucket)| from <= bucket && bucket <= to));
    // Every step of the attack, each traced step, both ranks.
    let attack: Vec<_> = spans(0, "attack").filter(|(name, ..)| *name == "step 2").map(|(_, step, ..)| step).collect();
    assert_eq!(attack, [0, 1, 2, 3].map(Some));
    assert!(trace["otherData"]["clock_error_us"].as_f64().is_some_and(|error| error > 0.0 && error < 2000.0));
    Ok(())
}
