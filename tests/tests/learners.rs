//! Networks that learn beside the student: the number of ranks changes nothing, a stopped run resumes to the bit, and what
//! cannot be combined is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tests::{Images, Program, Stored, World, assert_same_on_ranks_and_resumed, checkout, tensors};

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

/// The method of a preset whose learner begins in the second epoch, as changes of a configuration.
fn ciard(teacher: &Path) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(checkout().join("configs/losses/ciard.toml"))?;
    // The rate of its schedule is 0 in the last epoch of a run.
    let text = text.replace("{ late_cosine = { decay = 0.01 } }", "\"constant\"").replace("1e-4", "1e-2");
    let method: toml::Table = text.replace("from_epoch = 50", "from_epoch = 1").parse()?;
    let mut changes = vec![];
    for (key, value) in &method {
        match value {
            // The tables of `[loss]` and the others, key by key.
            toml::Value::Table(keys) => {
                changes.extend(keys.iter().map(|(name, value)| (format!("{key}.{name}"), value.to_string())));
            }
            _ => changes.push((format!("loss.{key}"), value.to_string())),
        }
    }
    changes.push(("attack.steps".into(), "2".into()));
    let teacher = format!("{:?}", teacher.display().to_string());
    changes.extend(["robust", "standard"].map(|name| (format!("teachers.{name}.checkpoint"), teacher.clone())));
    Ok(changes)
}

/// CIARD: a robust teacher that learns on in the second epoch. Until then its weights are those of its file, and its statistics move.
#[test]
fn a_learner_begins_as_a_teacher_on_any_number_of_ranks() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(45))?;
    let teacher = world.teacher(&data)?;
    let method = ciard(&teacher)?;
    let changes: Vec<(&str, &str)> = method.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let config = config(&world, &data, "ciard", &changes)?;
    assert_same_on_ranks_and_resumed(&world, &config, "ciard")?;
    let began = tensors(&teacher)?;
    let of = |step: u64| tensors(&world.run("1-ranks").join(format!("checkpoints/step-{step:08}.safetensors")));
    let (first, last) = (of(3)?, of(6)?);
    let (mut weights, mut statistics) = (0, 0);
    for (name, value) in began.iter().filter_map(|(name, value)| Some((name.strip_prefix("student/")?, value))) {
        let value = value.values()?;
        let of = |saved: &BTreeMap<String, Stored>| saved[&format!("learners/tutor/{name}")].values();
        let (first, last) = (of(&first)?, of(&last)?);
        if name.contains("running") {
            ensure!(first != value && last != first, "{name} did not move");
            statistics += 1;
        } else if name.ends_with("weight") {
            ensure!(first == value, "{name} moved in the first epoch");
            ensure!(last != value, "{name} did not move in the second epoch");
            weights += 1;
        }
    }
    ensure!(weights > 0 && statistics > 0, "{weights} weights and {statistics} statistics");
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
            &[peer, ("learners.peer", r#"{ teacher = "roboust" }"#)],
            &["learners.peer.teacher", "add [teachers.roboust]"],
        ),
        (
            &[
                peer,
                ("teachers.robust.checkpoint", "\"a.safetensors\""),
                ("learners.peer", r#"{ teacher = "robust", architecture = "resnet8" }"#),
            ],
            &["learners.peer.architecture", "the teacher has network and weights"],
        ),
        (
            &[("loss.terms", r#"[{ name = "away", of = "natural", towards = "label", weight = -1 }]"#)],
            &["loss.terms.away.weight", "magnitude_of"],
        ),
        (
            &[
                (
                    "loss.terms",
                    r#"[
                        { name = "label", network = "peer", of = "natural", towards = "label" },
                        { name = "away", of = "natural", towards = { network = "peer", images = "natural" }, weight = -1, magnitude_of = ["label"] },
                    ]"#,
                ),
                ("learners.peer", "{}"),
            ],
            &["loss.terms.away.magnitude_of", "by KL towards a network's prediction"],
        ),
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
