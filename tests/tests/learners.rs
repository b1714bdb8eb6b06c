//! Networks that learn beside the student: the number of ranks changes nothing, a stopped run resumes to the bit, and what
//! cannot be combined is refused.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tests::{Images, Program, World, assert_same_on_ranks_and_resumed, tensors};

fn config(world: &World, data: &Path, name: &str, changes: &[(&str, &str)]) -> Result<PathBuf> {
    let common = [
        ("epochs", "2"),
        ("student.architecture", "\"resnet8\""),
        ("precision.dtype", "\"float64\""),
        ("batch_norm.across_ranks", "\"sync\""),
    ];
    world.config(name, data, &[&common, changes].concat())
}

#[test]
fn any_number_of_ranks_takes_the_same_steps_and_a_stopped_run_resumes() -> Result<()> {
    let towards = |network: &str| format!(r#"{{ network = "{network}", images = "natural" }}"#);
    let attack = |network: &str| {
        format!(r#"{{ steps = 2, start = "gaussian", batch_norm = "eval", towards = {} }}"#, towards(network))
    };
    // A guide of another form, whose optimizer counts its updates and begins in the second epoch; and a peer like the student.
    let guide = r#"{ architecture = "convnet", from_epoch = 1, optimizer = { kind = "adamw", lr = 0.01, lr_policy = "cosine" } }"#;
    for (preset, attack, others) in [
        ("\"lbgat\"", attack("student"), &[("learners.guide", guide)][..]),
        ("\"peeraid\"", attack("peer"), &[("batch.accumulate", "2")]),
    ] {
        let world = World::new()?;
        let changes = [&[("loss.preset", preset), ("attack", attack.as_str())], others].concat();
        let data = world.images("data", Images::colour(45))?;
        let config = config(&world, &data, "learners", &changes)?;
        assert_same_on_ranks_and_resumed(&world, &config, preset)?;
        let saved = tensors(&world.run("1-ranks").join("checkpoints/step-00000006.safetensors"))?;
        assert!(saved.keys().any(|name| name.starts_with("learners/")), "{:?}", saved.keys());
        let last = tensors(&world.run("1-ranks").join("checkpoints/final.safetensors"))?;
        assert!(last.keys().all(|name| name.starts_with("student/")), "{:?}", last.keys());
    }
    Ok(())
}

#[test]
fn what_cannot_be_combined_is_refused() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(16))?;
    let peer = ("loss.preset", "\"peeraid\"");
    for (changes, said) in [
        (&[peer, ("awp", "{ gamma = 0.01 }")][..], &["awp", "learners.peer"][..]),
        (&[("learners.idle", "{ from_epoch = 0 }")], &["learners.idle", "network = \"idle\""]),
        (&[peer, ("learners.peer", "{ from_epoch = 2 }")], &["learners.peer.from_epoch", "0 to 1"]),
        (
            &[peer, ("learners.peer", r#"{ optimizer = { lr = -1, lr_policy = "constant" } }"#)],
            &["learners.peer.optimizer.lr", "a positive number"],
        ),
        (
            &[("loss.terms", r#"[{ name = "label", network = "pier", of = "natural", towards = "label" }]"#)],
            &["loss.terms.label.network", "add [learners.pier]"],
        ),
    ] {
        let config = config(&world, &data, "refused", changes)?;
        Program::alone().train(&config, &world.run("refused")).run()?.expect(2).expect_error(said);
    }
    Ok(())
}
