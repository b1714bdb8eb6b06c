//! Gradients are summed bucket by bucket during the backward pass: the sums equal those of one all-reduce after it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tests::{Images, Program, Stored, World, largest_difference, tell, tensors};

/// IAD-I with batch norm across ranks, whose own sums come between those of the gradients. Every second batch has one image.
fn distillation(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(17))?;
    let changes = World::distil(&world.teacher(&data)?);
    let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    world.config("distil", &data, &[&changes[..], &[("epochs", "2")]].concat())
}

type Tensors = std::collections::BTreeMap<String, Stored>;

/// The state after `steps` steps. Over MPI, sums start in the backward pass only if a test asks for it.
fn state(world: &World, config: &Path, ranks: usize, steps: u64, bucket_mib: Option<f64>) -> Result<Tensors> {
    let name = bucket_mib.map_or("after".to_string(), |size| format!("during-{size}"));
    let run = world.run(&format!("{name}-{ranks}-{steps}"));
    let program = Program::under_mpirun(ranks).train(config, &run).stop_after(steps);
    let program = match bucket_mib {
        Some(size) => program.variable("IAD_TEST_OVERLAP", "1").set("comm.bucket_mib", size),
        None => program,
    };
    program.run()?.expect(85);
    tensors(&run.join(format!("checkpoints/step-{steps:08}.safetensors")))
}

/// A value, 64 values, some layers, and everything.
const SIZES: [f64; 4] = [4.0 / 1_048_576.0, 256.0 / 1_048_576.0, 0.0625, 4096.0];

#[test]
fn on_two_ranks_three_steps_are_the_same_to_the_bit() -> Result<()> {
    let world = World::new()?;
    let config = distillation(&world)?;
    let after = state(&world, &config, 2, 3, None)?;
    for size in SIZES {
        assert!(state(&world, &config, 2, 3, Some(size))? == after, "buckets of {size} MiB");
    }
    Ok(())
}

/// MPI may add the same values in another order where they come in other pieces. After one step the momentum is the gradient
/// with the decay.
#[test]
fn on_three_and_four_ranks_the_gradient_is_the_same_but_for_the_order_of_sums() -> Result<()> {
    let world = World::new()?;
    let config = distillation(&world)?;
    for (ranks, sizes) in [(3, &SIZES[1..]), (4, &SIZES[..1])] {
        let after = state(&world, &config, ranks, 1, None)?;
        for &size in sizes {
            let (difference, name) = largest_difference(&after, &state(&world, &config, ranks, 1, Some(size))?)?;
            tell(&format!("{ranks} ranks, buckets of {size} MiB: tensors differ by {difference:.2e} ({name})"));
            assert!(difference <= 1e-6, "{ranks} ranks, buckets of {size} MiB: {name} differs by {difference:e}");
        }
    }
    // Further steps, in one of which two ranks have no image, end.
    state(&world, &config, 3, 3, Some(SIZES[0])).map(drop)
}
