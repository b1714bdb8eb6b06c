//! Adversarial weight perturbation: the golden steps of its authors, its limits, its passes, and its ways out.

use tch::no_grad;

use super::ranks::{Student, distance, same, steps as on_ranks};
use super::*;
use crate::config::{Comm, STUDENT};
use crate::fixtures::tensor_of;
use crate::model::{ModelSpec, Named};
use crate::run::cost::{Forward, passes};
use crate::step::optimizer::{Optimizer, Rate};
use crate::step::weight_perturbation::WeightPerturbation;

const AWP: &str = "awp={ gamma = 0.02 }";

fn apart(one: &Tensor, other: &Tensor) -> f64 {
    f64::try_from((one - other).abs().max()).unwrap()
}

/// In double precision, which tch's `cross_entropy_for_logits` is not.
fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.log_softmax(1, Kind::Double).nll_loss(labels)
}

/// The golden network, in a model of no use but its lists of tensors: Linear, batch norm, ReLU, Linear.
struct Small {
    model: Model,
}

impl Small {
    const NAMES: [&str; 6] = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"];

    fn new(weights: &Value) -> Self {
        let form = ModelSpec::new("convnet".parse().unwrap(), [1, 8, 8], 3);
        let mut model = Model::build(form, 1, Kind::Double, Device::Cpu, None);
        let named = |name: &str| {
            let tensor = tensor_of(&weights[name]).set_requires_grad(true);
            Named { name: name.to_string(), tensor }
        };
        model.parameters = Self::NAMES.map(named).into();
        Self { model }
    }

    fn logits(&self, images: &Tensor) -> Tensor {
        let [w0, b0, w1, b1, w3, b3] = [0, 1, 2, 3, 4, 5].map(|place| &self.model.parameters[place].tensor);
        let nothing = None::<Tensor>;
        let hidden = images.linear(w0, Some(b0));
        let hidden = hidden.batch_norm(Some(w1), Some(b1), nothing.as_ref(), nothing.as_ref(), true, 0.1, 1e-5, false);
        hidden.relu().linear(w3, Some(b3))
    }
}

#[test]
fn steps_are_those_of_the_authors() {
    let golden: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/golden_recipe.json")).unwrap();
    let golden = &golden["awp"];
    let (x, x_adv) = (tensor_of(&golden["x"]), tensor_of(&golden["x_adv"]));
    let labels = Tensor::from_slice(&serde_json::from_value::<Vec<i64>>(golden["labels"].clone()).unwrap());
    for method in ["at", "trades"] {
        let case = &golden[method];
        let gamma = case["gamma"].as_f64().unwrap();
        let decay = golden["sgd"]["weight_decay"].as_f64().unwrap();
        let changes = [format!("awp={{ gamma = {gamma} }}"), format!("optimizer.weight_decay={decay}")];
        let config = config("at", &changes.each_ref().map(String::as_str));
        let mut small = Small::new(&golden["weights"]);
        let mut parameters = Gradients::flatten(&mut small.model, Arc::new(Single), &Comm::default()).unwrap();
        let mut optimizer = Optimizer::new(&config.optimizer, &parameters, &small.model);
        let mut perturbation = WeightPerturbation::new(&config);
        let descend = |parameters: &mut Gradients| {
            parameters.zero();
            let adversarial = small.logits(&x_adv);
            let loss = match case["beta"].as_f64() {
                None => cross_entropy(&adversarial, &labels),
                Some(beta) => {
                    let natural = small.logits(&x);
                    let (p, q) = (natural.log_softmax(1, Kind::Double), adversarial.log_softmax(1, Kind::Double));
                    cross_entropy(&natural, &labels) + (p.exp() * (&p - q)).sum(Kind::Double) * (beta / 6.0)
                }
            };
            loss.backward();
            f64::try_from(loss).unwrap()
        };
        let steps = case["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 2);
        for step in steps {
            let before = parameters.values.copy();
            descend(&mut parameters);
            perturbation.perturb(&parameters, &small.model);
            let by = crate::model::cut(&(&parameters.values - &before), &small.model.parameters);
            for Named { name, tensor } in &by {
                let expected = step["v"].get(name).map_or_else(|| tensor.zeros_like(), tensor_of) * gamma;
                // The authors' code computes the move from the difference of two weights, which rounds it.
                let apart = apart(tensor, &expected);
                assert!(apart < 1e-12, "{method}: the move of {name} is {apart:e} off");
            }
            close(descend(&mut parameters), &step["loss_perturbed"], method);
            for Named { name, tensor } in crate::model::cut(&parameters.gradients, &small.model.parameters) {
                let expected = tensor_of(&step["grad_perturbed"][&name]);
                assert!(apart(&tensor, &expected) < 1e-10, "{method}: the gradient of {name}");
            }
            let moves = Tensor::from(true);
            optimizer.step(&mut parameters, Rate::Number(golden["sgd"]["lr"].as_f64().unwrap()), &moves);
            perturbation.take_back(&parameters, &moves);
            for Named { name, tensor } in &small.model.parameters {
                let expected = tensor_of(&step["weights_after"][name]);
                assert!(apart(&tensor.detach(), &expected) < 1e-10, "{method}: {name} after the step");
            }
        }
    }
}

fn batch(number: u64) -> (Batch, Noise) {
    let samples: Vec<u64> = (0..6).collect();
    let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &samples, Device::Cpu);
    let images = pattern(6 * 3 * 16 * 16, 7 + number).view([6, 3, 16, 16]);
    let labels = Tensor::from_slice(&[1i64, 2, 3, 4, 0, 2]);
    (Batch { images, labels, samples, global_count: 6 }, noise)
}

/// Everything that a step can move.
fn state(step: &Step) -> Vec<Tensor> {
    let student = &step.work.networks.student;
    let optimizer = step.work.optimizer.buffers().into_iter().map(|(_, buffer)| buffer);
    let all = [&step.work.parameters.values, &student.flat_statistics, &student.batches_tracked].into_iter();
    all.chain(optimizer).map(|tensor| tensor.detach().copy()).collect()
}

fn take(step: &mut Step, config: &RunConfig, number: u64) -> Seen {
    let (batch, noise) = batch(number);
    let terms: Vec<Term> = config.active_terms(0).collect();
    step.run(&batch, &noise, &terms, 0.05).unwrap().read().unwrap()
}

fn equal(one: &[Tensor], other: &[Tensor]) -> bool {
    one.iter().zip(other).all(|(one, other)| one.equal(other))
}

#[test]
fn a_perturbation_of_length_0_is_none_and_a_real_one_changes_the_step() {
    for (preset, changes) in [
        ("trades", &["batch_norm.compat=reference"][..]),
        ("iad-2", &["batch.accumulate=2", "metrics.diagnostics=full", "attack.batch_norm=train_frozen"]),
        ("at", &["optimizer.kind=adamw", "optimizer.clip_grad_norm=0.5"]),
        ("st", &["attack.kind=none", "precision.dtype=float32"]),
    ] {
        let run = |awp: &[&str]| {
            let config = config(preset, &[changes, awp].concat());
            let mut step = step(&config);
            let kind = config.precision.dtype.kind();
            let (batch, noise) = batch(0);
            let batch = Batch { images: batch.images.to_kind(kind), ..batch };
            let terms: Vec<Term> = config.active_terms(0).collect();
            (0..2).for_each(|_| drop(step.run(&batch, &noise, &terms, 0.05).unwrap()));
            state(&step)
        };
        let none = run(&[]);
        assert!(equal(&none, &run(&["awp={ gamma = 0.0 }"])), "{preset}");
        assert!(!equal(&none[..1], &run(&[AWP])[..1]), "{preset}");
        assert!(equal(&none[2..3], &run(&[AWP])[2..3]), "{preset}: running statistics of as many passes");
    }
}

#[test]
fn before_its_epoch_it_is_none() {
    let later = config("at", &["epochs=3", "awp={ gamma = 0.02, from_epoch = 1 }"]);
    let (mut early, mut begun, mut none) = (step(&later), step(&later), step(&config("at", &["epochs=3"])));
    begun.work.begin_epoch(&later, 1);
    [&mut early, &mut begun, &mut none].into_iter().for_each(|step| drop(take(step, &later, 0)));
    assert!(equal(&state(&early), &state(&none)) && !equal(&state(&begun)[..1], &state(&none)[..1]));
}

/// On natural images a perturbed step is an ordinary one at weights that are moved by hand.
#[test]
fn a_step_is_an_ordinary_one_at_moved_weights() {
    let plain = config("st", &["attack.kind=none"]);
    let perturbed = config("st", &["attack.kind=none", AWP]);
    let (mut found, mut by_hand, mut ascent) = (step(&perturbed), step(&plain), step(&plain));
    for number in 0..3 {
        // The gradient at the weights of now.
        for (to, from) in [
            (&ascent.work.parameters.values, &by_hand.work.parameters.values),
            (&ascent.work.networks.student.flat_statistics, &by_hand.work.networks.student.flat_statistics),
        ] {
            no_grad(|| to.shallow_clone().copy_(from));
        }
        take(&mut ascent, &plain, number);
        let student = &by_hand.work.networks.student;
        let gradients = crate::model::cut(&ascent.work.parameters.gradients, &student.parameters);
        let moves: Vec<Tensor> = std::iter::zip(&student.parameters, gradients)
            .map(|(weight, gradient)| {
                let (weight, gradient) = (weight.tensor.detach(), gradient.tensor);
                let share = f64::try_from(weight.norm() / gradient.norm()).unwrap();
                gradient * if weight.dim() > 1 { 0.02 * share } else { 0.0 }
            })
            .collect();
        let add = |step: &Step, factor: f64| {
            for (weight, by) in step.work.networks.student.parameters.iter().zip(&moves) {
                no_grad(|| drop(weight.tensor.shallow_clone().g_add_(&(by * factor))));
            }
        };
        add(&by_hand, 1.0);
        take(&mut by_hand, &plain, number);
        add(&by_hand, -1.0);
        take(&mut found, &perturbed, number);
        let (found, expected) = (state(&found), state(&by_hand));
        let worst = found.iter().zip(&expected).map(|(one, other)| apart(one, other)).fold(0.0, f64::max);
        assert!(worst < 1e-12, "step {number}: {worst:e}");
    }
}

/// One attack on each part; the teachers predict once for both passes.
#[test]
fn it_costs_the_passes_of_the_loss_once_more() {
    let one = Forward::of(network(1, Kind::Float).form);
    for preset in ["at", "mart", "trades", "iad-2", "adaad"] {
        for changes in [&[AWP][..], &[AWP, "batch.accumulate=2", "batch_norm.compat=reference"]] {
            let config = config(preset, changes);
            let mut step = Step::new(&config, networks(Kind::Double), Arc::new(Single)).unwrap();
            let count = |step: &Step| {
                let Networks { student, teachers, .. } = &step.work.networks;
                let teachers = teachers.iter().map(|(name, teacher)| (name.as_str(), teacher));
                let all = std::iter::once((STUDENT, student)).chain(teachers);
                all.map(|(name, model)| (name.to_string(), model.multiply_adds())).collect::<BTreeMap<_, _>>()
            };
            let before = count(&step);
            take(&mut step, &config, 0);
            for (name, after) in count(&step) {
                let expected = passes(&config, 0).get(&name).map_or(0, |passes| passes.forward);
                assert_eq!(after - before[&name], 6 * expected * one.all, "{name} of {preset}");
            }
        }
    }
}

#[test]
fn any_number_of_ranks_takes_the_same_steps() {
    for (preset, accumulate, student) in [
        ("iad-1", 1, Student::Sync),
        ("trades", 3, Student::Sync),
        ("at", 2, Student::WithoutBatchNorm),
        ("at", 1, Student::Local),
    ] {
        let changes = [AWP, &format!("batch.accumulate={accumulate}"), "attack.start=uniform"];
        let config = config(preset, &changes);
        let run = |world_size: usize, overlaps: bool| {
            let of_ranks = on_ranks(&config, student, world_size, overlaps, &[6, 4, 1]);
            assert!(of_ranks.iter().all(|(states, _)| same(states, &of_ranks[0].0)), "ranks of {world_size} differ");
            of_ranks.into_iter().next().unwrap().0
        };
        let alone = run(1, false);
        for world_size in 2..=3 {
            let (after, during) = (run(world_size, false), run(world_size, true));
            assert!(same(&after, &during), "{preset}: sums in the backward pass change the step");
            if student == Student::Local {
                continue;
            }
            for (one, other) in alone.iter().flatten().zip(after.iter().flatten()).filter(|(one, _)| one.numel() > 0) {
                let distance = distance(one, other);
                assert!(distance < 1e-9, "{preset} on {world_size} ranks: {distance:e}");
            }
        }
    }
}

#[test]
fn a_step_that_is_not_finite_moves_nothing() {
    let config = config("iad-1", &[AWP, "batch.accumulate=2"]);
    let mut step = step(&config);
    take(&mut step, &config, 0);
    let before = state(&step);
    let terms: Vec<Term> = config.active_terms(0).collect();
    let (batch, noise) = batch(1);
    let broken = Batch { images: batch.images.full_like(f64::NAN), ..batch };
    let seen = step.run(&broken, &noise, &terms, 0.05).unwrap().read().unwrap();
    assert!(seen.not_finite.is_some() && equal(&state(&step), &before));
}

#[test]
fn parts_of_perturbed_steps_are_not_captured() {
    let config = config("at", &[AWP]);
    let of_ranks = fixtures::on_ranks(2, false, |ranks| {
        let mut step = Step::new(&config, networks(Kind::Double), Arc::clone(&ranks)).unwrap();
        step.recorder.capture(&step.work.networks, &ranks, false).unwrap();
        let captured = step.recorder.captures_parts();
        step.recorder.leave_parts_alone();
        (captured, step.recorder.captures_parts(), step.take_warning())
    });
    for ((captured, captures, warning), _) in of_ranks {
        assert!(captured && !captures);
        assert!(warning.is_some_and(|warning| warning.contains("precision.cuda_graphs") && warning.contains("[awp]")));
    }
}
