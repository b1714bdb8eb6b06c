//! Small sums through NCCL's symmetric windows, on the stand-in for NCCL and the CUDA driver: the same sums, and the way without.

use std::fs;
use std::path::Path;

use anyhow::Result;
use tests::{Images, Program, World, assert_same_run, stand_in, stand_in_without_windows};

/// Right sums of 128 B and of 128 KiB, which is more than a window has.
fn bench(ranks: usize, libraries: &Path) -> Program {
    let sizes = ["--from", "128", "--to", "131072", "--factor", "1024", "--seconds", "0.02"];
    let program = Program::under_mpirun(ranks).with_libraries(libraries);
    program.args(["bench", "comm", "--backend", "nccl", "--windows"]).args(sizes)
}

#[test]
fn small_sums_are_made_in_the_window_and_large_ones_are_not() -> Result<()> {
    let world = World::new()?;
    for (ranks, in_graphs) in [(1, false), (2, false), (3, false), (2, true)] {
        let trace = world.path(&format!("trace-{ranks}-{in_graphs}"));
        fs::create_dir(&trace)?;
        let program = bench(ranks, stand_in()).trace(&trace);
        let said = if in_graphs { program.args(["--in-graphs"]) } else { program }.run()?.expect(0).said;
        assert!(!said.contains("comm.windows"), "{said}");
        let calls = fs::read_to_string(trace.join("rank-0"))?;
        let (captured, number) = if in_graphs { ("captured ", "") } else { ("", " 1") };
        let first = if in_graphs { "8" } else { "32" };
        assert!(calls.contains(&format!("{captured}window sum{number}: {first} of type 7")), "{calls}");
        let large = |line: &str| line.ends_with(": 32768 of type 7");
        assert!(
            calls.lines().any(large) && !calls.lines().any(|line| large(line) && line.contains("window")),
            "{calls}"
        );
        // It is given back before its communicator goes, and its memory behind it.
        let end: Vec<&str> = calls.lines().rev().take(3).collect();
        let is_end =
            end[0] == "free the window" && end[1].starts_with("destroy after") && end[2] == "give back the window";
        assert!(is_end, "{end:?}");
    }
    Ok(())
}

/// Whether NCCL is too old, one rank's window is refused, or its GPU reaches no other: no rank has a window then.
#[test]
fn all_ranks_go_without_where_one_has_no_window() -> Result<()> {
    let world = World::new()?;
    for (number, (libraries, fault, reason)) in [
        (stand_in_without_windows(), "none", "NCCL 2.28.0 has no ncclMemAlloc"),
        (stand_in(), "window:1", "rank 1: ncclCommWindowRegister: a system error (no room for the window)"),
        (stand_in(), "no-window:1", "rank 1: ncclCommWindowRegister: these GPUs have no symmetric memory"),
    ]
    .into_iter()
    .enumerate()
    {
        let trace = world.path(&format!("trace-{number}"));
        fs::create_dir(&trace)?;
        let said = bench(2, libraries).fault(fault).trace(&trace).run()?.expect(0).said;
        let told = format!("comm.windows: small sums go without NCCL's windows, on all ranks: {reason}");
        assert_eq!(said.matches(&told).count(), 1, "{told:?}\n{said}");
        for rank in ["rank-0", "rank-1"] {
            let calls = fs::read_to_string(trace.join(rank))?;
            assert!(calls.contains("sum 1: 32 of type 7") && !calls.contains("window sum"), "{calls}");
        }
    }
    Ok(())
}

/// Batch norm's messages in float32 take the window, called and in recorded steps.
#[test]
fn training_through_windows_changes_no_bit() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(48))?;
    let keys = [
        ("precision.dtype", "\"float32\""),
        ("batch_norm.across_ranks", "\"sync\""),
        ("batch_norm.fused", "true"),
        ("evaluation.suite", "[]"),
        ("evaluation.selection", "\"none\""),
        ("student.architecture", "\"resnet8\""),
        ("batch.size", "8"),
    ];
    let config = world.config("windows", &data, &keys)?;
    for (ranks, graphs) in [(2, false), (3, true)] {
        let run = |windows: bool| -> Result<_> {
            let run = world.run(&format!("{ranks}-{graphs}-{windows}"));
            let trace = world.path(&format!("trace-{ranks}-{graphs}-{windows}"));
            fs::create_dir(&trace)?;
            let program = Program::on(ranks).with_stand_in().gpus("0 1 2").trace(&trace).train(&config, &run);
            let program =
                program.set("comm.backend", "nccl").set("comm.windows", windows).variable("IAD_TEST_FUSED", "1");
            let program = program.set("comm.in_graphs", graphs).set("precision.cuda_graphs", graphs);
            program.variable("IAD_TEST_GRAPHS", "1").run()?.expect(0);
            Ok((run, fs::read_to_string(trace.join("rank-0"))?.matches("window sum").count()))
        };
        let ((without, none), (through, some)) = (run(false)?, run(true)?);
        assert_eq!(none, 0);
        assert!(some > 10, "{some} sums in the window of {ranks} ranks");
        assert_same_run(&without, &through, &format!("{ranks} ranks, graphs {graphs}"))?;
    }
    Ok(())
}
