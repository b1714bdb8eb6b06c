//! Perturbed weights and attacks of a single step: the number of ranks changes nothing, and a stopped run resumes to the bit.

use std::path::PathBuf;

use anyhow::Result;
use tests::{Images, Program, World, assert_same_on_ranks_and_resumed};

/// The weights are perturbed from the second of two epochs on, and from the first.
const METHODS: [(&str, &[(&str, &str)]); 3] = [
    (
        "trades-awp",
        &[
            ("loss.preset", "\"trades\""),
            (
                "attack",
                r#"{ steps = 2, start = "gaussian", batch_norm = "eval", towards = { network = "student", images = "natural" } }"#,
            ),
            ("awp", "{ gamma = 0.02, from_epoch = 1 }"),
        ],
    ),
    // Its weight is 0 in the first epoch. The run is stopped between two kinds of steps.
    (
        "nuat",
        &[
            ("loss.preset", "\"nuat\""),
            (
                "attack",
                r#"{ steps = 1, step = "8/255", start = "signs", clamp_start = true, batch_norm = "eval", natural_batch_norm = "train_update" }"#,
            ),
        ],
    ),
    ("n-fgsm-awp", &[("attack", r#"{ kind = "n_fgsm" }"#), ("awp", "{ gamma = 0.02 }"), ("batch.accumulate", "2")]),
];

fn config(world: &World, name: &str, changes: &[(&str, &str)]) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(45))?;
    let common = [
        ("epochs", "2"),
        ("student.architecture", "\"resnet8\""),
        ("precision.dtype", "\"float64\""),
        ("batch_norm.across_ranks", "\"sync\""),
    ];
    world.config(name, &data, &[&common, changes].concat())
}

#[test]
fn any_number_of_ranks_takes_the_same_steps_and_a_stopped_run_resumes() -> Result<()> {
    for (name, changes) in METHODS {
        let world = World::new()?;
        let config = config(&world, name, changes)?;
        // In the second epoch of the first method, whose weights are perturbed only there, the run is stopped.
        assert_same_on_ranks_and_resumed(&world, &config, name)?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_combined_is_refused() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(16))?;
    for (changes, said) in [
        (&[("awp", "{ gamma = 2.0 }")][..], &["awp.gamma", "0 to 1"][..]),
        (&[("attack", r#"{ kind = "n_fgsm", steps = 3 }"#)], &["attack.steps", "n_fgsm"]),
        (&[("attack", r#"{ kind = "fgsm_rs", norm = "l2" }"#)], &["attack.norm", "linf"]),
    ] {
        let config = world.config("refused", &data, changes)?;
        Program::alone().train(&config, &world.run("refused")).run()?.expect(2).expect_error(said);
    }
    // With one rank there is no sum to differentiate.
    let aligned = [
        ("grad_align", "{ weight = 0.5 }"),
        ("attack", r#"{ kind = "fgsm_rs" }"#),
        ("student.architecture", "\"resnet8\""),
    ];
    let config = world.config("aligned", &data, &aligned)?;
    let ended = Program::on(2).train(&config, &world.run("aligned")).run()?.expect(2);
    ended.expect_error(&["batch_norm.across_ranks", "grad_align", "local"]);
    Program::alone().train(&config, &world.run("aligned")).run()?.expect(0);
    Ok(())
}
