//! Losses after IAD: the number of ranks changes nothing, and a stopped run resumes to the bit.

use std::path::PathBuf;

use anyhow::Result;
use tests::{Images, World, assert_same_on_ranks_and_resumed};

/// A loss: its name, its terms, and what else the run has. Each has keys that the paper's methods do not use.
type Loss = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const LOSSES: [Loss; 6] = [
    (
        "igdm",
        r#"[
            { name = "teach", of = "adversarial", towards = { network = "robust", images = "adversarial" } },
            { name = "match", of = "adversarial", minus = "mirrored", towards = { network = "robust", images = "adversarial" }, weight = 5, ramp = "linear" },
            { name = "label", of = "natural", towards = "label", smoothing = 0.1, weight = 0.1 },
        ]"#,
        &[],
    ),
    (
        "mart",
        r#"[
            { name = "label", of = "adversarial", towards = "boosted_label" },
            { name = "smooth", of = "adversarial", towards = { network = "student", images = "natural" }, weight = 5, sample_weight = "misclassification" },
        ]"#,
        &[],
    ),
    // SAAD-C, HAT and DGAD in one: factors that need the whole batch, classes of a teacher, samples that are left out.
    (
        "factors of samples",
        r#"[
            { name = "teach", of = "adversarial", towards = { network = "robust", images = "adversarial" }, uncertainty = { teacher = "robust", order = 2 } },
            { name = "sure", of = "natural", towards = { network = "robust", images = "natural" }, target_temperature = 2, uncertainty = { teacher = "robust", order = 2, complement = true } },
            { name = "help", of = "helper", towards = { network = "robust", images = "adversarial" }, hard = true },
            { name = "correct", of = "natural", towards = { network = "robust", images = "natural" }, swap_label = true, only = { teacher = "robust", images = "natural", right = false } },
            { name = "consistent", of = "adversarial", towards = { network = "student", images = "natural" }, divergence = "mean_square" },
        ]"#,
        &[
            ("attack.towards", r#"{ network = "robust", images = "natural" }"#),
            ("attack.first_order", "true"),
            ("attack.start", "\"gaussian\""),
        ],
    ),
    // Fair-ARD, GKL, ADR and B-MTARD in one: everything that a method remembers.
    (
        "memory",
        r#"[
            { name = "adversarial", of = "adversarial", towards = { network = "robust", images = "adversarial" } },
            { name = "natural", of = "natural", towards = { network = "robust", images = "natural" } },
            { name = "gaps", of = "adversarial", towards = { network = "student", images = "natural" }, divergence = "logit_gaps" },
            { name = "label", of = "natural", towards = "label" },
        ]"#,
        &[
            ("loss.class_weights", "{ least = 0.5, most = 2 }"),
            ("loss.class_means", "{ temperature = 2, exponent = 0.5, normalized = true }"),
            ("loss.rectify", r#"{ network = "ema", temperature = [2.5, 2], weight = [0.7, 0.95] }"#),
            (
                "loss.balance",
                r#"{ terms = ["adversarial", "natural"], rate = 0.1, temperature_rate = 0.01, milestones = [1] }"#,
            ),
            ("averages.ema", "{ decay = 0.9 }"),
        ],
    ),
    // DGAD for MobileNetV2 and SCORE in one: a product of two terms, squared differences with slack, in the attack too.
    (
        "products and squares",
        r#"[
            { name = "correct", of = "natural", towards = { network = "robust", images = "natural" }, swap_label = true, only = { teacher = "robust", images = "natural", right = false } },
            { name = "teach", of = "adversarial", towards = { network = "robust", images = "adversarial" }, only = { teacher = "robust", images = "natural", right = true }, times = "correct" },
            { name = "label", of = "natural", towards = "label", divergence = "square", smoothing = 0.1 },
            { name = "smooth", of = "adversarial", towards = { network = "student", images = "natural" }, divergence = "square", slack = 0.001, weight = 4 },
            { name = "consistent", of = "adversarial", towards = { network = "student", images = "natural" }, divergence = "jensen_shannon", temperature = 0.5 },
        ]"#,
        &[
            ("attack.towards", r#"{ network = "student", images = "natural" }"#),
            ("attack.divergence", "\"square\""),
            ("attack.start", "\"gaussian\""),
        ],
    ),
    (
        "fair-mtard",
        r#"[
            { name = "adversarial", of = "adversarial", towards = { network = "robust", images = "adversarial" }, weight = 0.1 },
            { name = "natural", of = "natural", towards = { network = "robust", images = "adversarial" }, weight = 0.1 },
        ]"#,
        &[
            ("loss.class_weights", "{ least = 0.8333333333333334, most = 2.5 }"),
            ("loss.balance", r#"{ terms = ["adversarial", "natural"], rate = 0.025, milestones = [1] }"#),
        ],
    ),
];

fn config(world: &World, (name, terms, others): Loss) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(45))?;
    let teacher = format!("{:?}", world.teacher(&data)?.display().to_string());
    let mut changes = vec![
        ("loss.terms", terms),
        ("teachers.robust.checkpoint", &teacher),
        ("epochs", "2"),
        ("student.architecture", "\"resnet8\""),
        ("precision.dtype", "\"float64\""),
        ("batch_norm.across_ranks", "\"sync\""),
    ];
    changes.extend(others);
    world.config(name, &data, &changes)
}

#[test]
fn any_number_of_ranks_takes_the_same_steps_and_a_stopped_run_resumes() -> Result<()> {
    for loss in LOSSES {
        let (world, name) = (World::new()?, loss.0);
        let config = config(&world, loss)?;
        assert_same_on_ranks_and_resumed(&world, &config, name)?;
    }
    Ok(())
}
