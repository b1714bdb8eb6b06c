//! Steps that are given up leave no trace, wherever they are given up and on any number of ranks.

use datasets::Shard;

use super::*;
use crate::fixtures::{network_across, on_ranks};
use crate::method::networks::over_ranks;
use crate::step::stopping::GivenUp;
use crate::system::timeline::Timeline;

fn state(step: &Step) -> [Tensor; 4] {
    let Work { parameters, networks, optimizer, .. } = &step.work;
    let student = &networks.student;
    [&parameters.values, &optimizer.velocity, &student.flat_statistics, &student.batches_tracked].map(Tensor::copy)
}

fn same(one: &[Tensor; 4], other: &[Tensor; 4]) -> bool {
    one.iter().zip(other).all(|(one, other)| one.equal(other))
}

/// Gives up a step at each place where it asks, and then makes it. Returns the number of places.
fn gives_up_everywhere(config: &RunConfig, world_size: usize, sync: bool, global_count: usize) -> usize {
    let of_ranks = on_ranks(world_size, true, |ranks| {
        let kind = Kind::Double;
        let reached = (sync && world_size > 1).then(|| over_ranks(Arc::clone(&ranks), Timeline::default(), false));
        let networks = |across| Networks { student: network_across(1, 5, kind, across), ..networks(kind) };
        let mut step = Step::new(config, networks(reached.clone()), Arc::clone(&ranks)).unwrap();
        let mut unbroken = Step::new(config, networks(reached), Arc::clone(&ranks)).unwrap();
        let slots: Vec<i64> =
            Shard { rank: ranks.rank(), world_size }.slots(global_count).map(|slot| slot as i64).collect();
        let images = pattern(global_count * 3 * 16 * 16, 7).view([-1, 3, 16, 16]);
        let rows = Tensor::from_slice(&slots);
        let labels = (&rows * 3).remainder(5);
        let samples = slots.into_iter().map(|slot| slot as u64).collect();
        let batch = Batch { images: images.index_select(0, &rows), labels, samples, global_count };
        let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &batch.samples, Device::Cpu);
        let terms: Vec<Term> = config.active_terms(0).collect();

        // The last rank alone is asked to stop, when the step asks for the `place`-th time.
        let mut place = 0;
        loop {
            let (before, asked) = (state(&step), Cell::new(0));
            let ask = || {
                asked.set(asked.get() + 1);
                let requested = ranks.rank() + 1 == world_size && asked.get() > place;
                let mut sum = [f64::from(u8::from(requested))];
                ranks.sum(&mut sum)?;
                if sum[0] > 0.0 { Err(GivenUp.into()) } else { Ok(()) }
            };
            let Err(error) = step.run_until(&ask, &batch, &noise, &terms, 0.05) else { break };
            assert!(error.is::<GivenUp>(), "{error:#}");
            assert_eq!(asked.get(), place + 1, "a step that is given up asks again");
            assert!(same(&before, &state(&step)), "a step that is given up at place {place} leaves a trace");
            place += 1;
        }
        unbroken.run(&batch, &noise, &terms, 0.05).unwrap();
        assert!(same(&state(&unbroken), &state(&step)), "the repeated step differs");
        let second = step.run(&batch, &noise, &terms, 0.05).unwrap().read().unwrap();
        let expected = unbroken.run(&batch, &noise, &terms, 0.05).unwrap().read().unwrap();
        assert_eq!(loss(&second).to_bits(), loss(&expected).to_bits());
        place
    });
    assert!(of_ranks.iter().all(|(places, _)| *places == of_ranks[0].0));
    of_ranks[0].0
}

#[test]
fn a_step_can_be_given_up_before_each_part_and_each_step_of_its_attack() {
    // An attack that updates the running statistics as it goes.
    let train = "attack.batch_norm=train_update";
    for world_size in 1..=3 {
        for sync in [false, true] {
            let places = gives_up_everywhere(&config("at", &[train]), world_size, sync, 6);
            assert_eq!(places, 1 + 3, "{world_size} ranks");
        }
        // The second part has no image for the last ranks.
        let parts = config("iad-1", &[train, "batch.accumulate=2"]);
        assert_eq!(gives_up_everywhere(&parts, world_size, true, 3), 2 * (1 + 3), "{world_size} ranks");
    }
}

/// NuAT's attack, which sums over the ranks within its objective.
#[test]
fn a_step_whose_attack_raises_a_term_of_the_whole_batch_can_be_given_up() {
    let term = "{ name = \"smooth\", of = \"adversarial\", towards = { network = \"student\", images = \"natural\" }, \
                divergence = \"nuclear\", in_attack = true }";
    let terms = format!("loss.terms=[{{ name = \"label\", of = \"natural\", towards = \"label\" }}, {term}]");
    let natural = "attack.natural_batch_norm=train_update";
    for world_size in 1..=3 {
        assert_eq!(gives_up_everywhere(&config("at", &[&terms, natural]), world_size, true, 5), 1 + 3);
        // The last ranks have no image.
        assert_eq!(gives_up_everywhere(&config("at", &[&terms, natural]), world_size, true, 2), 1 + 3);
    }
}

/// It asks before the parts of either pass and within the attacks, of which there is one for each part.
#[test]
fn a_step_of_perturbed_weights_can_be_given_up_in_both_passes() {
    let awp = "awp={ gamma = 0.01 }";
    for world_size in 1..=2 {
        assert_eq!(gives_up_everywhere(&config("at", &[awp]), world_size, true, 6), 1 + 3 + 1);
        let parts = config("iad-1", &[awp, "batch.accumulate=2"]);
        assert_eq!(gives_up_everywhere(&parts, world_size, world_size > 1, 3), 2 * (1 + 3 + 1));
    }
}

#[test]
fn a_step_without_an_attack_asks_before_it_begins() {
    assert_eq!(gives_up_everywhere(&config("at", &["attack.kind=none", "loss.terms.label.of=natural"]), 2, true, 4), 1);
}
