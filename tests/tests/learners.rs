//! Networks that learn beside the student: the number of ranks changes nothing, a stopped run resumes to the bit, and what
//! cannot be combined is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    Images, Program, Stored, World, assert_same_on_ranks_and_resumed, assert_same_run, checkout, metrics, tensors,
};

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

/// A student and a peer that do not know each other, each by labels.
const STRANGERS: &str = r#"[
    { name = "label", of = "adversarial", towards = "label" },
    { name = "peer-label", network = "peer", of = "natural", towards = "label" },
]"#;

/// The tensors of a checkpoint or of a step that was kept, without the batch.
fn state(path: &Path) -> Result<BTreeMap<String, Stored>> {
    let mut tensors = tensors(path)?;
    tensors.retain(|name, _| !name.starts_with("batch/"));
    Ok(tensors)
}

fn replay(ranks: usize, what: &Path) -> Result<String> {
    Ok(Program::on(ranks).args(["replay".as_ref(), what.as_os_str()]).run()?.expect(0).said)
}

/// A step that is not finite, of all networks or of a learner alone, moves none of them, and is repeated.
#[test]
fn a_step_that_is_not_finite_moves_no_network() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(90))?;
    let peeraid = config(&world, &data, "peeraid", &[("loss.preset", "\"peeraid\""), ("attack.steps", "2")])?;
    let (run, before) = (world.run("run"), world.run("before"));
    let fault = ["--allow-fault-injection", "--inject", "rank=1,step=4,kind=nan"];
    let ended = Program::on(2).train(&peeraid, &run).args(fault).run()?.expect(1);
    ended.expect_error(&["step 4: the gradient is not finite", "iad-launch replay"]);
    Program::on(2).train(&peeraid, &before).stop_after(3).run()?.expect(85);
    let kept = state(&run.join("offending/step-00000004.safetensors"))?;
    ensure!(kept.keys().any(|name| name.starts_with("learners/peer/momentum/")), "{:?}", kept.keys());
    ensure!(kept == state(&before.join("checkpoints/step-00000003.safetensors"))?, "step 4 has moved something");
    for ranks in [1, 2] {
        let said = replay(ranks, &run)?;
        ensure!(said.contains("loss term peer-label: NaN") && said.contains("\nreproduced"), "{said}");
    }

    // The first step ruins the peer; the student's second gradient is sound.
    let rate = r#"{ optimizer = { lr = 1e300, lr_policy = "constant" } }"#;
    let changes = [("loss.terms", STRANGERS), ("learners.peer", rate), ("student.architecture", "\"convnet\"")];
    let strangers = config(&world, &data, "strangers", &changes)?;
    let (run, before) = (world.run("ruined"), world.run("sound"));
    let ended = Program::alone().train(&strangers, &run).run()?.expect(1);
    ended.expect_error(&["step 2: peer: the gradient is not finite", "Lower learners.peer.optimizer.lr"]);
    Program::alone().train(&strangers, &before).stop_after(1).run()?.expect(85);
    let (kept, sound) = (
        state(&run.join("offending/step-00000002.safetensors"))?,
        state(&before.join("checkpoints/step-00000001.safetensors"))?,
    );
    ensure!(kept == sound, "the second step has moved something");
    let said = replay(1, &run)?;
    ensure!(said.contains("\nreproduced"), "{said}");
    Ok(())
}

/// An outlier leads both networks back to the checkpoint, through stops and on two ranks to the same bits; its step is repeated to
/// the bit.
#[test]
fn a_rollback_takes_back_every_network() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(96))?;
    let changes = [
        ("epochs", "4"),
        ("loss.terms", STRANGERS),
        ("learners.peer", "{}"),
        ("student.architecture", "\"convnet\""),
        ("guard", r#"{ on_collapse = "rollback", gradient_factor = 1, max_rollbacks = 1 }"#),
        ("checkpoint", "{ keep_last = 9, minutes = 0 }"),
    ];
    let config = config(&world, &data, "rollback", &changes)?;
    let (whole, run, two, before) = (world.run("whole"), world.run("run"), world.run("two"), world.run("before"));
    Program::alone().train(&config, &whole).run()?.expect(0);
    let decisions = |run: &Path| -> Result<Vec<Value>> {
        Ok(metrics(run)?.into_iter().filter(|event| event["event"] == "guarded").collect())
    };
    let found = decisions(&whole)?;
    let first = found.first().context("nothing was found")?;
    ensure!(first["action"] == "rollback", "{first}");
    let (step, to) = (first["step"].as_u64().context("a step")?, first["to"].as_u64().context("a step")?);

    // What is saved as it goes back is what was saved there first.
    Program::alone().train(&config, &before).stop_after(to).run()?.expect(85);
    let at = |run: &Path, step: u64| state(&run.join(format!("checkpoints/step-{step:08}.safetensors")));
    ensure!(at(&whole, to)? == at(&before, to)?, "a network did not come back from step {step} to {to}");
    ensure!(at(&whole, to)?.keys().any(|name| name.starts_with("learners/peer/momentum/")), "no peer is saved");
    Program::alone().train(&config, &run).stop_after(step).run()?.expect(85);
    // The numbers of the step as the run recorded them, digit by digit.
    let events = metrics(&run)?;
    let taken = events.iter().find(|event| event["event"] == "step" && event["step"].as_u64() == Some(step));
    let losses = taken.context("the step is recorded")?["terms"].as_object().context("losses")?.clone();
    let said = replay(1, &run.join(format!("offending/step-{step:08}.safetensors")))?;
    for (term, value) in &losses {
        let line = format!("loss term {term}: {}\n", value.as_f64().context("a number")?);
        ensure!(said.contains(&line), "{line} is missing:\n{said}");
    }
    ensure!(losses.contains_key("peer-label") && said.contains("\nreproduced"), "{said}");
    Program::alone().train(&config, &run).stop_after(step + 1).run()?.expect(85);
    Program::alone().train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, "stopped and resumed")?;
    Program::on(2).train(&config, &two).run()?.expect(0);
    let places = |found: Vec<Value>| found.into_iter().map(|one| one["step"].clone()).collect::<Vec<_>>();
    ensure!(places(decisions(&two)?) == places(found), "two ranks decide otherwise");
    Ok(())
}

/// Weights of a run folder or of a file; those of another network are refused.
#[test]
fn a_learner_begins_with_the_weights_of_a_run_or_a_file() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(32))?;
    let peer = world.run("peer");
    let short = [("student.architecture", "\"wrn-10-1\""), ("evaluation.suite", "[]")];
    Program::alone().train(&world.config("peer", &data, &short)?, &peer).run()?.expect(0);
    let file = peer.join("checkpoints/final.safetensors");
    let still = r#"optimizer = { lr = 1e-30, lr_policy = "constant", weight_decay = 0 }"#;
    for (name, path) in [("folder", &peer), ("file", &file)] {
        let learner = format!("{{ checkpoint = {path:?}, architecture = \"wrn-10-1\", {still} }}");
        let changes = [("loss.terms", STRANGERS), ("learners.peer", learner.as_str())];
        let (config, run) = (config(&world, &data, name, &changes)?, world.run(name));
        Program::alone().train(&config, &run).stop_after(1).run()?.expect(85);
        let (began, saved) = (tensors(&file)?, tensors(&run.join("checkpoints/step-00000001.safetensors"))?);
        for parameter in ["block1.layer.0.conv1.weight", "fc.weight", "fc.bias"] {
            let (before, now) =
                (&began[&format!("student/{parameter}")], &saved[&format!("learners/peer/{parameter}")]);
            ensure!(before.values()? == now.values()?, "{name}: {parameter}");
        }
        let inputs = std::fs::read_to_string(run.join("inputs.toml"))?;
        ensure!(inputs.contains("the weights of learners.peer.checkpoint"), "{inputs}");
        // The first batch moved the statistics, and the run goes on.
        Program::alone().train(&config, &run).run()?.expect(0);
    }
    let learner = format!("{{ checkpoint = {file:?} }}");
    let changes = [("loss.terms", STRANGERS), ("learners.peer", learner.as_str())];
    let (config, run) = (config(&world, &data, "other", &changes)?, world.run("other"));
    let ended = Program::alone().train(&config, &run).run()?.expect(2);
    ended.expect_error(&["learners.peer.checkpoint", "wrn-10-1", "set learners.peer.architecture"]);
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
