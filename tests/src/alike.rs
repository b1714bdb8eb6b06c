//! One run on 1, 2 and 3 ranks, and stopped and resumed.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{Program, World, assert_same_run, largest_difference, tell, tensors};

/// Trains `config`, of at least 6 steps with a checkpoint at the sixth, on 1, 2 and 3 ranks: tensors differ by rounding alone. On
/// 2 ranks, a run that is stopped after step 4 and resumed is the unbroken one to the bit.
///
/// # Errors
/// A difference, or a run that fails.
pub fn assert_same_on_ranks_and_resumed(world: &World, config: &Path, name: &str) -> Result<()> {
    let run = |ranks: usize| world.run(&format!("{ranks}-ranks"));
    for ranks in 1..=3 {
        Program::on(ranks).train(config, &run(ranks)).run()?.expect(0);
    }
    let last = |ranks: usize| tensors(&run(ranks).join("checkpoints/step-00000006.safetensors"));
    for ranks in [2, 3] {
        let (apart, tensor) = largest_difference(&last(1)?, &last(ranks)?)?;
        tell(&format!("{name}, 1 and {ranks} ranks: tensors differ by {apart:.2e} ({tensor})"));
        ensure!(apart < 1e-9, "{name}: {tensor} differs by {apart:e} between 1 and {ranks} ranks");
    }
    let stopped = world.run("stopped");
    Program::on(2).train(config, &stopped).stop_after(4).run()?.expect(85);
    Program::on(2).train(config, &stopped).run()?.expect(0);
    assert_same_run(&run(2), &stopped, &format!("{name}, stopped after step 4"))
}
