//! Policies, cutout and mixed images in training: any number of ranks, and resumed runs.

use std::path::PathBuf;

use anyhow::Result;
use tests::{Images, Program, World, assert_same_run, largest_difference, tensors};

/// Adversarial training of two epochs of four steps with every kind of augmentation.
fn mixing(world: &World, more: &[(&str, &str)]) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(48))?;
    let augment = "{ crop = 1, flip = true, policy = \"trivial_augment\", cutout = 3, cutmix = 0.8 }";
    let changes = [("epochs", "2"), ("precision.dtype", "\"float64\""), ("data.augment", augment)];
    world.config("mixing", &data, &[&changes[..], more].concat())
}

#[test]
fn mixed_images_are_the_same_on_any_number_of_ranks() -> Result<()> {
    let world = World::new()?;
    let config = mixing(&world, &[("data.threads", "2")])?;
    let run = |ranks: usize| -> Result<PathBuf> {
        let run = world.run(&format!("on {ranks}"));
        Program::on(ranks).train(&config, &run).run()?.expect(0);
        Ok(run)
    };
    let last = |run: PathBuf| tensors(&run.join("checkpoints/final.safetensors"));
    let alone = last(run(1)?)?;
    for ranks in [2, 3] {
        let (difference, name) = largest_difference(&alone, &last(run(ranks)?)?)?;
        assert!(difference <= 1e-9, "{ranks} ranks: {name} differs by {difference:e}");
    }
    Ok(())
}

#[test]
fn a_run_with_mixed_images_is_resumed_to_the_bit() -> Result<()> {
    let world = World::new()?;
    let config = mixing(&world, &[])?;
    let (whole, run) = (world.run("whole"), world.run("resumed"));
    Program::on(2).train(&config, &whole).run()?.expect(0);
    Program::on(2).train(&config, &run).stop_after(2).run()?.expect(85);
    Program::on(2).train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, "after a stop")
}

#[test]
fn losses_that_need_one_label_refuse_mixed_ones() -> Result<()> {
    let world = World::new()?;
    let config = mixing(&world, &[])?;
    let ended = Program::alone().train(&config, &world.run("refused")).set("loss.preset", "mart").run()?.expect(2);
    ended.expect_error(&["data.augment.cutmix is 0.8", "needs one label", "boosted_label"]);
    let program = Program::alone().train(&config, &world.run("cropped")).set("data.augment.policy", "idbh_weak");
    program.run()?.expect(2).expect_error(&["data.augment.crop is 1", "IDBH"]);
    Ok(())
}
