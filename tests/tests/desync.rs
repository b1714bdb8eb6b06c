//! Ranks that drift apart: they are compared every few steps, and the message names the tensor and, where a majority knows, the
//! rank.

use std::path::PathBuf;

use anyhow::Result;
use tests::{Ended, Images, Program, World, assert_same_run, header};

fn config(world: &World, changes: &[(&str, &str)]) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    // Nothing is saved before the end of the epoch.
    let short = [("epochs", "2"), ("checkpoint.minutes", "0")];
    world.config("config", &data, &[&short, changes].concat())
}

/// A parameter of a rank changes in step 3 on so many ranks.
fn drifts(ranks: usize, rank: usize, every: &str) -> Result<Ended> {
    let world = World::new()?;
    let (config, run) = (config(&world, &[("guard.compare_every", every)])?, world.run("run"));
    let fault = format!("rank={rank},step=3,kind=desync");
    let program = Program::under_mpirun(ranks).train(&config, &run);
    program.args(["--allow-fault-injection", "--inject", &fault]).run()
}

#[test]
fn a_majority_names_the_rank_that_differs() -> Result<()> {
    let ended = drifts(3, 1, "2")?.expect(1);
    ended.expect_error(&["the parameter ", ".weight of rank 1 differs from rank 0's", "after step 4", "doctor"]);
    Ok(())
}

#[test]
fn the_leader_can_be_the_one_that_differs() -> Result<()> {
    let ended = drifts(3, 0, "4")?.expect(1);
    ended.expect_error(&["the parameter ", ".weight of rank 0 differs from rank 1's", "after step 4"]);
    Ok(())
}

#[test]
fn of_two_ranks_nobody_is_blamed() -> Result<()> {
    let ended = drifts(2, 1, "1")?.expect(1);
    ended.expect_error(&["the parameter ", ".weight differs between ranks 0 and 1", "after step 3"]);
    Ok(())
}

#[test]
fn without_comparisons_the_next_checkpoint_is_refused() -> Result<()> {
    let ended = drifts(2, 1, "0")?.expect(1);
    ended.expect_error(&["differs between ranks 0 and 1", "after step 6"]);
    Ok(())
}

/// The key is no part of a run's identity, and comparing changes no bit.
#[test]
fn comparisons_change_nothing_and_may_change() -> Result<()> {
    let world = World::new()?;
    let config = config(&world, &[])?;
    let (whole, run) = (world.run("whole"), world.run("run"));
    Program::on(2).train(&config, &whole).set("guard.compare_every", 0).run()?.expect(0);
    Program::on(2).train(&config, &run).set("guard.compare_every", 1).stop_after(4).run()?.expect(85);
    Program::on(2).train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, "with comparisons")?;
    let hash = |run: &PathBuf| header(&run.join("checkpoints/final.safetensors"));
    assert_eq!(hash(&whole)?["config"], hash(&run)?["config"]);
    Ok(())
}
