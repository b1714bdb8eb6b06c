//! Steps of several updates, and attacks whose first step another network leads, by hand.

use tch::no_grad;

use super::*;
use crate::config::EMA;

const FREE: [&str; 5] = [
    "attack.kind=free",
    "attack.start=uniform",
    "attack.steps=1",
    "attack.clamp_start=true",
    "attack.batch_norm=train_update",
];

fn batch() -> (Batch, Noise) {
    let images = pattern(6 * 3 * 16 * 16, 7).view([6, 3, 16, 16]);
    let labels = Tensor::from_slice(&[0i64, 3, 1, 4, 2, 0]);
    let batch = Batch { images, labels, samples: (0..6).collect(), global_count: 6 };
    let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &batch.samples, Device::Cpu);
    (batch, noise)
}

fn apart(found: &Tensor, expected: &Tensor) -> f64 {
    f64::try_from((found - expected).abs().max()).unwrap()
}

/// Each update trains on the images that the one before it moved, by the gradient of its own loss at the weights before it.
#[test]
fn replays_train_on_images_that_the_update_before_moved() {
    let config = config("at", &[&FREE[..], &["attack.replays=3", "attack.step=5/255"]].concat());
    let plain = super::config("st", &["attack.kind=none"]);
    let (mut free, mut by_hand) = (step(&config), step(&plain));
    let (batch, noise) = batch();
    for _ in 0..2 {
        let seen = free.run(&batch, &noise, &config.active_terms(0).collect::<Vec<_>>(), 0.05).unwrap().read().unwrap();
        let ball = crate::method::attack::Ball { norm: crate::config::Norm::Linf, eps: 8.0 / 255.0 };
        let mut images = ball.inner_point(&batch.images, &noise).clamp(0.0, 1.0);
        let mut last = 0.0;
        for _ in 0..3 {
            let variable = images.detach().set_requires_grad(true);
            let networks = &by_hand.work.networks;
            let logits = networks.precision.logits(&networks.student, &variable, Mode::TrainFrozen);
            let objective = logits.cross_entropy_for_logits(&batch.labels);
            let gradient = Tensor::run_backward(&[&objective], &[&variable], false, false).remove(0);
            let replayed =
                Batch { images: images.shallow_clone(), labels: batch.labels.shallow_clone(), ..batch.copy() };
            let terms: Vec<Term> = plain.active_terms(0).collect();
            last = loss(&by_hand.run(&replayed, &noise, &terms, 0.05).unwrap().read().unwrap());
            images =
                no_grad(|| ball.around(&batch.images).project(&(variable.detach() + gradient.sign() * 5.0 / 255.0)));
        }
        // The numbers of a step are those of its last update.
        assert!((loss(&seen) - last).abs() < 1e-12);
        assert!(apart(&free.work.parameters.values, &by_hand.work.parameters.values) < 1e-12);
        let statistics = [&free, &by_hand].map(|step| &step.work.networks.student.flat_statistics);
        assert!(apart(statistics[0], statistics[1]) < 1e-12);
    }
}

/// What is wrong in an earlier update of a step is told, though the last one is sound; nothing moves from there on.
#[test]
fn what_is_wrong_in_an_earlier_update_is_told() {
    let numbers = |finite: f64, place: f64, norm: f64| {
        let [finite, place, norm] = [finite, place, norm].map(Tensor::from);
        Computed::new(vec![], &Tensor::from_slice(&[7.0]), [&finite, &place, &norm])
    };
    let seen = |computed: &Computed| Observed::send(computed).unwrap().read().unwrap();
    let found = seen(&numbers(1.0, 3.0, 2.0).behind(&numbers(0.0, 11.0, 9.0)));
    assert_eq!((found.not_finite, found.norm), (Some(11), 9.0));
    let found = seen(&numbers(0.0, 3.0, 2.0).behind(&numbers(1.0, 11.0, 1.0)));
    assert_eq!((found.not_finite, found.norm), (Some(3), 2.0));
    assert_eq!(seen(&numbers(1.0, 3.0, 2.0).behind(&numbers(1.0, 11.0, 1.0))).not_finite, None);
}

#[test]
fn a_free_step_makes_the_passes_of_the_cost_model() {
    let config = config("at", &[&FREE[..], &["attack.replays=4", "metrics.diagnostics=free"]].concat());
    let mut step = step(&config);
    let (batch, noise) = batch();
    let student = &step.work.networks.student;
    let (before, one) = (student.multiply_adds(), crate::run::cost::Forward::of(student.form));
    drop(step.run(&batch, &noise, &config.active_terms(0).collect::<Vec<_>>(), 0.05).unwrap());
    let passes = crate::run::cost::passes(&config, 0)[STUDENT];
    assert_eq!((passes.forward, passes.to_image, passes.to_parameters), (4, 4, 4));
    assert_eq!(step.work.networks.student.multiply_adds() - before, 6 * passes.forward * one.all);
}

/// NuAT2-WA: the first step goes up the cross-entropy and the nuclear norm of the moving average, the second up the student's
/// cross-entropy, each of the radius and projected.
#[test]
fn a_moving_average_leads_the_attack() {
    let set = ["epochs=200", "attack.start=signs", "attack.steps=2", "batch_norm.compat=lean"];
    let config = config("nuat2-wa", &set);
    let step = step(&config);
    let networks = &step.work.networks;
    // An average that is not the student.
    networks.take_average(&(&step.work.parameters.values * 0.9), &(&networks.student.flat_statistics * 1.1));
    let (batch, noise) = batch();
    let terms: Vec<Term> = config.terms_of_step(100, 0);
    let weight = 4.0 * 100.0 / 200.0;
    assert!(terms.iter().any(|term| term.in_attack && (term.weight - weight).abs() < 1e-12));
    let attacked = step.work.adversary.attack(networks, &batch, &noise, &terms, &go_on).unwrap();

    let logits = |model: &Model, images: &Tensor| networks.precision.logits(model, images, Mode::Eval);
    let average = &networks.teachers[EMA];
    let natural = logits(average, &batch.images);
    let radius = 8.0 / 255.0;
    let mut images = (&batch.images + (-noise.uniform(&batch.images) + 0.5).sign() * (radius / 2.0)).clamp(0.0, 1.0);
    for leads in [true, false] {
        let variable = images.detach().set_requires_grad(true);
        let model = if leads { average } else { &networks.student };
        let found = logits(model, &variable);
        let entropy =
            -found.log_softmax(1, Kind::Double).gather(1, &batch.labels.unsqueeze(1), false).sum(Kind::Double);
        let norm = (&natural - &found).f_svd(true, false).unwrap().1.sum(Kind::Double) * weight;
        let objective = if leads { entropy + norm } else { entropy };
        let gradient = Tensor::run_backward(&[&objective], &[&variable], false, false).remove(0);
        let moved = variable.detach() + gradient.sign() * radius;
        images =
            no_grad(|| moved.minimum(&(&batch.images + radius)).maximum(&(&batch.images - radius)).clamp(0.0, 1.0));
    }
    assert!(apart(&attacked.adversarial, &images) < 1e-12);
    // Nothing of the loss is raised after the first step.
    let unled = Term::plain("attack", Images::Adversarial, crate::config::Target::Label);
    assert_eq!(step.work.adversary.raised(&terms)[1], [unled]);
}
