//! Several nodes: network namespaces of this machine with addresses, host names and cables of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::{Images, Nodes, Program, Running, World, assert_same_run, has_done, tell};

/// After a node is lost, everything on all nodes is gone within this time.
const LIMIT: Duration = Duration::from_secs(20);

/// The settings that docs/cluster.md adds to a typed mpirun.
const KEEPALIVE: [(&str, &str); 3] = [
    ("OMPI_MCA_oob_tcp_keepalive_time", "5"),
    ("OMPI_MCA_oob_tcp_keepalive_intvl", "1"),
    ("OMPI_MCA_oob_tcp_keepalive_probes", "5"),
];

/// So many nodes, if this machine can have any.
fn nodes(name: &str, count: usize) -> Result<Option<Nodes>> {
    match Nodes::missing() {
        Some(reason) => {
            tell(&format!("SKIPPED {name}: {reason}"));
            Ok(None)
        }
        None => Nodes::new(count).map(Some),
    }
}

fn config(world: &World, epochs: &str) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    world.config("config", &data, &[("epochs", epochs), ("precision.dtype", "\"float64\"")])
}

fn with_keepalive(program: Program) -> Program {
    KEEPALIVE.iter().fold(program, |program, (name, value)| program.variable(name, value))
}

fn log(run: &Path, rank: usize) -> String {
    fs::read_to_string(run.join(format!("logs/rank-{rank:04}.log"))).unwrap_or_default()
}

#[test]
#[ignore = "needs network namespaces, which root may make: make test-nodes"]
fn ranks_on_several_nodes_compute_what_ranks_on_one_do() -> Result<()> {
    let Some(nodes) = nodes("ranks_on_several_nodes_compute_what_ranks_on_one_do", 3)? else { return Ok(()) };
    let world = World::new()?;
    let config = config(&world, "2")?;
    for (on, slots) in [(&[1, 2][..], 2), (&[1, 2, 3], 1)] {
        let (ranks, one) = (on.len() * slots, world.run(&format!("one-{slots}")));
        Program::under_mpirun(ranks).train(&config, &one).run()?.expect(0);
        let run = world.run(&format!("several-{slots}"));
        Program::on_nodes(&nodes, on, slots).train(&config, &run).run()?.expect(0);
        assert_same_run(&one, &run, &format!("{} nodes of {slots} ranks", on.len()))?;
        let last = log(&run, ranks - 1);
        assert!(last.contains(&format!("on node{}:", on.len())), "the last rank was elsewhere:\n{last}");
    }
    Ok(())
}

/// Loses node 2 of a run that `start` starts on two nodes of two ranks, in mid-run; then resumes on the nodes `then`.
fn lose(
    name: &str,
    start: impl Fn(&Nodes) -> Program,
    lose: impl Fn(&Nodes, &Running) -> Result<()>,
    says: &[&str],
    then: &[usize],
) -> Result<()> {
    let Some(nodes) = nodes(name, 2)? else { return Ok(()) };
    let world = World::new()?;
    let (config, run) = (config(&world, "1000")?, world.run("run"));
    let mut running = start(&nodes).train(&config, &run).start()?;
    running.wait_until("step 8", || has_done(&run, 8))?;
    lose(&nodes, &running)?;
    let took = running.gone_within(LIMIT)?;
    tell(&format!("{name}: everything was gone after {:.1} s", took.as_secs_f64()));
    let ended = running.wait()?;
    assert!(ended.code.is_none_or(|code| ![0, 2, 85].contains(&code)), "{ended:?}");
    let cause = says.iter().any(|words| ended.said.contains(words));
    assert!(cause, "no cause was told:\n{}", ended.said);
    nodes.mend(2)?;
    let again = Program::on_nodes(&nodes, then, 2).train(&config, &run).stop_after(12).run()?.expect(85);
    assert!(again.said.contains("going on from step"), "{}", again.said);
    Ok(())
}

const LOST: &[&str] = &["lost communication with a remote daemon"];

#[test]
#[ignore = "needs network namespaces, which root may make: make test-nodes"]
fn a_cut_cable_ends_everything_and_the_run_resumes() -> Result<()> {
    lose(
        "a_cut_cable_ends_everything_and_the_run_resumes",
        |nodes| with_keepalive(Program::on_nodes(nodes, &[1, 2], 2)),
        |nodes, _| nodes.cut(2),
        LOST,
        &[1, 2],
    )
}

#[test]
#[ignore = "needs network namespaces, which root may make: make test-nodes"]
fn a_cut_cable_ends_everything_that_the_program_started_itself() -> Result<()> {
    lose(
        "a_cut_cable_ends_everything_that_the_program_started_itself",
        |nodes| Program::alone_on_nodes(nodes, &[1, 2], 2).starting_ranks(4),
        |nodes, _| nodes.cut(2),
        LOST,
        &[1, 2],
    )
}

#[test]
#[ignore = "needs network namespaces, which root may make: make test-nodes"]
fn a_dead_node_ends_everything_and_the_run_resumes_on_the_other() -> Result<()> {
    lose(
        "a_dead_node_ends_everything_and_the_run_resumes_on_the_other",
        |nodes| Program::on_nodes(nodes, &[1, 2], 2),
        |nodes, running| {
            let processes = nodes.processes(running, 2);
            assert!(processes.len() >= 3, "two ranks and a daemon: {processes:?}");
            running.signal("KILL", &processes);
            Ok(())
        },
        &["lost communication with a remote daemon", "peer hung up", "10.77.0.2"],
        &[1],
    )
}

/// Without the settings of mpirun, which has no word in this under srun: ranks on both sides notice it themselves.
#[test]
#[ignore = "needs network namespaces, which root may make: make test-nodes"]
fn ranks_that_mpirun_leaves_waiting_behind_a_cut_cable_end_by_themselves() -> Result<()> {
    let name = "ranks_that_mpirun_leaves_waiting_behind_a_cut_cable_end_by_themselves";
    let Some(nodes) = nodes(name, 3)? else { return Ok(()) };
    let world = World::new()?;
    let (config, run) = (config(&world, "1000")?, world.run("run"));
    let program = Program::on_nodes(&nodes, &[1, 2, 3], 1).variable("IAD_LIVENESS_SECONDS", "6");
    let mut running = program.train(&config, &run).start()?;
    running.wait_until("step 8", || has_done(&run, 8))?;
    nodes.cut(3)?;
    let cut = Instant::now();
    // mpirun itself may still wait for its daemon.
    while !running.processes("iad-launch").is_empty() {
        assert!(cut.elapsed() < LIMIT, "ranks live on:\n{}", running.said());
        thread::sleep(Duration::from_millis(20));
    }
    tell(&format!("{name}: ranks were gone after {:.1} s", cut.elapsed().as_secs_f64()));
    assert!(log(&run, 0).contains("rank 2 (node3) has been silent for 6 s"), "{}", log(&run, 0));
    assert!(log(&run, 2).contains("rank 0 (node1) has been silent for 6 s"), "{}", log(&run, 2));
    running.kill_all();
    Ok(())
}

/// A rank that hangs on another node is noticed as one that is gone.
#[test]
#[ignore = "needs network namespaces, which root may make: make test-nodes"]
fn a_stopped_rank_on_another_node_ends_the_run() -> Result<()> {
    let Some(nodes) = nodes("a_stopped_rank_on_another_node_ends_the_run", 2)? else { return Ok(()) };
    let world = World::new()?;
    let (config, run) = (config(&world, "1000")?, world.run("run"));
    let program = Program::on_nodes(&nodes, &[1, 2], 1).variable("IAD_LIVENESS_SECONDS", "4");
    let mut running = program.train(&config, &run).start()?;
    running.wait_until("step 8", || has_done(&run, 8))?;
    running.signal("STOP", &[running.rank(1).context("rank 1")?]);
    running.gone_within(LIMIT)?;
    assert!(log(&run, 0).contains("rank 1 (node2) has been silent for 4 s"), "{}", log(&run, 0));
    assert_ne!(running.wait()?.code, Some(0));
    Ok(())
}
