//! Optimizers and rates other than SGD with steps: runs that stop, resume, and run on any number of ranks.

use std::path::PathBuf;

use anyhow::Result;
use tests::{Images, Program, World, assert_same_run, largest_difference, tell, tensors};

/// Two of the rules with every option that holds state or depends on the whole gradient.
const RULES: [(&str, &str); 2] = [
    (
        "adamw",
        r#"{ kind = "adamw", lr = 0.002, lr_policy = "cosine", weight_decay = 0.05, no_weight_decay = ["batch_norm"], clip_grad_norm = 0.5 }"#,
    ),
    (
        "nesterov",
        r#"{ lr = 0.05, nesterov = true, weight_decay = 5e-4, no_weight_decay = ["batch_norm", "bias"], clip_grad_norm = 1.0, lr_policy = { one_cycle_cosine = { pct_start = 0.4 } } }"#,
    ),
];

fn config(world: &World, name: &str, optimizer: &str) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(45))?;
    world.config(
        name,
        &data,
        &[
            ("optimizer", optimizer),
            ("epochs", "2"),
            ("student.architecture", "\"resnet8\""),
            ("precision.dtype", "\"float64\""),
            ("batch_norm.across_ranks", "\"sync\""),
            ("averages", r#"{ ema = { decay = 0.9, warm_up = 0.3, statistics = "student" } }"#),
        ],
    )
}

#[test]
fn a_stopped_run_resumes_to_the_bit() -> Result<()> {
    for (name, optimizer) in RULES {
        let world = World::new()?;
        let config = config(&world, name, optimizer)?;
        let whole = world.run("whole");
        Program::on(2).train(&config, &whole).run()?.expect(0);
        for steps in [1, 4] {
            let run = world.run(&format!("stopped-{steps}"));
            Program::on(2).train(&config, &run).stop_after(steps).run()?.expect(85);
            Program::on(2).train(&config, &run).run()?.expect(0);
            assert_same_run(&whole, &run, &format!("{name}, stopped after step {steps}"))?;
            let ema = |run: &PathBuf| tensors(&run.join("checkpoints/ema.safetensors"));
            assert_eq!(ema(&whole)?, ema(&run)?, "{name}, stopped after step {steps}");
        }
    }
    Ok(())
}

#[test]
fn the_number_of_ranks_changes_nothing() -> Result<()> {
    for (name, optimizer) in RULES {
        let world = World::new()?;
        let config = config(&world, name, optimizer)?;
        let of = |ranks: usize| -> Result<_> {
            let run = world.run(&format!("{ranks}-ranks"));
            Program::on(ranks).train(&config, &run).stop_after(5).run()?.expect(85);
            tensors(&run.join("checkpoints/step-00000005.safetensors"))
        };
        let alone = of(1)?;
        for ranks in [2, 3] {
            let (apart, tensor) = largest_difference(&alone, &of(ranks)?)?;
            tell(&format!("{name}, 1 and {ranks} ranks: tensors differ by {apart:.2e} ({tensor})"));
            assert!(apart < 1e-7, "{name}: {tensor} differs by {apart:e} between 1 and {ranks} ranks");
        }
    }
    Ok(())
}
