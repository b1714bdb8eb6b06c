//! Sums in graphs: on the stand-in for the CUDA driver and NCCL, and in recordings of the CPU's operations.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tests::{Images, Program, World, assert_same_run, metrics};

/// What the stand-in refuses in captures, by CUDA's codes, and the order in which a launch does its work.
#[test]
fn the_stand_in_captures_as_cuda_does() -> Result<()> {
    let output = Command::new(env!("IAD_STAND_IN_CAPTURES")).output()?;
    assert!(output.status.success(), "{output:?}");
    let expected = [
        "captured: 1, 0, 0, 0 done",
        "launched: ACdbEACdbEZ",
        "unjoined: 0, then 904",
        "query of a captured event: 907, then 901",
        "query of it afterwards: 907",
        "wait for it afterwards: 907",
        "once it is recorded anew: 0",
        "synchronise with a captured event: 907, then 901",
        "synchronise with the stream: 900, then 901",
        "synchronise with a forked stream: 900, then 901",
        "allocate: 900, then 901",
        "allocate, relaxed: 0, then 0",
        "synchronise with the device: 900, then 901",
        "wait for work before the capture: 905, then 901",
        "the other capture: 901",
        "two captures in one: 902, then 901",
        "query by the thread that captures: 900, then 901",
        "query by another thread: 0, then 0",
        "query by another thread, strict: 900, then 901",
        "query by a relaxed thread, strict: 0, then 0",
        "end on another stream: 903, then 901",
        "end by another thread: 908, then 901",
        "launch into it: 900, then 901",
        "a second capture of the stream: 401, then 0",
        "the null stream: 900",
        "no capture: 0, then 401",
    ];
    assert_eq!(String::from_utf8(output.stdout)?.lines().collect::<Vec<_>>(), expected);
    Ok(())
}

/// The sums of a graph, captured once and launched many times, with NCCL's stand-in.
fn bench(ranks: usize) -> Program {
    let sizes =
        ["bench", "comm", "--backend", "nccl", "--in-graphs", "--from", "64", "--to", "64", "--seconds", "0.02"];
    Program::under_mpirun(ranks).with_stand_in().args(sizes)
}

#[test]
fn captured_sums_are_right_and_streams_fork_and_join_in_the_graph() -> Result<()> {
    let world = World::new()?;
    for ranks in [1, 2, 3] {
        let trace = world.path(&format!("trace-{ranks}"));
        fs::create_dir(&trace)?;
        bench(ranks).trace(&trace).run()?.expect(0);
        let calls = fs::read_to_string(trace.join("rank-0"))?;
        let begin = calls.find("begin capture\n").unwrap_or_default();
        let (_, rest) = calls[begin..].split_once('\n').unwrap_or_default();
        // The small sum is joined at once; the other one at the end, by the event that was recorded behind it.
        let captured = [
            "record on torch",
            "own waits",
            "captured sum: 16 of type 7",
            "record on own", //
            "record on torch",
            "own 2 waits",
            "captured sum: 8 of type 7",
            "record on own 2",
            "torch waits", //
            "torch waits",
            "end capture: 0",
            "launch",
        ];
        assert_eq!(rest.lines().take(captured.len()).collect::<Vec<_>>(), captured, "{ranks} ranks");
        assert!(calls.matches("launch\n").count() > 10, "{calls}");
        // A communicator that a graph still used would not be destroyed.
        assert_eq!(calls.matches("destroy after ").count(), 2, "{calls}");
    }
    Ok(())
}

/// Where nothing keeps the order of two communicators, there is one, and the start says so.
#[test]
fn without_an_order_of_its_calls_all_sums_go_by_one_communicator() -> Result<()> {
    let world = World::new()?;
    let trace = world.path("trace");
    fs::create_dir(&trace)?;
    let ended = bench(2).trace(&trace).variable("NCCL_LAUNCH_ORDER_IMPLICIT", "0").run()?.expect(0);
    assert!(ended.said.contains("all sums go by one communicator"), "{}", ended.said);
    let calls = fs::read_to_string(trace.join("rank-0"))?;
    assert_eq!(calls.matches("destroy after ").count(), 1, "{calls}");
    assert!(calls.contains("captured sum: 8 of type 7") && calls.matches("launch\n").count() > 10, "{calls}");
    Ok(())
}

/// The watch does not ask for what is inside a replay: the replay as a whole is late. A size is summed once without a
/// graph, then by seven replays or more: the fifth sum is in a replay, however fast the machine is.
#[test]
fn a_replay_that_hangs_ends_all_when_its_own_time_is_over() -> Result<()> {
    let ended = bench(2).fault("hang:1:5").patience(5).limit(60).run()?.expect(1);
    assert!(ended.said.contains("(the replay of a recorded step) is not done after 10 s"), "{}", ended.said);
    Ok(())
}

/// A rank whose capture fails inside of NCCL leaves another in the same call: the deadline ends both, with the reason.
#[test]
fn a_capture_that_fails_on_one_rank_ends_all_with_its_reason() -> Result<()> {
    let ended = bench(2).fault("refuse-capture:1,hang-capture:0").patience(5).limit(60).run()?.expect(1);
    for part in [
        "error: rank 1 of 2 on ",
        "could not record a step",
        "no memory for the graph",
        "is not done after 5 s (IAD_NCCL_TIMEOUT sets the limit)",
    ] {
        assert!(ended.said.contains(part), "{part:?} is missing in:\n{}", ended.said);
    }
    Ok(())
}

fn warnings(run: &Path) -> Result<usize> {
    Ok(metrics(run)?.iter().filter(|event| event["event"] == "warned").count())
}

/// Two epochs with batch norm over the ranks; each ends with a smaller batch. With a `peer` a second network learns, too.
fn config(world: &World, data: &Path, peer: bool) -> Result<PathBuf> {
    let keys = [
        ("epochs", "2"),
        ("comm.bucket_mib", "0.01"),
        ("comm.in_graphs", "true"),
        ("batch_norm.across_ranks", "\"sync\""),
        ("evaluation.selection", "\"none\""),
        ("evaluation.suite", "[]"),
    ];
    let learners = [
        ("loss.preset", "\"peeraid\""),
        ("attack", r#"{ steps = 2, start = "gaussian", towards = { network = "peer", images = "natural" } }"#),
        ("learners.peer.optimizer", r#"{ lr = 0.02, lr_policy = "cosine" }"#),
    ];
    let name = if peer { "graphs-of-two" } else { "graphs" };
    world.config(name, data, &[&keys[..], if peer { &learners } else { &[] }].concat())
}

/// A whole step is one recording, sums included: over MPI, and over NCCL's stand-in, where buckets leave in the backward pass.
#[test]
fn runs_of_whole_replayed_steps_are_the_called_ones_to_the_bit() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(92))?;
    let (alone, with_peer) = (config(&world, &data, false)?, config(&world, &data, true)?);
    for (ranks, stand_in, config) in [
        (1, false, &alone),
        (2, false, &alone),
        (3, false, &alone),
        (2, true, &alone),
        (3, true, &alone),
        (1, false, &with_peer),
        (2, true, &with_peer),
    ] {
        let run = |name: &str, graphs: bool| -> Result<PathBuf> {
            let config_name = config.file_stem().unwrap_or_default().display();
            let run = world.run(&format!("{name}-{ranks}-{stand_in}-{config_name}"));
            let program = Program::on(ranks).variable("IAD_TEST_GRAPHS", "1").set("precision.cuda_graphs", graphs);
            let program = if stand_in { program.with_stand_in() } else { program };
            program.train(config, &run).run()?.expect(0);
            Ok(run)
        };
        let (called, replayed) = (run("called", false)?, run("replayed", true)?);
        assert_same_run(&called, &replayed, &format!("{ranks} ranks, stand-in {stand_in}"))?;
        assert_eq!(warnings(&called)?, warnings(&replayed)?);
        let text = fs::read_to_string(replayed.join("metrics.jsonl"))?;
        assert!(text.contains("\"replay\":"), "{ranks} ranks: nothing was replayed");
    }
    Ok(())
}
