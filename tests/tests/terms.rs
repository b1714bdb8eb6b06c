//! Losses after IAD: the number of ranks changes nothing, and a stopped run resumes to the bit.

use std::path::PathBuf;

use anyhow::Result;
use tests::{Images, Program, World, assert_same_run, largest_difference, tell, tensors};

/// Each term has a key that the paper's methods do not use.
const LOSSES: [(&str, &str); 2] = [
    (
        "igdm",
        r#"[
            { name = "teach", of = "adversarial", towards = { network = "robust", images = "adversarial" } },
            { name = "match", of = "adversarial", minus = "mirrored", towards = { network = "robust", images = "adversarial" }, weight = 5, ramp = "linear" },
            { name = "label", of = "natural", towards = "label", smoothing = 0.1, weight = 0.1 },
        ]"#,
    ),
    (
        "mart",
        r#"[
            { name = "label", of = "adversarial", towards = "boosted_label" },
            { name = "smooth", of = "adversarial", towards = { network = "student", images = "natural" }, weight = 5, sample_weight = "misclassification" },
        ]"#,
    ),
];

fn config(world: &World, name: &str, terms: &str) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(45))?;
    let teacher = format!("{:?}", world.teacher(&data)?.display().to_string());
    world.config(
        name,
        &data,
        &[
            ("loss.terms", terms),
            ("teachers.robust.checkpoint", &teacher),
            ("epochs", "2"),
            ("student.architecture", "\"resnet8\""),
            ("precision.dtype", "\"float64\""),
            ("batch_norm.across_ranks", "\"sync\""),
        ],
    )
}

#[test]
fn any_number_of_ranks_takes_the_same_steps_and_a_stopped_run_resumes() -> Result<()> {
    for (name, terms) in LOSSES {
        let world = World::new()?;
        let config = config(&world, name, terms)?;
        let run = |ranks: usize| world.run(&format!("{ranks}-ranks"));
        for ranks in 1..=3 {
            Program::on(ranks).train(&config, &run(ranks)).run()?.expect(0);
        }
        let last = |ranks: usize| tensors(&run(ranks).join("checkpoints/step-00000006.safetensors"));
        for ranks in [2, 3] {
            let (apart, tensor) = largest_difference(&last(1)?, &last(ranks)?)?;
            tell(&format!("{name}, 1 and {ranks} ranks: tensors differ by {apart:.2e} ({tensor})"));
            assert!(apart < 1e-9, "{name}: {tensor} differs by {apart:e} between 1 and {ranks} ranks");
        }
        let stopped = world.run("stopped");
        Program::on(2).train(&config, &stopped).stop_after(4).run()?.expect(85);
        Program::on(2).train(&config, &stopped).run()?.expect(0);
        assert_same_run(&run(2), &stopped, &format!("{name}, stopped after step 4"))?;
    }
    Ok(())
}
