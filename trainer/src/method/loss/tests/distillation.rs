//! Later distillation methods against the golden numbers of their authors' code, in float64.

use super::later::{assert_golden_of, config, terms};
use super::*;
use crate::method::memory::Memory;
use crate::method::views::first_order;

/// The presets that the tests of this file and those of [`step::remembering`](crate::step) cover.
pub(super) fn presets() -> impl Iterator<Item = String> {
    let methods = ["ltd", "hat", "dgad", "dkl", "gkl", "saad", "saad-c", "adr", "adr-trades"];
    let others = ["fair-ard", "fair-iad", "fair-rslad", "mtard", "b-mtard", "lbgat", "peeraid"];
    methods.into_iter().chain(others).map(str::to_string)
}

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../../../../tests/fixtures/golden_distillation.json")).unwrap()
}

/// The networks of a run of `preset`, as its method remembers them at the start.
fn networks_of(preset: &str) -> Networks {
    let memory = Memory::new(&config(preset, &[]).loss, 4, Device::Cpu);
    Networks { memory, ..networks() }
}

/// Compares the terms with the golden case `name`; the moving average is the teacher of the golden numbers.
fn assert_case(networks: &Networks, name: &str, terms: &[Term]) {
    let golden = fixture();
    let case = golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    let (all, gradient) = (&golden["logits"], |view: &str| case.get(format!("d_student_{view}")));
    let logits = [
        (STUDENT, Images::Natural, &all["s_nat"], gradient("nat")),
        (STUDENT, Images::Adversarial, &all["s_adv"], gradient("adv")),
        (STUDENT, Images::Mirrored, &all["s_minus"], gradient("minus")),
        (STUDENT, Images::Helper, &all["s_helper"], gradient("helper")),
        ("robust", Images::Natural, &all["t_nat"], None),
        ("robust", Images::Adversarial, &all["t_adv"], None),
        ("robust", Images::Mirrored, &all["t_minus"], None),
        ("standard", Images::Natural, &all["n_nat"], None),
        ("standard", Images::Adversarial, &all["n_adv"], None),
        ("ema", Images::Natural, &all["t_nat"], None),
    ];
    assert_golden_of(networks, name, terms, &logits, &golden["y"], (case["loss"].as_f64().unwrap(), 1e-9));
}

#[test]
fn hat_has_the_golden_value_and_gradients() {
    assert_case(&networks(), "hat_kl", &terms("hat", &[], 0));
}

/// Values and gradients of both networks that learn. The golden numbers have the second one as `teacher`.
#[test]
fn methods_with_a_learner_have_the_golden_values_and_gradients() {
    let golden = fixture();
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let labels = Tensor::from_slice(&labels);
    let weights = |numbers: &[(&str, f64)]| -> Vec<String> {
        numbers.iter().map(|(term, weight)| format!("loss.terms.{term}.weight={weight:?}")).collect()
    };
    let mean = |peer: f64, teach: f64, smooth: f64| {
        weights(&[("peer-teach", peer / 4.0), ("teach", teach / 4.0), ("smooth", smooth / 4.0)])
    };
    let at_one = ["teach", "smooth"].map(|term| format!("loss.terms.{term}.temperature=1"));
    let tiny = [mean(100.0, 35.0, 20.0), weights(&[("label", 0.035)]), at_one.to_vec()].concat();
    for (name, preset, learner, set) in [
        ("lbgat_beta0", "lbgat", "guide", weights(&[("smooth", 0.0)])),
        ("lbgat_beta6", "lbgat", "guide", vec![]),
        ("peeraid_T5", "peeraid", "peer", [mean(0.1, 1.0, 1.0), vec!["batch_norm.compat=lean".into()]].concat()),
        ("peeraid_T1", "peeraid", "peer", tiny),
    ] {
        let case = golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
        let (networks, nothing) = (networks(), Tensor::zeros([4, 1, 8, 8], tch::kind::DOUBLE_CPU));
        let views = Views::new(&networks, Mode::Train, &nothing, &nothing);
        let logits = [
            (STUDENT, Images::Natural, "s_nat", "d_student_nat"),
            (STUDENT, Images::Adversarial, "s_adv", "d_student_adv"),
            (learner, Images::Natural, "t_nat", "d_teacher_nat"),
            (learner, Images::Adversarial, "t_adv", "d_teacher_adv"),
        ];
        let logits = logits.map(|(network, images, values, gradient)| {
            let values = tensor_of(&golden["logits"][values]).set_requires_grad(true);
            views.give(network, images, values.shallow_clone());
            (values, gradient)
        });
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let total: Tensor =
            terms(preset, &set, 0).iter().map(|term| term.evaluate(&views, &labels, labels.numel() as f64)).sum();
        total.backward();
        let (found, expected) = (f64::try_from(total).unwrap(), case["loss"].as_f64().unwrap());
        assert!((found - expected).abs() <= 1e-9 * expected, "{name}: {found} instead of {expected}");
        for (values, key) in logits {
            let gradient = if values.grad().defined() { values.grad() } else { values.zeros_like() };
            let golden = case.get(key).map_or_else(|| values.zeros_like(), tensor_of);
            let apart = f64::try_from((gradient - golden).abs().max()).unwrap();
            assert!(apart < 1e-9, "{name}: {key} is {apart:e} off");
        }
    }
}

/// The larger nominal batch of the second case, 8 for 4 images, weighs the groups of 2 images by 2/8 and 6/8.
#[test]
fn dgad_has_the_golden_values_and_gradients() {
    assert_case(&networks(), "dgad_resnet18_bs4", &terms("dgad", &[], 0));
    let nominal = ["loss.terms.correct.weight=0.5", "loss.terms.teach.weight=1.5"];
    assert_case(&networks(), "dgad_resnet18_bs8", &terms("dgad", &nominal, 0));
}

#[test]
fn saad_has_the_golden_values_and_gradients() {
    assert_case(&networks(), "saad_gamma1_beta0", &terms("saad", &[], 49));
    assert_case(&networks(), "saad_gamma1_beta0.2", &terms("saad-c", &[], 149));
    let order = ["teach", "match", "natural"].map(|term| format!("loss.terms.{term}.uncertainty.order=2"));
    let weights = ["loss.terms.match.weight=10", "loss.terms.natural.weight=0.5"].map(str::to_string);
    let set: Vec<&str> = order.iter().chain(&weights).map(String::as_str).collect();
    assert_case(&networks(), "saad_gamma2_beta0.5", &terms("saad-c", &set, 99));
}

#[test]
fn adr_has_the_golden_values_and_gradients() {
    let networks = networks_of("adr");
    for (step, preset, case) in
        [(0, "adr", "adr_pgd_step0"), (37, "adr", "adr_pgd_step37"), (37, "adr-trades", "adr_trades_step37")]
    {
        networks.memory.begin_step(0, step, 100);
        assert_case(&networks, case, &terms(preset, &[], 0));
    }
}

#[test]
fn fair_distillation_has_the_golden_values_and_gradients() {
    let networks = networks_of("fair-ard");
    let weights = Tensor::from_slice(&[0.833_333_333_333_333_4, 2.5, 1.3, 0.9]);
    let kept = networks.memory.tensors().into_iter().find(|named| named.name == "class_weights").unwrap();
    kept.tensor.shallow_clone().copy_(&weights);
    // The golden cases mix in a tenth of the label, and the mean over their four classes.
    let set = ["loss.terms.teach.weight=0.225", "loss.terms.label.weight=0.1"];
    assert_case(&networks, "fair_ard", &terms("fair-ard", &set, 0));
    let set = ["teach", "introspect"].map(|term| format!("loss.terms.{term}.weight=0.9"));
    let set = [set[0].as_str(), set[1].as_str(), "loss.terms.label.weight=0.1"];
    assert_case(&networks, "fair_iad_epoch10", &terms("fair-iad", &set, 10));
    assert_case(&networks, "fair_iad_epoch70", &terms("fair-iad", &set, 70));
}

/// Its parts have golden numbers: RSLAD, and the class weights.
#[test]
fn fair_rslad_is_rslad_with_class_weights() {
    assert_eq!(terms("fair-rslad", &[], 0), terms("rslad", &[], 0));
    assert_eq!(config("fair-rslad", &[]).loss.class_weights, config("fair-ard", &[]).loss.class_weights);
}

#[test]
fn adaad_by_the_mean_over_classes_has_the_golden_value_and_gradients() {
    let set = ["loss.terms.teach.weight=0.25", "batch_norm.compat=lean"];
    assert_case(&networks(), "adaad_cifar10_branch", &terms("adaad", &set, 0));
}

/// The cross-entropy with a softened prediction has the gradient of the divergence from it; temperatures of the two sides
/// differ, and the factor is that of the student's.
#[test]
fn low_temperature_distillation_has_the_gradient_of_a_soft_cross_entropy() {
    let golden = fixture();
    let logits = |name: &str| tensor_of(&golden["logits"][name]);
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let (networks, nothing) = (networks(), Tensor::zeros([4, 1, 8, 8], tch::kind::DOUBLE_CPU));
    let views = Views::new(&networks, Mode::Train, &nothing, &nothing);
    let natural = logits("s_nat").set_requires_grad(true);
    views.give(STUDENT, Images::Natural, natural.shallow_clone());
    views.give("standard", Images::Natural, logits("n_nat"));
    let teach = terms("ltd", &[], 0).swap_remove(0);
    teach.evaluate(&views, &Tensor::from_slice(&labels), 4.0).backward();
    let expected = (logits("s_nat").softmax(1, Kind::Double) - (logits("n_nat") / 5.0).softmax(1, Kind::Double)) / 4.0;
    let apart = f64::try_from((natural.grad() - expected).abs().max()).unwrap();
    assert!(apart < 1e-12, "{apart:e}");
}

/// The sum over pairs of classes, as the papers print it, in place of the one over classes that the program takes.
fn pairs(natural: &Tensor, adversarial: &Tensor, weights: &Tensor) -> Tensor {
    let gaps = natural - adversarial;
    let between = gaps.unsqueeze(2) - gaps.unsqueeze(1);
    (weights.unsqueeze(2) * weights.unsqueeze(1) * between.square()).sum_dim_intlist(&[1i64, 2][..], false, None) * 0.25
}

#[test]
fn dkl_and_gkl_are_the_sums_over_pairs_of_classes() {
    let golden = fixture();
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let labels = Tensor::from_slice(&labels);
    let means =
        Tensor::from_slice(&[0.7f64, 0.1, 0.15, 0.05, 0.2, 0.5, 0.1, 0.2, 0.05, 0.05, 0.6, 0.3, 0.25, 0.25, 0.2, 0.3]);
    for (preset, exponent, normalized) in [("dkl", 1.0, false), ("gkl", 0.2, true)] {
        let networks = networks_of(preset);
        let kept = networks.memory.tensors().into_iter().find(|named| named.name == "class_means").unwrap();
        kept.tensor.shallow_clone().copy_(&means.view([4, 4]));
        let weights = means.view([4, 4]).index_select(0, &labels).pow_tensor_scalar(exponent);
        let student = |name: &str| tensor_of(&golden["logits"][name]).set_requires_grad(true);
        let nothing = Tensor::zeros([4, 1, 8, 8], tch::kind::DOUBLE_CPU);

        let (natural, adversarial) = (student("s_nat"), student("s_adv"));
        let views = Views::new(&networks, Mode::Train, &nothing, &nothing);
        views.give(STUDENT, Images::Natural, natural.shallow_clone());
        views.give(STUDENT, Images::Adversarial, adversarial.shallow_clone());
        let found: Tensor = terms(preset, &[], 0).iter().map(|term| term.evaluate(&views, &labels, 4.0)).sum();
        found.backward();

        let (own_natural, own_adversarial) = (student("s_nat"), student("s_adv"));
        let divisor = weights.sum_dim_intlist(1i64, false, None).square().sum(Kind::Double);
        let divisor = if normalized { divisor } else { divisor.full_like(4.0) };
        let spread = pairs(&own_natural, &own_adversarial, &weights).sum(Kind::Double) / divisor * 20.0;
        let soft = own_natural.detach();
        let smooth = (soft.softmax(1, Kind::Double)
            * (soft.log_softmax(1, Kind::Double) - own_adversarial.log_softmax(1, Kind::Double)))
        .sum(Kind::Double);
        let label = -log_probability_of(&own_natural, &labels).sum(Kind::Double) / 4.0;
        let expected = label + spread + smooth;
        expected.backward();

        let apart = |found: &Tensor, expected: &Tensor| f64::try_from((found - expected).abs().max()).unwrap();
        assert!(
            apart(&found, &expected) < 1e-9 * f64::try_from(&expected).unwrap(),
            "{preset}: {found:?} {expected:?}"
        );
        assert!(apart(&natural.grad(), &own_natural.grad()) < 1e-9, "{preset}");
        assert!(apart(&adversarial.grad(), &own_adversarial.grad()) < 1e-9, "{preset}");
    }
}

/// Source: DKLv1 and DKLv2. The code's cross-entropy with a fixed prediction is the divergence and that prediction's entropy.
#[test]
fn dkl_and_gkl_have_the_golden_values_and_gradients() {
    let golden: Value = serde_json::from_str(include_str!("../../../../../tests/fixtures/golden_recipe.json")).unwrap();
    let inputs = &golden["dkl_v1"];
    let labels = tensor_of(&inputs["labels"]).to_kind(Kind::Int64);
    for (preset, name) in [("dkl", "dkl_v1"), ("gkl", "gkl_v2")] {
        let memory = Memory::new(&config(preset, &[]).loss, 5, Device::Cpu);
        let kept = memory.tensors().into_iter().find(|named| named.name == "class_means").unwrap();
        kept.tensor.shallow_clone().copy_(&tensor_of(&inputs["class_mean"]));
        let networks = Networks { memory, ..networks() };
        let nothing = Tensor::zeros([4, 1, 8, 8], tch::kind::DOUBLE_CPU);
        let views = Views::new(&networks, Mode::Train, &nothing, &nothing);
        let [natural, adversarial] =
            ["logits_nat", "logits_adv"].map(|name| tensor_of(&inputs[name]).set_requires_grad(true));
        views.give(STUDENT, Images::Natural, natural.shallow_clone());
        views.give(STUDENT, Images::Adversarial, adversarial.shallow_clone());
        // The golden loss is without the cross-entropy on natural images.
        let terms = terms(preset, &[], 0);
        let divergences = terms.iter().filter(|term| term.name != "label");
        let found: Tensor = divergences.map(|term| term.evaluate(&views, &labels, 4.0)).sum();
        found.backward();
        let fixed = natural.detach();
        let entropy = -(fixed.softmax(1, Kind::Double) * fixed.log_softmax(1, Kind::Double)).sum(Kind::Double) / 4.0;
        let case = &golden[name];
        let (loss, expected) =
            (f64::try_from(found + entropy * case["alpha"].as_f64().unwrap()).unwrap(), case["loss"].as_f64().unwrap());
        assert!((loss - expected).abs() < 1e-9 * expected, "{name}: {loss} instead of {expected}");
        for (logits, key) in [(&natural, "grad_nat"), (&adversarial, "grad_adv")] {
            let apart = f64::try_from((logits.grad() - tensor_of(&case[key])).abs().max()).unwrap();
            assert!(apart < 1e-9, "{name}: {key} is {apart:e} off");
        }
    }
}

/// Helper images lie twice as far as the adversarial ones, beyond the range of pixels too.
#[test]
fn helper_images_are_not_clamped() {
    let networks = networks();
    let natural = Tensor::full([1, 1, 8, 8], 0.98, tch::kind::DOUBLE_CPU);
    let adversarial = &natural + 0.02;
    let views = Views::new(&networks, Mode::Eval, &natural, &adversarial);
    let expected = Views::new(&networks, Mode::Eval, &natural, &(&natural + 0.04)).logits(STUDENT, Images::Adversarial);
    let apart = (views.logits(STUDENT, Images::Helper) - expected).abs().max();
    assert!(f64::try_from(apart).unwrap() < 1e-12);
}

/// The objectives of the attacks on the small networks of the golden numbers: gradients of the images, and that of the
/// teacher's logit.
#[test]
fn objectives_of_attacks_have_the_golden_gradients() {
    let golden = fixture();
    let rows = |name: &str| tensor_of(&golden[name]);
    let network = |name: &str, images: &Tensor| {
        let layer = |weight: &str, bias: &str, input: &Tensor| {
            let bias: Vec<f64> = serde_json::from_value(golden["networks"][name][bias].clone()).unwrap();
            input.matmul(&tensor_of(&golden["networks"][name][weight]).transpose(0, 1)) + Tensor::from_slice(&bias)
        };
        layer("W2", "b2", &layer("W1", "b1", images).tanh())
    };
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let labels = Tensor::from_slice(&labels);
    let gradient = |of: Tensor, images: &Tensor| Tensor::run_backward(&[of], &[images], false, false).remove(0);
    let natural = rows("x").set_requires_grad(true);
    let of_label = network("teacher", &natural).gather(1, &labels.unsqueeze(1), false).sum(Kind::Double);
    let slope = gradient(of_label, &natural);
    let natural = natural.detach();
    let close = |found: &Tensor, expected: &Value, what: &str| {
        let apart = f64::try_from((found - tensor_of(expected)).abs().max()).unwrap();
        assert!(apart < 1e-9, "{what}: {apart:e}");
    };
    for case in golden["cases"].as_array().unwrap() {
        let images = rows("x_adv").set_requires_grad(true);
        let name = case["name"].as_str().unwrap();
        let guide = match name {
            "attack_saad" => {
                close(&slope, &case["teacher_label_logit_gradient"], name);
                first_order(&network("teacher", &natural), &slope, &(&images - &natural), &labels)
            }
            "attack_adaad" => network("teacher", &images),
            "attack_rslad" => network("teacher", &natural),
            _ => continue,
        };
        let objective = divergence(&guide, &network("student", &images)).sum(Kind::Double);
        close(&gradient(objective, &images), &case["gradient_wrt_image"], name);
    }
}

/// The slope of a real network: the first-order logits are those of the teacher where the label's is linear in the step.
#[test]
fn the_label_follows_the_teacher_to_first_order() {
    let form = ModelSpec::new("convnet".parse().unwrap(), [1, 8, 8], 4);
    let teacher = Model::build(form, 2, Kind::Double, Device::Cpu, None);
    let networks =
        Networks::new(networks().student, BTreeMap::from([("robust".into(), teacher)]), Precision::default());
    let natural = crate::fixtures::pattern(128, 3).view([2, 1, 8, 8]);
    let labels = Tensor::from_slice(&[1i64, 3]);
    let step = (crate::fixtures::pattern(128, 4).view([2, 1, 8, 8]) - 0.5) * 1e-5;
    let candidate = &natural + &step;
    let origin = Views::new(&networks, Mode::Eval, &natural, &natural);
    let found = origin.with_candidate(&candidate, Mode::Eval).first_order("robust", &labels);
    let (at, there) = (
        origin.logits("robust", Images::Natural),
        Views::new(&networks, Mode::Eval, &natural, &candidate).logits("robust", Images::Adversarial),
    );
    let label = |logits: &Tensor| logits.gather(1, &labels.unsqueeze(1), false);
    let moved = f64::try_from((label(&there) - label(&at)).abs().max()).unwrap();
    let apart = f64::try_from((label(&found) - label(&there)).abs().max()).unwrap();
    assert!(moved > 0.0 && apart < 1e-3 * moved, "{apart:e} of {moved:e}");
    let others = (&found - &at).scatter_value(1, &labels.unsqueeze(1), 0.0).abs().max();
    assert_eq!(f64::try_from(others).unwrap(), 0.0);
}
