//! Suites and warnings on networks with known weaknesses.

use std::sync::atomic::{AtomicBool, Ordering};

use comm::Single;
use datasets::Memory;
use tch::{Device, Kind, Tensor, no_grad};

use super::*;
use crate::config::{AutoAttack, Protocol, Suite};
use crate::model::{Mode, Model, ModelSpec};

mod adaptive;

const COUNT: usize = 40;

/// A network with its first values, and images that it is all right about.
fn network(classes: usize) -> (Model, Memory) {
    let form = ModelSpec::new("convnet".parse().unwrap(), [3, 8, 8], classes);
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

fn engine<'a>(
    network: &'a dyn Classifier,
    source: &'a Memory,
    suite: &'a Suite,
    protocol: &'a Protocol,
    stop: &'a AtomicBool,
) -> Engine<'a> {
    Engine { network, source, suite, protocol, ranks: &Single, stop, checks_sanity: true, saves_images: false }
}

fn outcomes(model: &Model, source: &Memory, suite: &[&str], protocol: &Protocol) -> Outcomes {
    let suite = Suite::named(suite.iter().copied()).unwrap();
    let stop = AtomicBool::new(false);
    let engine = engine(model, source, &suite, protocol, &stop);
    engine.run(&mut Records::default(), &mut |_| ()).unwrap().unwrap()
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
    assert_eq!(warnings(&found, "iad-launch eval RUN"), [""; 0]);
}

#[test]
fn masked_gradients_are_warned_of_and_fall_to_square() {
    let (model, source) = network(10);
    scale(&model, 1e7);
    let suite = ["natural", "pgd20", "apgd_ce", "square"];
    let found = outcomes(&model, &source, &suite, &Protocol { eps: 0.1, ..protocol() });
    assert!(correct(&found, "square") < correct(&found, "pgd20"), "{:?}", found.accuracies());
    assert!(found.seen.zero_gradients > COUNT as u64 / 2, "{:?}", found.seen);
    let said = warnings(&found, "iad-launch eval RUN");
    assert!(said.len() == 2 && said[0].contains("exactly 0") && said[1].contains("Square"), "{said:?}");
    assert!(said.iter().all(|said| said.contains("`iad-launch eval RUN --suite adaptive`")), "{said:?}");
}

#[test]
fn outputs_that_are_probabilities_or_no_numbers_are_warned_of() {
    let (model, source) = network(4);
    scale(&model, 0.0);
    let bias = model.parameters.iter().find(|named| named.name == "linear.bias").unwrap();
    let _ = no_grad(|| bias.tensor.get(1).fill_(1.0));
    let found = outcomes(&model, &source, &["natural"], &protocol());
    assert!(
        warnings(&found, "iad-launch eval RUN")[0].contains("probabilities"),
        "{:?}",
        warnings(&found, "iad-launch eval RUN")
    );

    let _ = no_grad(|| bias.tensor.get(2).fill_(f64::NAN));
    let found = outcomes(&model, &source, &["pgd3", "autoattack"], &protocol());
    // Answers that are no numbers are wrong, and nothing is left to attack.
    assert_eq!(found.worst_case().correct, 0);
    let said = warnings(&found, "iad-launch eval RUN").concat();
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
    let suite = Suite::named(["fgsm", "autoattack", "adaptive2"]).unwrap();
    let (stop, protocol) = (AtomicBool::new(false), Protocol { eps: 0.02, ..protocol() });
    let engine = engine(&model, &source, &suite, &protocol, &stop);
    let whole = engine.run(&mut Records::default(), &mut |_| ()).unwrap().unwrap();
    let (mut sessions, mut steps, mut decided) = (0, 0, 0);
    let found = loop {
        let (journal, known, problems) = Journal::open(&path, "a", &engine.fresh()).unwrap();
        assert!(problems.is_empty());
        // Each session did one step, of one round or of several that share a batch, and none of them is done again.
        assert!(known.len() > decided || sessions == 0, "{decided} steps after {sessions} sessions");
        decided = known.len();
        sessions += 1;
        stop.store(false, Ordering::Relaxed);
        let mut records = Records { journal: Some(journal), known, ..Records::default() };
        let stopping = &mut |_: &Standing| {
            steps += 1;
            stop.store(true, Ordering::Relaxed);
        };
        if let Some(found) = engine.run(&mut records, stopping).unwrap() {
            break found;
        }
    };
    let decided = Journal::open(&path, "a", &engine.fresh()).unwrap().1.len();
    assert!(decided > 10, "{decided} steps");
    assert!(sessions >= 10 && steps + 1 >= sessions, "{steps} steps in {sessions} sessions");
    assert_eq!(found.table(|_| 0), whole.table(|_| 0));
    assert_eq!((found.accuracies().unwrap(), found.seen), (whole.accuracies().unwrap(), whole.seen));
}

/// A network that counts its passes and is told to stop at one of them.
struct StopsAt<'a> {
    network: &'a Model,
    passes: std::cell::Cell<usize>,
    at: usize,
    stop: &'a AtomicBool,
    has_stand_in: bool,
}

impl Classifier for StopsAt<'_> {
    fn classes(&self) -> usize {
        self.network.classes()
    }

    fn kind(&self) -> Kind {
        Classifier::kind(self.network)
    }

    fn device(&self) -> Device {
        Classifier::device(self.network)
    }

    fn logits(&self, images: &Tensor) -> Tensor {
        self.passes.set(self.passes.get() + 1);
        self.stop.fetch_or(self.passes.get() == self.at, Ordering::Relaxed);
        Classifier::logits(self.network, images)
    }

    fn stand_in(&self, images: &Tensor) -> Option<Tensor> {
        self.has_stand_in.then(|| self.logits(images))
    }
}

/// Both suites start from the same images, and the fast one searches less, with other random numbers. That AutoAttack breaks each
/// image that the fast suite breaks is no theorem: it is counted, and allowed to fail for one image of this network.
#[test]
fn the_fast_suite_breaks_what_autoattack_breaks_and_less() {
    let (model, source) = network(10);
    for eps in [0.005, 0.02] {
        let whole = AutoAttack { iterations: 30, queries: 100, targets: 5 };
        let protocol = Protocol { eps, batch: 16, seed: 1, autoattack: whole, ..Protocol::default() };
        let found = outcomes(&model, &source, &["natural", "fast", "autoattack"], &protocol);
        let [natural, fast, full] = ["natural", "fast", "autoattack"].map(|name| correct(&found, name));
        let both = found.worst_case().correct;
        let by_fast_alone = full - both;
        assert!(fast <= natural && both <= fast.min(full), "eps {eps}: {natural}, {fast}, {full}, {both}");
        assert!(by_fast_alone <= 1, "eps {eps}: {by_fast_alone} images fall to the fast suite alone");
        assert!(fast - both <= natural / 10, "eps {eps}: {} images fall to AutoAttack alone", fast - both);
    }
}

#[test]
fn a_request_to_stop_ends_an_attack_within_one_pass() {
    let (model, source) = network(10);
    let protocol = Protocol { eps: 0.001, ..protocol() };
    let attacks = ["pgd50", "cw_inf", "apgd_ce", "apgd_t", "fab_t", "square", "fast", "adaptive"];
    for (attack, has_stand_in) in attacks.map(|attack| (attack, false)).into_iter().chain([("adaptive", true)]) {
        let stop = AtomicBool::new(false);
        let network = StopsAt { network: &model, passes: 0.into(), at: 40, stop: &stop, has_stand_in };
        let suite = Suite::named([attack]).unwrap();
        let found = engine(&network, &source, &suite, &protocol, &stop).run(&mut Records::default(), &mut |_| ());
        assert!(found.unwrap().is_none(), "{attack} went on");
        assert_eq!(network.passes.get(), 40, "{attack}: passes after the request");
    }
}

/// One after another, each round attacks the images that those before it left. Together they give the same outcomes, counts
/// and candidates, to the bit.
#[test]
fn rounds_in_one_batch_decide_what_they_decide_one_after_another() {
    let (model, source) = network(10);
    for attack in ["apgd_t", "fab_t"] {
        let suite = Suite::named([attack]).unwrap();
        let stop = AtomicBool::new(false);
        let protocol = Protocol { eps: 0.02, batch: 64, ..protocol() };
        let engine = engine(&model, &source, &suite, &protocol, &stop);
        let rounds = &engine.fresh().rounds[1..];
        assert_eq!(rounds.len(), 3);
        let samples: Vec<usize> = (5..21).collect();
        let together = engine.attack(rounds, &samples, 64).unwrap().unwrap();
        let mut left = samples.clone();
        for (place, round) in rounds.iter().enumerate() {
            let alone = engine.attack(std::slice::from_ref(round), &left, 64).unwrap().unwrap();
            assert_eq!(together.decided[place], alone.decided[0], "{attack}, round {place}");
            assert!(together.images(place).unwrap().equal(&alone.images(0).unwrap()), "{attack}, round {place}");
            let stands = |sample: &usize| {
                let at = alone.decided[0].samples.iter().position(|known| known == sample).unwrap();
                alone.decided[0].fallen.as_bytes()[at] == b'0'
            };
            let before = left.len();
            left.retain(stands);
            assert!(place > 0 || (1..before).contains(&left.len()), "{attack}: nothing to tell apart");
        }
    }
}

/// The suite round by round, each in batches of its own.
fn one_round_after_another(engine: &Engine) -> Outcomes {
    let mut outcomes = engine.fresh();
    for number in 0..outcomes.rounds.len() {
        let round = [outcomes.rounds[number].clone()];
        for samples in outcomes.pending(number).chunks(engine.protocol.batch) {
            let attacked = engine.attack(&round, samples, engine.protocol.batch).unwrap().unwrap();
            outcomes.apply(&RoundStep { round: number, seconds: 0.0, batches: attacked.decided }).unwrap();
        }
    }
    outcomes
}

#[test]
fn a_suite_with_shared_batches_has_the_same_outcomes() {
    let (model, source) = network(10);
    let suite = Suite::named(["autoattack"]).unwrap();
    let (stop, protocol) = (AtomicBool::new(false), Protocol { batch: 64, eps: 0.02, ..protocol() });
    let engine = engine(&model, &source, &suite, &protocol, &stop);
    let folder = tempfile::tempdir().unwrap();
    let open = || Journal::open(&folder.path().join("a.journal"), "a", &engine.fresh()).unwrap();
    let mut reports = 0;
    let mut records = Records { journal: Some(open().0), ..Records::default() };
    let found = engine.run(&mut records, &mut |_| reports += 1).unwrap().unwrap();
    drop(records);
    let steps = open().1.len();
    assert!(steps > reports, "no rounds shared a batch: {:?}", found.components());
    let expected = one_round_after_another(&engine);
    assert_eq!(found.table(|_| 0), expected.table(|_| 0));
    assert_eq!((found.accuracies().unwrap(), found.seen), (expected.accuracies().unwrap(), expected.seen));
}
