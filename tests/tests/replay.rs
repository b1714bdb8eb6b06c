//! A step that went wrong is kept with its batch, and `iad-launch replay` takes it again on any number of ranks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tests::{Images, Program, World, header, tensors};

/// The contents of all files below a folder.
fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(contents(&path)?);
        } else {
            all.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(all)
}

/// Six steps an epoch, without checkpoints within it.
fn config(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(90))?;
    world.config("config", &data, &[("epochs", "2"), ("checkpoint.minutes", "0")])
}

fn replay(ranks: usize, what: &Path) -> Program {
    Program::on(ranks).args(["replay".as_ref(), what.as_os_str()])
}

#[test]
fn a_step_of_broken_images_is_kept_and_repeated() -> Result<()> {
    let world = World::new()?;
    let (config, run, before) = (config(&world)?, world.run("run"), world.run("before"));
    let program = Program::on(2).train(&config, &run);
    let fault = ["--allow-fault-injection", "--inject", "rank=1,step=4,kind=nan"];
    let ended = program.args(fault).run()?.expect(1);
    ended.expect_error(&[
        "step 4: the gradient is not finite",
        "offending/step-00000004.safetensors",
        "iad-launch replay",
    ]);
    let file = run.join("offending/step-00000004.safetensors");

    // The step after it was under way, and has moved nothing.
    Program::on(2).train(&config, &before).stop_after(3).run()?.expect(85);
    let (mut kept, saved) = (tensors(&file)?, tensors(&before.join("checkpoints/step-00000003.safetensors"))?);
    let batch: BTreeMap<_, _> = ["images", "labels", "samples"]
        .map(|name| format!("batch/{name}"))
        .into_iter()
        .filter_map(|name| kept.remove_entry(&name))
        .collect();
    assert_eq!(kept, saved);
    assert_eq!(batch["batch/images"].shape, [16, 3, 16, 16]);
    // Those of rank 1 are every second one.
    let broken =
        batch["batch/images"].values()?.chunks(768).filter(|image| image.iter().any(|value| value.is_nan())).count();
    assert_eq!(broken, 8);

    let untouched = contents(&run)?;
    for (ranks, what) in [(1, &run), (2, &run), (1, &file)] {
        let ended = replay(ranks, what).run()?.expect(0);
        for part in [
            "step 4 (epoch 1), taken on 2 ranks",
            "8 of 16 images are not finite",
            "loss term label: NaN",
            "\nreproduced",
        ] {
            assert!(ended.said.contains(part), "{ranks} ranks: {part:?} is missing:\n{}", ended.said);
        }
        assert!(contents(&run)? == untouched, "the run folder has changed");
    }
    Ok(())
}

/// The last batch is smaller, and the parameters are what is wrong.
#[test]
fn a_gradient_that_explodes_is_repeated_on_another_number_of_ranks() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(42))?;
    let changes =
        [("epochs", "3"), ("optimizer.lr", "1e30"), ("optimizer.lr_policy", "{ step = { at = [1], factor = 1e-30 } }")];
    let (config, run) = (world.config("explode", &data, &changes)?, world.run("run"));
    Program::alone().train(&config, &run).run()?.expect(1).expect_error(&["step 2: the gradient is not finite"]);
    let file = run.join("offending/step-00000002.safetensors");
    assert_eq!(header(&file)?["offence"]["exact"], true);
    for ranks in [1, 3] {
        let ended = replay(ranks, &run).run()?.expect(0);
        assert!(ended.said.contains("all values of the 16 images are finite"), "{}", ended.said);
    }
    Ok(())
}

#[test]
fn what_is_no_kept_step_is_refused() -> Result<()> {
    let world = World::new()?;
    let (config, run) = (config(&world)?, world.run("run"));
    replay(1, &run).run()?.expect(2).expect_error(&["missing", "offending"]);
    Program::alone().train(&config, &run).stop_after(2).run()?.expect(85);
    replay(1, &run).run()?.expect(2).expect_error(&["a run folder that keeps a step", "next:"]);
    let checkpoint = run.join("checkpoints/step-00000002.safetensors");
    replay(1, &checkpoint).run()?.expect(2).expect_error(&["a step that a run kept", "a checkpoint"]);
    Ok(())
}
