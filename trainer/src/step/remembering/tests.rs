//! Two teachers in balance against the golden numbers of the authors' code, and what ranks add up.

use std::collections::BTreeMap;

use serde_json::Value;
use tch::Device;

use super::*;
use crate::config::{Precision, RunConfig};
use crate::fixtures::{on_ranks, tensor_of};
use crate::method::memory::Memory;
use crate::model::{Mode, Model, ModelSpec};

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../../../tests/fixtures/golden_distillation.json")).unwrap()
}

fn read(preset: &str, set: &[&str]) -> RunConfig {
    let text = format!(
        r#"
epochs = 300
batch = {{ size = 4 }}
data = {{ train = "none", test = "none" }}
student = {{ architecture = "convnet" }}
optimizer = {{ lr = 0.1, lr_policy = "constant" }}
teachers = {{ robust.checkpoint = "none", standard.checkpoint = "none" }}
loss.preset = {preset:?}
"#
    );
    let set: Vec<_> = set.iter().map(|set| set.parse().unwrap()).collect();
    RunConfig::parse(&text, std::path::Path::new("test.toml"), &set).unwrap()
}

fn config(preset: &str) -> RunConfig {
    // The golden cases take means over four classes.
    read(preset, &["loss.terms.adversarial.weight=0.25", "loss.terms.natural.weight=0.25"])
}

fn networks(config: &RunConfig) -> Networks {
    let form = ModelSpec::new("convnet".parse().unwrap(), [1, 8, 8], 4);
    let student = Model::build(form, 1, Kind::Double, Device::Cpu, None);
    let memory = Memory::new(&config.loss, 4, Device::Cpu);
    Networks { memory, ..Networks::new(student, BTreeMap::new(), Precision::default()) }
}

/// The loss, its gradients in the student's natural and adversarial logits, and the state afterwards, of the samples `rows`.
fn step(config: &RunConfig, networks: &Networks, case: &Value, rows: &[i64]) -> (f64, [Tensor; 2], Vec<f64>) {
    let golden = fixture();
    let rows = Tensor::from_slice(rows);
    let pick = |name: &str| tensor_of(&golden["logits"][name]).index_select(0, &rows);
    let shift: Vec<f64> = serde_json::from_value(case["parameters"]["student_b2_shift"].clone()).unwrap();
    let student = |name: &str| (pick(name) + Tensor::from_slice(&shift)).set_requires_grad(true);
    let (natural, adversarial) = (student("s_nat"), student("s_adv"));
    let nothing = Tensor::zeros([rows.size()[0], 1, 8, 8], tch::kind::DOUBLE_CPU);
    let views = Views::new(networks, Mode::Train, &nothing, &nothing);
    for (network, images, logits) in [
        (STUDENT, Images::Natural, natural.shallow_clone()),
        (STUDENT, Images::Adversarial, adversarial.shallow_clone()),
        ("robust", Images::Adversarial, pick("t_adv")),
        ("standard", Images::Natural, pick("n_nat")),
    ] {
        views.give(network, images, logits);
    }
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let labels = Tensor::from_slice(&labels).index_select(0, &rows);
    networks.memory.begin_step(0, 0, 1);
    let terms: Vec<Term> = config.active_terms(0).collect();
    let mut summands: Vec<(&Term, Tensor)> =
        terms.iter().map(|term| (term, term.evaluate(&views, &labels, 4.0))).collect();
    balance(&views, &labels, 4.0, &mut summands);
    let total: Tensor = summands.iter().map(|(_, value)| value).sum();
    total.backward();
    let values = Tensor::zeros([3 + networks.memory.count()], tch::kind::DOUBLE_CPU);
    assert_eq!(keep(networks, values, &Tensor::from(true)).size(), [3]);
    let balance = networks.memory.tensors().into_iter().find(|named| named.name == "balance").unwrap();
    let state = Vec::<f64>::try_from(&balance.tensor).unwrap();
    (f64::try_from(total).unwrap(), [natural.grad(), adversarial.grad()], state)
}

#[test]
fn two_teachers_in_balance_have_the_golden_weights_and_gradients() {
    let golden = fixture();
    for (preset, cases) in [("mtard", ["mtard_step1", "mtard_step2"]), ("b-mtard", ["b_mtard_step1", "b_mtard_step2"])]
    {
        let config = config(preset);
        let networks = networks(&config);
        for name in cases {
            let case = golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
            let (loss, [natural, adversarial], state) = step(&config, &networks, case, &[0, 1, 2, 3]);
            let number = |key: &str| case[key].as_f64().unwrap();
            // The code adds 1e-5 in the logarithm of the target, which changes the value and no gradient.
            assert!((loss - number("loss")).abs() < 2e-5, "{name}: loss {loss}");
            for (gradient, key) in [(natural, "d_student_nat"), (adversarial, "d_student_adv")] {
                let apart = f64::try_from((gradient - tensor_of(&case[key])).abs().max()).unwrap();
                assert!(apart < 1e-9, "{name}: {key} is {apart:e} off");
            }
            let expected = [number("weight_nat"), number("temp_adv_after"), number("temp_nat_after")];
            for (found, expected) in [state[0], state[3], state[4]].into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9, "{name}: {state:?}");
            }
        }
    }
}

/// Unequal shards, one of them empty, give the sums and the state of one rank.
#[test]
fn ranks_weigh_by_the_whole_batch() {
    let golden = fixture();
    let case = golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == "b_mtard_step2").unwrap();
    let config = config("b-mtard");
    let alone = step(&config, &networks(&config), case, &[0, 1, 2, 3]);
    let shards = [&[0i64, 2, 3][..], &[1], &[]];
    let found = on_ranks(3, false, |ranks| {
        let rank = ranks.rank();
        let networks = Networks { ranks, ..networks(&config) };
        let entropies =
            Tensor::from_slice(&[3.0f64, -1.0, 0.5, 7.0]).index_select(0, &Tensor::from_slice(shards[rank]));
        let extremes = Vec::<f64>::try_from(networks.extremes_over_ranks(&entropies)).unwrap();
        let (loss, _, state) = step(&config, &networks, case, shards[rank]);
        (loss, state, extremes)
    });
    let losses: f64 = found.iter().map(|((loss, ..), _)| loss).sum();
    assert!((losses - alone.0).abs() < 1e-12, "{losses}, alone {}", alone.0);
    for ((_, state, extremes), _) in &found {
        assert!(state.iter().zip(&alone.2).all(|(a, b)| (a - b).abs() < 1e-12), "{state:?}, alone {:?}", alone.2);
        assert_eq!(extremes, &[-1.0, 7.0]);
    }
}

/// The product of the two losses over the global batch, as the authors' misplaced bracket has it, on one rank and on three.
#[test]
fn dgad_for_mobilenet_v2_has_the_golden_value_and_gradients() {
    let golden = fixture();
    let case = golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == "dgad_mobilenetV2_bs4").unwrap();
    let config = read("dgad", &["loss.terms.teach.weight=0.5", "loss.terms.teach.times=correct"]);
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let evaluate = |networks: &Networks, rows: &[i64]| {
        let rows = Tensor::from_slice(rows);
        let pick = |name: &str| tensor_of(&golden["logits"][name]).index_select(0, &rows);
        let student = |name: &str| pick(name).set_requires_grad(true);
        let (natural, adversarial) = (student("s_nat"), student("s_adv"));
        let nothing = Tensor::zeros([rows.size()[0], 1, 8, 8], tch::kind::DOUBLE_CPU);
        let views = Views::new(networks, Mode::Train, &nothing, &nothing);
        for (network, images, logits) in [
            (STUDENT, Images::Natural, natural.shallow_clone()),
            (STUDENT, Images::Adversarial, adversarial.shallow_clone()),
            ("robust", Images::Natural, pick("t_nat")),
            ("robust", Images::Adversarial, pick("t_adv")),
        ] {
            views.give(network, images, logits);
        }
        let labels = Tensor::from_slice(&labels).index_select(0, &rows);
        let terms: Vec<Term> = config.active_terms(0).collect();
        let mut summands: Vec<(&Term, Tensor)> =
            terms.iter().map(|term| (term, term.evaluate(&views, &labels, 4.0))).collect();
        multiply(&views, &labels, 4.0, &mut summands);
        let total: Tensor = summands.iter().map(|(_, value)| value).sum();
        total.backward();
        (f64::try_from(total).unwrap(), [natural.grad(), adversarial.grad()])
    };
    let expected = ["d_student_nat", "d_student_adv"].map(|key| tensor_of(&case[key]));
    let near = |found: &Tensor, expected: &Tensor, what: &str| {
        let apart = f64::try_from((found - expected).abs().max()).unwrap();
        assert!(apart < 1e-9, "{what} is {apart:e} off");
    };
    let (loss, found) = evaluate(&networks(&config), &[0, 1, 2, 3]);
    assert!((loss - case["loss"].as_f64().unwrap()).abs() < 1e-9, "{loss}");
    found.iter().zip(&expected).for_each(|(found, expected)| near(found, expected, "alone"));
    let shards = [&[3i64, 0, 2][..], &[1], &[]];
    let shared = on_ranks(3, false, |ranks| {
        let rank = ranks.rank();
        let (loss, gradients) = evaluate(&Networks { ranks, ..networks(&config) }, shards[rank]);
        (
            loss,
            gradients.map(|one| if one.defined() { Vec::<f64>::try_from(one.flatten(0, -1)).unwrap() } else { vec![] }),
        )
    });
    let all: f64 = shared.iter().map(|((loss, _), _)| loss).sum();
    assert!((all - loss).abs() < 1e-12, "{all}, alone {loss}");
    for (((_, gradients), _), rows) in shared.iter().zip(shards).filter(|(_, rows)| !rows.is_empty()) {
        for (found, expected) in gradients.iter().zip(&expected) {
            let expected = expected.index_select(0, &Tensor::from_slice(rows));
            near(&Tensor::from_slice(found).view_as(&expected), &expected, "a shard");
        }
    }
}

/// A teacher that is wrong on every image leaves no sample of the second term: both are 0, and no number is NaN.
#[test]
fn a_product_without_samples_is_nothing() {
    let config = read("dgad", &["loss.terms.teach.times=correct"]);
    let networks = networks(&config);
    let nothing = Tensor::zeros([2, 1, 8, 8], tch::kind::DOUBLE_CPU);
    let views = Views::new(&networks, Mode::Train, &nothing, &nothing);
    let logits = || Tensor::from_slice(&[2.0f64, 0.0, 0.0, 0.0, 3.0, 0.0, 1.0, 0.0]).view([2, 4]);
    for network in [STUDENT, "robust"] {
        for images in [Images::Natural, Images::Adversarial] {
            views.give(network, images, logits().set_requires_grad(network == STUDENT));
        }
    }
    let labels = Tensor::from_slice(&[1i64, 2]);
    let terms: Vec<Term> = config.active_terms(0).collect();
    let mut summands: Vec<(&Term, Tensor)> =
        terms.iter().map(|term| (term, term.evaluate(&views, &labels, 2.0))).collect();
    let correct = f64::try_from(&summands[0].1).unwrap();
    multiply(&views, &labels, 2.0, &mut summands);
    let values = summands.iter().map(|(_, value)| f64::try_from(value).unwrap()).collect::<Vec<_>>();
    assert!(correct > 0.0 && values[..2] == [0.0, 0.0], "{values:?}");
}

/// Fair-MTARD by its formulas: sums over samples of w KL / (classes N) in two steps, of which the first remembers its values.
#[test]
fn fair_mtard_weighs_classes_and_balances_their_sums() {
    let golden = fixture();
    let classes = [0.9f64, 2.5, 1.3, 5.0 / 6.0];
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let weights = Tensor::from_slice(&labels.iter().map(|label| classes[*label as usize]).collect::<Vec<_>>());
    let new = |ranks: Option<std::sync::Arc<dyn comm::Communicator>>| {
        let networks = networks(&config("fair-mtard"));
        let kept = networks.memory.tensors().into_iter().find(|named| named.name == "class_weights").unwrap();
        kept.tensor.shallow_clone().copy_(&Tensor::from_slice(&classes));
        match ranks {
            Some(ranks) => Networks { ranks, ..networks },
            None => networks,
        }
    };
    let steps = ["mtard_step1", "mtard_step2"];
    let case = |name: &str| golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    let alone = new(None);
    let (mut second, mut first_values) = (0.5, None);
    let mut found = vec![];
    for name in steps {
        let (loss, gradients, state) = step(&config("fair-mtard"), &alone, case(name), &[0, 1, 2, 3]);
        let shift: Vec<f64> = serde_json::from_value(case(name)["parameters"]["student_b2_shift"].clone()).unwrap();
        let student =
            |name: &str| (tensor_of(&golden["logits"][name]) + Tensor::from_slice(&shift)).set_requires_grad(true);
        let (natural, adversarial) = (student("s_nat"), student("s_adv"));
        let teacher = tensor_of(&golden["logits"]["t_adv"]).softmax(1, Kind::Double);
        let value = |logits: &Tensor| {
            let apart = &teacher * ((&teacher + 1e-5).log() - logits.log_softmax(1, Kind::Double));
            (apart.sum_dim_intlist(1i64, false, None) * &weights).sum(Kind::Double) / 16.0
        };
        let (robust, plain) = (value(&adversarial), value(&natural));
        let values = [&robust, &plain].map(|value| f64::try_from(value).unwrap());
        let [first_robust, first_plain] = *first_values.get_or_insert(values);
        let progress = [values[0] / first_robust, values[1] / first_plain];
        second -= 0.025 * (second - progress[1] / (progress[0] + progress[1]));
        assert!((state[0] - second).abs() < 1e-12, "{name}: {state:?}, {second}");
        let total = robust * (1.0 - second) + plain * second;
        total.backward();
        // The values differ by the 1e-5 in the logarithm alone.
        assert!((loss - f64::try_from(&total).unwrap()).abs() < 1e-4, "{name}: {loss}");
        for (found, expected) in gradients.iter().zip([natural.grad(), adversarial.grad()]) {
            assert!(f64::try_from((found - expected).abs().max()).unwrap() < 1e-12, "{name}");
        }
        found.push((loss, state));
    }
    assert!((found[1].1[0] - 0.5).abs() > 1e-6, "the weights never moved");
    let shards = [&[2i64, 1][..], &[3, 0], &[]];
    let shared = on_ranks(3, false, |ranks| {
        let rank = ranks.rank();
        let networks = new(Some(ranks));
        steps.map(|name| {
            let (loss, _, state) = step(&config("fair-mtard"), &networks, case(name), shards[rank]);
            (loss, state)
        })
    });
    for (place, (loss, state)) in found.iter().enumerate() {
        let sum: f64 = shared.iter().map(|(steps, _)| steps[place].0).sum();
        assert!((sum - loss).abs() < 1e-12, "{sum}, alone {loss}");
        for (steps, _) in &shared {
            assert!(steps[place].1.iter().zip(state).all(|(a, b)| (a - b).abs() < 1e-12), "{:?}", steps[place].1);
        }
    }
}

/// A step of CIARD on the samples `rows` of the golden numbers, `shift` added to the student's logits: the loss, its gradients in
/// the natural and the adversarial logits, and the values of `natural`, `adversarial` and `push` as the authors' code takes them.
fn ciard(networks: &Networks, labels: &[i64], rows: &[i64], shift: f64) -> (f64, [Tensor; 2], [f64; 3]) {
    let golden = fixture();
    // Means over four classes: `loss.balance` at rate 0 halves two terms, and 5^2 multiplies the third.
    let weights =
        ["loss.terms.natural.weight=0.5", "loss.terms.adversarial.weight=0.5", "loss.terms.push.weight=-0.01"];
    let config = read("ciard", &weights);
    let terms: Vec<Term> = config.active_terms(0).collect();
    let names: Vec<&str> = terms.iter().map(|term| term.name.as_str()).collect();
    assert_eq!(names, ["natural", "adversarial", "push"]);

    let rows = Tensor::from_slice(rows);
    let pick = |name: &str| tensor_of(&golden["logits"][name]).index_select(0, &rows);
    let student = |name: &str| (pick(name) * (1.0 + shift)).set_requires_grad(true);
    let (natural, adversarial) = (student("s_nat"), student("s_adv"));
    let nothing = Tensor::zeros([rows.size()[0], 1, 8, 8], tch::kind::DOUBLE_CPU);
    let views = Views::new(networks, Mode::Train, &nothing, &nothing);
    let tutor = pick("t_adv").set_requires_grad(true);
    for (network, images, logits) in [
        (STUDENT, Images::Natural, &natural),
        (STUDENT, Images::Adversarial, &adversarial),
        ("tutor", Images::Adversarial, &tutor),
        ("standard", Images::Natural, &pick("n_nat")),
        ("standard", Images::Adversarial, &pick("n_adv")),
    ] {
        views.give(network, images, logits.shallow_clone());
    }
    let labels = Tensor::from_slice(labels).index_select(0, &rows);
    networks.memory.begin_step(0, 0, 1);
    let mut summands: Vec<(&Term, Tensor)> =
        terms.iter().map(|term| (term, term.evaluate(&views, &labels, 4.0))).collect();
    let measured = |(term, value): &(&Term, Tensor)| {
        let [value, _] = term.for_balance(&views, value, &labels, 4.0);
        f64::try_from(views.sum_over_ranks(&value)).unwrap()
    };
    let measured: Vec<f64> = summands.iter().map(measured).collect();
    let before = Vec::<f64>::try_from(&networks.memory.tensors()[0].tensor).unwrap();
    balance(&views, &labels, 4.0, &mut summands);
    let total: Tensor = summands.iter().map(|(_, value)| value).sum();
    total.backward();
    assert!(!tutor.grad().defined(), "a gradient flows into the teacher that learns");
    let _ = keep(networks, Tensor::zeros([3], tch::kind::DOUBLE_CPU), &Tensor::from(true));
    let state = Vec::<f64>::try_from(&networks.memory.tensors()[0].tensor).unwrap();
    assert_eq!((before[0], state[0]), (0.5, 0.5));
    let values = [measured[0] / 2.0, measured[1] / 2.0, -measured[2]];
    (f64::try_from(total).unwrap(), [natural.grad(), adversarial.grad()], values)
}

fn ciard_networks() -> Networks {
    networks(&read("ciard", &[]))
}

#[test]
fn ciard_has_the_golden_value_and_gradients() {
    let golden = fixture();
    let case = golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == "ciard").unwrap();
    let number = |key: &str| case[key].as_f64().unwrap();
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let (loss, gradients, values) = ciard(&ciard_networks(), &labels, &[0, 1, 2, 3], 0.0);
    // The code adds 1e-5 in the logarithm of the target, which changes the logged loss and no gradient.
    assert!((loss - number("loss")).abs() < 2e-5, "loss {loss}");
    for (found, key) in values.into_iter().zip(["kl_nat", "kl_adv", "push"]) {
        assert!((found - number(key)).abs() < 1e-9 * number(key), "{key}: {found}");
    }
    let [natural, adversarial, push] = values;
    let whole = natural + adversarial - push * number("push_scale");
    assert!((whole - number("loss")).abs() < 1e-9 * number("loss"), "{whole}");
    for (gradient, key) in gradients.into_iter().zip(["d_student_nat", "d_student_adv"]) {
        let apart = f64::try_from((gradient - tensor_of(&case[key])).abs().max()).unwrap();
        assert!(apart < 1e-9, "{key} is {apart:e} off");
    }
}

/// Where the natural teacher is right everywhere, its term has no value and no gradient.
#[test]
fn without_a_mistake_nothing_is_pushed() {
    let golden = fixture();
    let right = tensor_of(&golden["logits"]["n_adv"]).argmax(1, false);
    let right = Vec::<i64>::try_from(right).unwrap();
    let (loss, [_, adversarial], [natural, teach, push]) = ciard(&ciard_networks(), &right, &[0, 1, 2, 3], 0.0);
    assert_eq!(push.abs(), 0.0);
    assert!((loss - natural - teach).abs() < 2e-5, "{loss}");
    let student = tensor_of(&golden["logits"]["s_adv"]).softmax(1, Kind::Double);
    let expected = (student - tensor_of(&golden["logits"]["t_adv"]).softmax(1, Kind::Double)) / 16.0;
    assert!(f64::try_from((adversarial - expected).abs().max()).unwrap() < 1e-12);
}

/// Unequal shards, one of them empty and one without a sample that counts, have the gradients and the scale of one rank. Larger
/// logits of the student make the scale another power of ten.
#[test]
fn ranks_push_by_the_whole_batch() {
    let golden = fixture();
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    for shift in [0.0, 30.0] {
        let (loss, [_, alone], values) = ciard(&ciard_networks(), &labels, &[0, 1, 2, 3], shift);
        let order = |value: f64| value.log10().floor();
        let scale = 10f64.powf(order(values[0]).min(order(values[1])) - order(values[2]));
        assert!(
            (loss - (values[0] + values[1] - scale * values[2])).abs() < 1e-4 * scale.max(1.0),
            "{shift}: {loss}, {scale}"
        );
        let shards = [&[0i64, 1, 2][..], &[3], &[]];
        let found = on_ranks(3, false, |ranks| {
            let rank = ranks.rank();
            let networks = Networks { ranks, ..ciard_networks() };
            let (loss, [_, gradient], values) = ciard(&networks, &labels, shards[rank], shift);
            (loss, gradient, values)
        });
        let losses: f64 = found.iter().map(|((loss, ..), _)| loss).sum();
        assert!((losses - loss).abs() < 1e-12 * loss.abs(), "{losses}, alone {loss}");
        let gradients: Vec<&Tensor> = found.iter().map(|((_, gradient, _), _)| gradient).collect();
        let apart = f64::try_from((Tensor::cat(&gradients, 0) - alone).abs().max()).unwrap();
        assert!(apart < 1e-12, "{apart:e}");
    }
}

#[test]
fn a_term_takes_the_order_of_magnitude_of_the_least() {
    for (value, others, expected) in [
        (0.176, [0.41, 0.22], 1.0),
        (-0.176, [4.1, 0.022], 0.1),
        (0.002, [31.0, 0.5], 100.0),
        (0.5, [0.0, 31.0], 1e-6),
        (0.0, [0.2, 0.3], 1e6),
    ] {
        let found = f64::try_from(power_of_ten(&Tensor::from(value), &Tensor::from_slice(&others))).unwrap();
        assert!((found / expected - 1.0).abs() < 1e-12, "{value} and {others:?}: {found}");
    }
}
