//! Networks with known weaknesses: what the suite says of them, and what it warns of.

use std::sync::atomic::{AtomicBool, Ordering};

use comm::Single;
use datasets::Memory;
use tch::{Device, Kind, Tensor, no_grad};

use super::*;
use crate::config::AutoAttack;
use crate::model::{Form, Mode};

const COUNT: usize = 40;

/// A network with its first values, and images that it is all right about.
fn network(classes: usize) -> (Model, Memory) {
    let form = Form { architecture: "convnet".parse().unwrap(), image: [3, 8, 8], classes };
    let model = Model::build(form, 1, Kind::Float, Device::Cpu, None);
    // Without its mean a random network does not say the same of everything.
    let pixels: Vec<u8> = (0..COUNT * 192).map(|place| ((place * 7919 + place / 192 * 131) % 251) as u8).collect();
    let images = Tensor::from_slice(&pixels).view([COUNT as i64, 3, 8, 8]).to_kind(Kind::Float) / 255.0;
    let weight = model.parameters.iter().find(|named| named.name == "linear.bias").unwrap();
    no_grad(|| {
        let mean = model.logits(&images, Mode::Eval).mean_dim([0i64].as_slice(), false, None);
        let _ = weight.tensor.shallow_clone().g_sub_(&mean);
    });
    model.freeze();
    let labels = Vec::<i64>::try_from(model.logits(&images, Mode::Eval).argmax(1, false)).unwrap();
    let names = (0..classes).map(|class| format!("class {class}")).collect();
    (model, Memory::new([3, 8, 8], names, pixels, labels).unwrap())
}

fn scale(model: &Model, factor: f64) {
    for named in model.parameters.iter().filter(|named| named.name.starts_with("linear")) {
        let _ = no_grad(|| named.tensor.shallow_clone().g_mul_scalar_(factor));
    }
}

fn protocol() -> Protocol {
    let autoattack = AutoAttack { iterations: 20, queries: 200, targets: 3 };
    Protocol { batch: 16, seed: 1, autoattack, ..Protocol::default() }
}

fn outcomes(model: &Model, source: &Memory, suite: &[&str], protocol: &Protocol) -> Outcomes {
    let suite = Suite::named(suite.iter().copied()).unwrap();
    let (ranks, stop) = (Single, AtomicBool::new(false));
    let engine = Engine { model, source, suite: &suite, protocol, ranks: &ranks, stop: &stop, distrust: true };
    engine.run(&mut Keeping::default(), &mut |_| ()).unwrap().unwrap()
}

fn correct(outcomes: &Outcomes, name: &str) -> u64 {
    outcomes.accuracies().unwrap().into_iter().find(|found| found.name == name).unwrap().correct
}

#[test]
fn an_undefended_network_falls() {
    let (model, source) = network(10);
    let found = outcomes(&model, &source, &["natural", "pgd20", "autoattack"], &Protocol { eps: 0.1, ..protocol() });
    assert_eq!(correct(&found, "natural"), COUNT as u64);
    assert!(correct(&found, "pgd20") <= 1 && correct(&found, "autoattack") == 0, "{:?}", found.accuracies());
    assert_eq!(found.worst_case().correct, 0);
    let parts = &found.components()["autoattack"];
    assert_eq!(parts.len(), 4);
    assert!(parts.is_sorted_by(|one, next| one.correct >= next.correct), "{parts:?}");
    assert_eq!(warnings(&found), [""; 0]);
}

#[test]
fn masked_gradients_are_warned_of_and_fall_to_square() {
    let (model, source) = network(10);
    scale(&model, 1e7);
    let suite = ["natural", "pgd20", "apgd_ce", "square"];
    let found = outcomes(&model, &source, &suite, &Protocol { eps: 0.1, ..protocol() });
    assert!(correct(&found, "square") < correct(&found, "pgd20"), "{:?}", found.accuracies());
    assert!(found.seen.zero_gradients > COUNT as u64 / 2, "{:?}", found.seen);
    let said = warnings(&found);
    assert!(said.len() == 2 && said[0].contains("exactly 0") && said[1].contains("Square"), "{said:?}");
}

#[test]
fn outputs_that_are_probabilities_or_no_numbers_are_warned_of() {
    let (model, source) = network(4);
    scale(&model, 0.0);
    let bias = model.parameters.iter().find(|named| named.name == "linear.bias").unwrap();
    let _ = no_grad(|| bias.tensor.get(1).fill_(1.0));
    let found = outcomes(&model, &source, &["natural"], &protocol());
    assert!(warnings(&found)[0].contains("probabilities"), "{:?}", warnings(&found));

    let _ = no_grad(|| bias.tensor.get(2).fill_(f64::NAN));
    let found = outcomes(&model, &source, &["pgd3", "autoattack"], &protocol());
    // Answers that are no numbers are wrong, and nothing is left to attack.
    assert_eq!(found.worst_case().correct, 0);
    let said = warnings(&found).concat();
    assert!(said.contains("infinite or not numbers"), "{said}");
}

#[test]
fn a_network_that_is_always_wrong_leaves_nothing_to_attack() {
    let (model, source) = network(4);
    // The labels stay, the answers change.
    scale(&model, -1.0);
    let found = outcomes(&model, &source, &["autoattack", "fgsm"], &protocol());
    assert_eq!((correct(&found, "natural"), correct(&found, "autoattack")), (0, 0));
    // Plain attacks are on every image.
    assert!(found.seconds[1] > 0.0 && found.rounds[1].name == "fgsm" || found.rounds[1].name == "apgd_ce");
    let table = found.table(|sample| sample as i64);
    assert_eq!(table.lines().count(), COUNT + 1);
    assert!(table.lines().nth(1).unwrap().contains("fell,-,-,-,-,"), "{table}");
}

#[test]
fn two_classes_have_one_target() {
    let (model, source) = network(2);
    let found = outcomes(&model, &source, &["apgd_ce", "fab_t", "square"], &Protocol { eps: 0.1, ..protocol() });
    let names: Vec<String> = found.rounds.iter().map(|round| round.label(&found.suite)).collect();
    assert_eq!(names, ["natural", "apgd_ce", "fab_t:2", "square"]);
    assert!(found.worst_case().correct < COUNT as u64);
}

#[test]
fn outcomes_do_not_depend_on_the_batch() {
    let (model, source) = network(10);
    let table = |batch| {
        let found = outcomes(&model, &source, &["paper"], &Protocol { batch, eps: 0.02, ..protocol() });
        (found.table(|_| 0), found.accuracies().unwrap())
    };
    let one = table(16);
    assert!(one.1.iter().any(|found| (1..COUNT as u64).contains(&found.correct)), "nothing to tell apart: {:?}", one.1);
    assert_eq!(one, table(32));
    assert_eq!(one, table(64));
}

#[test]
fn an_evaluation_goes_on_after_every_step() {
    let (model, source) = network(10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evaluation.journal");
    let suite = Suite::named(["fgsm", "autoattack"]).unwrap();
    let (ranks, stop, protocol) = (Single, AtomicBool::new(false), Protocol { eps: 0.02, ..protocol() });
    let engine = Engine {
        model: &model,
        source: &source,
        suite: &suite,
        protocol: &protocol,
        ranks: &ranks,
        stop: &stop,
        distrust: true,
    };
    let whole = engine.run(&mut Keeping::default(), &mut |_| ()).unwrap().unwrap();
    let (mut sessions, mut steps) = (0, 0);
    let found = loop {
        let (journal, known, problems) = Journal::open(&path, "a", &engine.fresh()).unwrap();
        assert!(problems.is_empty());
        // Each session did one step, and none of them is done again.
        assert_eq!(known.len(), sessions);
        sessions += 1;
        stop.store(false, Ordering::Relaxed);
        let mut keeping = Keeping { journal: Some(journal), known, ..Keeping::default() };
        let stopping = &mut |_: &Standing| {
            steps += 1;
            stop.store(true, Ordering::Relaxed);
        };
        if let Some(found) = engine.run(&mut keeping, stopping).unwrap() {
            break found;
        }
    };
    assert!(sessions > 10 && steps + 1 >= sessions, "{steps} steps in {sessions} sessions");
    assert_eq!(found.table(|_| 0), whole.table(|_| 0));
    assert_eq!((found.accuracies().unwrap(), found.seen), (whole.accuracies().unwrap(), whole.seen));
}
