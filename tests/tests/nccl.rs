//! The NCCL backend without a GPU: a stand-in for NCCL and the CUDA driver, whose streams are threads and whose sums are real.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tests::{Ended, Images, Program, World, largest_difference, metrics, tell, tensors};

/// A configuration of IAD-I with batch norm across ranks, so that sums are started in forward and backward passes.
fn distillation(world: &World, dtype: &str) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(60))?;
    let mut changes = World::distil(&world.teacher(&data)?);
    changes.push(("precision.dtype", format!("{dtype:?}")));
    changes.push(("batch_norm.across_ranks", "\"sync\"".into()));
    let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    world.config("distil", &data, &changes)
}

/// A configuration without a teacher, of two steps.
fn short(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(32))?;
    world.config("short", &data, &[("evaluation.suite", "[]")])
}

/// The largest difference of two runs in what they learnt, and their losses.
fn differ(one: &Path, other: &Path) -> Result<f64> {
    let file = "checkpoints/step-00000003.safetensors";
    let (difference, name) = largest_difference(&tensors(&one.join(file))?, &tensors(&other.join(file))?)?;
    let losses = |run: &Path| -> Result<Vec<f64>> {
        let events = metrics(run)?;
        Ok(events.iter().filter(|event| event["event"] == "step").filter_map(|step| step["loss"].as_f64()).collect())
    };
    let (mine, theirs) = (losses(one)?, losses(other)?);
    assert_eq!((mine.len(), theirs.len()), (3, 3));
    let of_losses = mine.iter().zip(&theirs).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max);
    tell(&format!("NCCL's stand-in and MPI: losses differ by {of_losses:.2e}, tensors by {difference:.2e} ({name})"));
    Ok(difference.max(of_losses))
}

#[test]
fn it_learns_what_mpi_learns() -> Result<()> {
    let world = World::new()?;
    let config = distillation(&world, "float32")?;
    let (by_mpi, by_nccl) = (world.run("mpi"), world.run("nccl"));
    Program::on(2).train(&config, &by_mpi).stop_after(3).run()?.expect(85);
    let said = Program::on(2).with_stand_in().train(&config, &by_nccl).stop_after(3).run()?.expect(85).said;
    assert!(said.contains("IAD_TEST_NCCL_ON_HOST"), "a test mode that is not said aloud:\n{said}");
    assert!(fs::read_to_string(by_nccl.join("environment.toml"))?.contains("backend = \"nccl\""));
    // Two numbers have one sum, in whatever order they are added.
    assert_eq!(differ(&by_mpi, &by_nccl)?, 0.0);
    Ok(())
}

#[test]
fn it_learns_the_same_on_one_and_on_three_ranks() -> Result<()> {
    let world = World::new()?;
    let config = distillation(&world, "float64")?;
    let alone = world.run("alone");
    Program::alone().train(&config, &alone).stop_after(3).run()?.expect(85);
    for ranks in [1, 3] {
        let run = world.run(&format!("{ranks}-ranks"));
        // Without --ranks the program starts a rank for each GPU.
        let gpus = if ranks == 1 { "0" } else { "0 1 2" };
        let program = Program::on(ranks).with_stand_in().gpus(gpus).train(&config, &run).stop_after(3);
        program.set("comm.backend", "nccl").run()?.expect(85);
        assert!(fs::read_to_string(run.join("environment.toml"))?.contains("backend = \"nccl\""));
        let bound = if ranks == 1 { 0.0 } else { 1e-9 };
        assert!(differ(&alone, &run)? <= bound, "{ranks} ranks");
    }
    Ok(())
}

/// The calls of a rank.
fn calls(folder: &Path, rank: usize) -> Result<Vec<String>> {
    let path = folder.join(format!("rank-{rank}"));
    Ok(fs::read_to_string(&path).with_context(|| path.display().to_string())?.lines().map(String::from).collect())
}

#[test]
fn streams_are_joined_around_every_collective() -> Result<()> {
    let world = World::new()?;
    let (config, trace) = (distillation(&world, "float32")?, world.path("trace"));
    fs::create_dir(&trace)?;
    Program::on(2).with_stand_in().trace(&trace).train(&config, &world.run("run")).run()?.expect(0);
    let (first, second) = (calls(&trace, 0)?, calls(&trace, 1)?);
    let stream = "stream non-blocking, priority -5";
    assert_eq!(first[..3], ["id", stream, "connect 0 of 2 on GPU 0"]);
    assert_eq!(second[..2], [stream, "connect 1 of 2 on GPU 1"]);
    // Every rank makes the same calls. How many events they need depends on when the watch looks.
    let (last, body) = first[3..].split_last().context("calls")?;
    assert_eq!(*body, second[2..second.len() - 1]);
    let mut sums = 0;
    let (mut open, mut rest) = (false, body);
    loop {
        rest = match rest {
            [] => break,
            [torch, own, collective, end, more @ ..] if torch == "record on torch" => {
                assert_eq!(own, "own waits");
                assert!(collective.starts_with("sum ") || collective.starts_with("broadcast "), "{collective}");
                assert_eq!(end, "record on own");
                (sums, open) = (sums + 1, true);
                more
            }
            [wait, more @ ..] => {
                assert_eq!(wait, "torch waits");
                assert!(open, "libtorch waits for nothing");
                open = false;
                more
            }
        };
    }
    assert!(!open && sums > 100, "{sums} sums, the last of them unfinished: {open}");
    let events = last.strip_prefix(&format!("destroy after {sums}, ")).and_then(|rest| rest.strip_suffix(" events"));
    let events: usize = events.context("the last call")?.parse()?;
    // Two events are recorded for each sum; those that are past are recorded again.
    assert!((1..=sums + 1).contains(&events), "{events} events were made for {sums} sums");
    Ok(())
}

/// Starts a run that goes wrong; it must end with code 1, soon.
fn fails(ranks: usize, fault: &str, patience: u32) -> Result<Ended> {
    let world = World::new()?;
    let config = short(&world)?;
    let began = Instant::now();
    let program = Program::under_mpirun(ranks).with_stand_in().fault(fault).patience(patience);
    let ended = program.set("comm.backend", "nccl").train(&config, &world.run("run")).limit(60).run()?;
    assert!(began.elapsed() < Duration::from_secs(30), "{fault} took {:?}", began.elapsed());
    Ok(ended.expect(1))
}

#[track_caller]
fn says(ended: &Ended, parts: &[&str]) {
    for part in parts {
        assert!(ended.said.contains(part), "{part:?} is missing in:\n{}", ended.said);
    }
}

#[test]
fn a_rank_that_does_not_connect_ends_all() -> Result<()> {
    let ended = fails(2, "connect:1", 2)?;
    says(
        &ended,
        &[
            "error: rank 0 of 2 on ",
            "NCCL does not connect: no connection after 2 s",
            "NCCL_SOCKET_IFNAME",
            "NCCL_DEBUG",
        ],
    );
    Ok(())
}

#[test]
fn a_refused_connection_ends_all_without_waiting() -> Result<()> {
    let ended = fails(2, "refuse:1", 600)?;
    says(&ended, &["error: rank 1 of 2 on ", "GPU 1 (Stand-in, GPU-", "a system error (no route to host)"]);
    Ok(())
}

#[test]
fn an_error_while_sums_are_under_way_ends_all() -> Result<()> {
    let ended = fails(3, "error:2:3", 600)?;
    says(&ended, &["error: rank 2 of 3 on ", "at collective 3 (the ", "a system error (connection reset by peer)"]);
    Ok(())
}

#[test]
fn a_hanging_sum_ends_all_when_its_time_is_over() -> Result<()> {
    let ended = fails(2, "hang:1:3", 3)?;
    says(
        &ended,
        &["NCCL, collective 3 (the sum of ", "bytes) is not done after 3 s (IAD_NCCL_TIMEOUT sets the limit)"],
    );
    Ok(())
}

#[test]
fn a_communicator_that_cannot_be_aborted_is_left_behind() -> Result<()> {
    let ended = fails(2, "error:1:3,abort:1", 3)?;
    says(&ended, &["error: rank 1 of 2 on ", "NCCL does not let itself be aborted either"]);
    Ok(())
}

/// Starts a run on two ranks with so many GPUs, and returns what came of it.
fn on_gpus(visible: &str, change: (&str, &str)) -> Result<(Ended, String)> {
    let world = World::new()?;
    let (config, run) = (short(&world)?, world.run("run"));
    let program = Program::on(2).with_stand_in().gpus(visible).set(change.0, change.1);
    let ended = program.train(&config, &run).run()?;
    Ok((ended, fs::read_to_string(run.join("environment.toml")).unwrap_or_default()))
}

#[test]
fn two_ranks_do_not_take_one_gpu_unasked() -> Result<()> {
    let (ended, _) = on_gpus("0", ("comm.backend", "auto"))?;
    ended.expect(2).expect_error(&["2 on ", "for 1 visible GPU;", "at most one rank for each GPU", "comm.share_gpus"]);
    let (ended, _) = on_gpus("1 0;0 1", ("comm.backend", "auto"))?;
    ended.expect(0);
    let (ended, _) = on_gpus("1 0;1", ("comm.backend", "auto"))?;
    ended.expect(2).expect_error(&["the same for ranks 0 and 1: GPU-", "0000:02:00.0", "CUDA_VISIBLE_DEVICES"]);
    Ok(())
}

#[test]
fn ranks_share_a_gpu_when_asked_to_and_say_so() -> Result<()> {
    let (ended, environment) = on_gpus("0", ("comm.share_gpus", "true"))?;
    // The stand-in, like NCCL, refuses two ranks on one GPU unless each poses as a host of its own.
    let said = ended.expect(0).said;
    for text in [&said, &environment] {
        assert!(text.contains("ranks SHARE a GPU"), "{text}");
        assert!(text.contains("NCCL_HOSTID=iad-rank-0 NCCL_IB_DISABLE=1"), "{text}");
        assert!(text.contains("GPU 0 (Stand-in, GPU-00000000-0000-0000-0000-000000000001, 0000:01:00.0"), "{text}");
    }
    assert!(said.contains("rank 1 on "), "{said}");
    Ok(())
}

#[test]
fn ranks_with_and_without_gpus_do_not_mix() -> Result<()> {
    let (ended, _) = on_gpus("0;", ("comm.backend", "auto"))?;
    ended.expect(2).expect_error(&["1 of 2 ranks see no GPU (rank 1 on ", "--device cpu"]);
    Ok(())
}

#[test]
fn mpi_between_gpus_is_said() -> Result<()> {
    let (ended, environment) = on_gpus("0 1", ("comm.backend", "mpi"))?;
    let said = ended.expect(0).said;
    assert_eq!(said.matches("through the memory of the hosts").count(), 1, "{said}");
    assert!(environment.contains("backend = \"mpi\""), "{environment}");
    Ok(())
}

#[test]
fn nccl_that_cannot_be_had_is_refused_with_the_way_out() -> Result<()> {
    let world = World::new()?;
    let (config, run) = (short(&world)?, world.run("run"));
    let wanted = |program: Program| program.set("comm.backend", "nccl").train(&config, &run);
    for ranks in [1, 2] {
        let parts = ["comm.backend is nccl", "--device cpu", "leave one of them out"];
        wanted(Program::on(ranks).args(["--device", "cpu"])).run()?.expect(2).expect_error(&parts);
        let no_gpu = Program::on(ranks).with_stand_in().gpus("");
        wanted(no_gpu).run()?.expect(2).expect_error(&["no rank sees a GPU", "comm.backend = \"auto\""]);
    }
    let wrong = Program::on(2).with_stand_in().variable("IAD_NCCL_TIMEOUT", "soon");
    wanted(wrong).run()?.expect(2).expect_error(&["IAD_NCCL_TIMEOUT is \"soon\" on ", "a whole number of seconds"]);
    // A driver, but no stand-in for NCCL: what is found is NCCL itself, or nothing.
    let driver = world.path("driver");
    fs::create_dir(&driver)?;
    fs::copy(tests::stand_in().join("libcuda.so"), driver.join("libcuda.so"))?;
    let parts = ["comm.backend is nccl", "does not load: ", "libnccl.so", "comm.backend = \"mpi\""];
    wanted(Program::on(2).with_libraries(&driver)).run()?.expect(2).expect_error(&parts);
    assert!(!run.exists(), "a refused run leaves nothing behind");
    Ok(())
}
