//! Two teachers in balance against the golden numbers of the authors' code, and what ranks add up.

use std::collections::BTreeMap;

use serde_json::Value;
use tch::Device;

use super::*;
use crate::config::{Precision, RunConfig};
use crate::fixtures::{on_ranks, tensor_of};
use crate::method::memory::Memory;
use crate::model::{Mode, Model, ModelSpec};

mod ciard;
mod product;

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

/// Views in which networks have these logits. No image has a pixel that counts.
fn views_of<'a>(networks: &'a Networks, nothing: &'a Tensor, logits: &[(&str, Images, &Tensor)]) -> Views<'a> {
    let views = Views::new(networks, Mode::Train, nothing, nothing);
    for (network, images, logits) in logits {
        views.give(network, *images, logits.shallow_clone());
    }
    views
}

/// So many images without pixels that count.
fn nothing(count: i64) -> Tensor {
    Tensor::zeros([count, 1, 8, 8], tch::kind::DOUBLE_CPU)
}

/// The values of `terms` for these samples of a batch of `count`.
fn summands<'a>(terms: &'a [Term], views: &Views, labels: &Tensor, count: f64) -> Vec<(&'a Term, Tensor)> {
    terms.iter().map(|term| (term, term.evaluate(views, labels, count))).collect()
}

/// The loss, its gradients in the student's natural and adversarial logits, and the state afterwards, of the samples `rows`.
fn step(config: &RunConfig, networks: &Networks, case: &Value, rows: &[i64]) -> (f64, [Tensor; 2], Vec<f64>) {
    let golden = fixture();
    let rows = Tensor::from_slice(rows);
    let pick = |name: &str| tensor_of(&golden["logits"][name]).index_select(0, &rows);
    let shift: Vec<f64> = serde_json::from_value(case["parameters"]["student_b2_shift"].clone()).unwrap();
    let student = |name: &str| (pick(name) + Tensor::from_slice(&shift)).set_requires_grad(true);
    let (natural, adversarial) = (student("s_nat"), student("s_adv"));
    let nothing = nothing(rows.size()[0]);
    let logits = [
        (STUDENT, Images::Natural, &natural),
        (STUDENT, Images::Adversarial, &adversarial),
        ("robust", Images::Adversarial, &pick("t_adv")),
        ("standard", Images::Natural, &pick("n_nat")),
    ];
    let views = views_of(networks, &nothing, &logits);
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let labels = Tensor::from_slice(&labels).index_select(0, &rows);
    networks.memory.begin_step(0, 0, 1);
    let terms: Vec<Term> = config.active_terms(0).collect();
    let mut summands = summands(&terms, &views, &labels, 4.0);
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

/// Fair-MTARD by its formulas, with the natural teacher and as coded.
#[test]
fn fair_mtard_weighs_classes_and_balances_their_sums() {
    fair_mtard(&[], "n_nat");
    fair_mtard(&[r#"loss.terms.natural.towards={ network = "robust", images = "adversarial" }"#], "t_adv");
}

/// Sums over samples of w KL / (classes N) in two steps, of which the first remembers its values; the natural term is drawn to
/// the `guide` of the fixture.
fn fair_mtard(form: &[&str], guide: &str) {
    let golden = fixture();
    let weights = ["loss.terms.adversarial.weight=0.25", "loss.terms.natural.weight=0.25"];
    let config = read("fair-mtard", &[&weights[..], form].concat());
    let classes = [0.9f64, 2.5, 1.3, 5.0 / 6.0];
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let weights = Tensor::from_slice(&labels.iter().map(|label| classes[*label as usize]).collect::<Vec<_>>());
    let new = |ranks: Option<std::sync::Arc<dyn comm::Communicator>>| {
        let networks = networks(&config);
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
        let (loss, gradients, state) = step(&config, &alone, case(name), &[0, 1, 2, 3]);
        let shift: Vec<f64> = serde_json::from_value(case(name)["parameters"]["student_b2_shift"].clone()).unwrap();
        let student =
            |name: &str| (tensor_of(&golden["logits"][name]) + Tensor::from_slice(&shift)).set_requires_grad(true);
        let (natural, adversarial) = (student("s_nat"), student("s_adv"));
        let value = |logits: &Tensor, guide: &str| {
            let teacher = tensor_of(&golden["logits"][guide]).softmax(1, Kind::Double);
            let apart = &teacher * ((&teacher + 1e-5).log() - logits.log_softmax(1, Kind::Double));
            (apart.sum_dim_intlist(1i64, false, None) * &weights).sum(Kind::Double) / 16.0
        };
        let (robust, plain) = (value(&adversarial, "t_adv"), value(&natural, guide));
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
            let (loss, _, state) = step(&config, &networks, case(name), shards[rank]);
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
