//! Captured steps, here on the CPU: replays are equal to eager steps to the bit, whatever changes from step to step.

use super::*;
use crate::config::preset_names;
use crate::fixtures::network_across;
use crate::fixtures::on_ranks;
use crate::method::networks::over_ranks;
use crate::step::diagnostics::Seen;
use crate::step::graph_capture::WARM_UP;
use crate::step::learners::Place;
use crate::system::timeline::Timeline;

/// Captures the steps of `step` from now on, on any device.
fn record(step: &mut Step) -> Result<(), String> {
    step.recorder.capture(&step.work.networks, &step.work.ranks, false)?;
    if step.recorder.captures_parts() {
        step.work.parameters.sum_at_the_end();
    }
    Ok(())
}

/// Takes `count` steps, each with other images, labels, random numbers and rates. The terms are those of the epoch
/// `number / 6`, and every sixth batch is smaller.
fn steps(step: &mut Step, config: &RunConfig, count: u64, images_of: impl Fn(u64, usize) -> Tensor) -> Vec<Seen> {
    let kind = config.precision.dtype.kind();
    let shard = Shard { rank: step.work.ranks.rank(), world_size: step.work.ranks.world_size() };
    let one = |number: u64| {
        let whole: Vec<u64> = (0..if number % 6 == 5 { 4 } else { 6 }).collect();
        let samples: Vec<u64> = shard.slots(whole.len()).map(|slot| whole[slot]).collect();
        let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, number), &samples, Device::Cpu);
        let labels: Vec<i64> = samples.iter().map(|sample| (sample * 3 + number) as i64 % 5).collect();
        let rows: Vec<Tensor> = samples.iter().map(|&sample| images_of(number, sample as usize)).collect();
        let images = Tensor::stack(&rows, 0).to_kind(kind);
        let batch = Batch { images, labels: Tensor::from_slice(&labels), samples, global_count: whole.len() };
        let terms: Vec<Term> = config.active_terms(number / 6).collect();
        step.work.optimizer.set_momentum(Some(0.95 - 0.01 * number as f64));
        // Epochs of six steps. A learner has a rate of its own.
        let place = Place {
            epoch: number / 6,
            step: number,
            epochs: 3,
            steps_per_epoch: 6,
            global_batch: 6,
            rate_factor: 0.1 + 0.01 * number as f64,
        };
        step.work.learners.iter_mut().for_each(|learner| learner.begin_step(place));
        step.work.networks.memory.begin_step(number / 6, number, 18);
        if number > 0 && number.is_multiple_of(6) {
            step.work.networks.memory.after_epoch();
        }
        step.run(&batch, &noise, &terms, 0.05 / (1.0 + number as f64)).unwrap().read().unwrap()
    };
    (0..count).map(one).collect()
}

fn images(number: u64, sample: usize) -> Tensor {
    pattern(3 * 16 * 16, number * 100 + sample as u64).view([3, 16, 16])
}

/// The state after a step.
fn state(step: &Step) -> Vec<Tensor> {
    let of_network = |one: Trained| {
        let Gradients { values, gradients, .. } = one.parameters;
        let own =
            [values, gradients, &one.model.flat_statistics, &one.model.batches_tracked].map(Tensor::shallow_clone);
        own.into_iter().chain(one.optimizer.buffers().into_iter().map(|(_, buffer)| buffer.shallow_clone())).collect()
    };
    let all = step.work.trained().flat_map(|one| -> Vec<Tensor> { of_network(one) });
    let memory = step.work.networks.memory.tensors().into_iter().map(|named| named.tensor);
    all.map(|tensor| tensor.detach()).chain(memory).map(|tensor| tensor.copy()).collect()
}

/// Fails unless both results are equal to the bit.
fn same(what: &str, called: (&Step, Vec<Seen>), recorded: (&Step, Vec<Seen>)) {
    for (number, (one, other)) in called.1.iter().zip(&recorded.1).enumerate() {
        let bits = |seen: &Seen| -> BTreeMap<String, u64> {
            seen.sums.named().into_iter().map(|(name, sum)| (name, sum.to_bits())).collect()
        };
        assert_eq!(bits(one), bits(other), "{what}: step {number}: {:?}, {:?}", one.sums, other.sums);
        assert_eq!(one.not_finite, other.not_finite, "{what}: step {number}");
    }
    for (place, (one, other)) in state(called.0).iter().zip(&state(recorded.0)).enumerate() {
        let same = one.eq_tensor(other).logical_or(&one.isnan().logical_and(&other.isnan())).all();
        assert!(bool::try_from(same).unwrap(), "{what}: {place}");
    }
}

fn replayed(step: &Step, phase: Phase) -> bool {
    step.work.networks.timeline.lap().seconds()[phase as usize] > 0.0
}

#[test]
fn every_method_is_replayed_to_the_bit() {
    let types = [&["precision.dtype=float32"][..], &["precision.dtype=bfloat16", "precision.channels_last=true"]];
    for preset in preset_names() {
        for changes in types {
            // A term, or a learner, that enters with the second epoch.
            let enters: &[&str] = match preset {
                "iad-1" | "iad-2" => &["loss.terms.introspect.from_epoch=1"],
                "ciard" => &["learners.tutor.from_epoch=1", "loss.terms.tutor-label.from_epoch=1", "epochs=3"],
                _ => &[],
            };
            let changes = [changes, enters, &["attack.start=gaussian", "metrics.diagnostics=full"]].concat();
            let config = config(preset, &changes);
            let (mut called, mut recorded) = (step(&config), step(&config));
            record(&mut recorded).unwrap();
            let seen = [&mut called, &mut recorded].map(|step| steps(step, &config, 13, images));
            let [one, other] = seen;
            assert!(!replayed(&called, Phase::Replay) && replayed(&recorded, Phase::Replay), "{preset}");
            assert_eq!(recorded.take_warning(), None);
            same(preset, (&called, one), (&recorded, other));
        }
    }
}

/// Parts of a batch, an optimizer in double precision and the reference's batch norm are all captured.
#[test]
fn every_way_of_a_step_is_replayed_to_the_bit() {
    for (preset, changes) in [
        ("iad-1", &["batch.accumulate=2"][..]),
        ("iad-2", &["batch_norm.compat=reference", "precision.dtype=float32"]),
        ("st", &["attack.kind=none", "optimizer.momentum=0"]),
        ("at", &["attack.batch_norm=eval"]),
        ("at", &["grad_align={ weight = 0.5 }", "batch.accumulate=2", "precision.dtype=float32"]),
        ("trades", &["awp={ gamma = 0.01 }", "precision.dtype=float32"]),
        ("iad-1", &["awp={ gamma = 0.01 }", "batch.accumulate=2", "precision.dtype=bfloat16"]),
        ("at", &["optimizer.kind=adamw", "optimizer.no_weight_decay=[\"batch_norm\"]", "optimizer.clip_grad_norm=0.5"]),
        ("at", &["optimizer.nesterov=true", "optimizer.no_weight_decay=[\"bias\"]", "precision.dtype=float32"]),
        ("at", &["optimizer.nesterov=true", "optimizer.lr_policy={ one_cycle_cosine = {} }"]),
    ] {
        let config = config(preset, changes);
        let (mut called, mut recorded) = (step(&config), step(&config));
        record(&mut recorded).unwrap();
        let [one, other] = [&mut called, &mut recorded].map(|step| steps(step, &config, 5, images));
        assert!(replayed(&recorded, Phase::Replay), "{changes:?}");
        assert_eq!(recorded.take_warning(), None, "{changes:?}");
        same(&format!("{changes:?}"), (&called, one), (&recorded, other));
    }
}

#[test]
fn a_replayed_step_of_broken_images_moves_nothing() {
    let config = config("iad-1", &["precision.dtype=float32"]);
    let broken = WARM_UP as u64 + 1;
    let sometimes = |number: u64, sample: usize| images(number, sample) * if number == broken { f64::NAN } else { 1.0 };
    let (mut called, mut recorded) = (step(&config), step(&config));
    record(&mut recorded).unwrap();
    let [one, other] = [&mut called, &mut recorded].map(|step| steps(step, &config, 5, sometimes));
    assert!(other[broken as usize].not_finite.is_some() && replayed(&recorded, Phase::Replay));
    same("broken", (&called, one), (&recorded, other));
}

/// The work before the all-reduce is replayed, part by part, whether or not sums could start in the backward pass.
#[test]
fn steps_of_several_ranks_are_replayed_up_to_their_sums() {
    // TRADES needs the student's own prediction in its attack, AdaAD the teacher's.
    let adaad = r#"attack.towards={ network = "robust", images = "natural" }"#;
    for (preset, changes, overlaps) in [
        ("iad-1", &["precision.dtype=float32"][..], true),
        ("trades", &["precision.dtype=float32"], false),
        ("iad-1", &[adaad], false),
        ("iad-2", &["batch.accumulate=3"], true),
        ("fair-ard", &["batch.accumulate=3"], true),
        ("peeraid", &["batch.accumulate=3"], true),
    ] {
        let config = config(preset, changes);
        let both = on_ranks(2, overlaps, |ranks| {
            let new = || {
                let networks = networks_of(&config, |seed| network(seed, config.precision.dtype.kind()));
                Step::new(&config, networks, Arc::clone(&ranks)).unwrap()
            };
            let mut called = new();
            let one = steps(&mut called, &config, 8, images);
            let mut recorded = new();
            record(&mut recorded).unwrap();
            recorded.work.networks.timeline.begin_trace();
            let other = steps(&mut recorded, &config, 8, images);
            let spans = recorded.work.networks.timeline.end_trace();
            let replays = spans.iter().filter(|(span, ..)| span.name == "replay").count();
            same(preset, (&called, one), (&recorded, other));
            replays
        });
        // Seven of eight batches are alike.
        let expected = 7 * config.batch.accumulate - WARM_UP;
        let replays: Vec<usize> = both.into_iter().map(|(replays, _)| replays).collect();
        assert_eq!(replays, [expected; 2], "{preset}");
    }
}

/// A captured part may be the second of its step, so a replay must cast weights itself.
#[test]
fn parts_in_bfloat16_are_replayed_with_the_weights_of_their_step() {
    let config = config("iad-1", &["precision.dtype=bfloat16", "batch.accumulate=2"]);
    let (mut called, mut recorded) = (step(&config), step(&config));
    recorded.recorder.capture_parts_of(&recorded.work.networks);
    let [one, other] = [&mut called, &mut recorded].map(|step| steps(step, &config, 5, images));
    assert!(replayed(&recorded, Phase::Replay));
    same("parts", (&called, one), (&recorded, other));
}

/// With `comm.in_graphs` the whole step of several ranks is one replay: batch norm over the ranks, buckets that leave in the
/// backward pass, numbers of all ranks for a loss, perturbed weights. A fourth batch of one kind is recorded by all.
#[test]
fn whole_steps_of_several_ranks_are_replayed_with_their_sums() {
    // Seven of eight batches are alike; where a weight grows with the epoch, the first five are.
    for (preset, changes, world_size, overlaps, alike) in [
        ("iad-1", &["precision.dtype=float32", "comm.bucket_mib=0.01"][..], 2, true, 7),
        ("iad-1", &["batch.accumulate=2", "batch_norm.compat=lean"], 3, true, 7),
        ("iad-1", &["precision.dtype=float32", "batch_norm.fused=true"], 3, true, 7),
        ("saad", &["precision.dtype=float32"], 2, false, 5),
        ("trades", &["awp={ gamma = 0.01 }", "comm.bucket_mib=0.01"], 2, true, 7),
        ("lbgat", &["precision.dtype=float32", "comm.bucket_mib=0.01"], 2, true, 7),
        ("ciard", &["precision.dtype=float32"], 3, true, 7),
        ("at", &["precision.dtype=float32"], 1, false, 7),
    ] {
        let config = config(preset, &[changes, &["comm.in_graphs=true"]].concat());
        let of_ranks = on_ranks(world_size, overlaps, |ranks| {
            let kind = config.precision.dtype.kind();
            let new = || {
                let fused = config.batch_norm.fused;
                let over = || over_ranks(Arc::clone(&ranks), Timeline::default(), fused);
                let reached = (world_size > 1).then(over);
                let networks = networks_of(&config, |seed| network_across(seed, 5, kind, reached.clone()));
                Step::new(&config, networks, Arc::clone(&ranks)).unwrap()
            };
            let mut called = new();
            let one = steps(&mut called, &config, 8, images);
            let mut recorded = new();
            let Step { work, recorder, .. } = &mut recorded;
            recorder.capture(&work.networks, &work.ranks, true).unwrap();
            recorded.work.networks.timeline.begin_trace();
            let other = steps(&mut recorded, &config, 8, images);
            let spans = recorded.work.networks.timeline.end_trace();
            assert_eq!(recorded.recorder.take_warning(), None);
            same(preset, (&called, one), (&recorded, other));
            spans.iter().filter(|(span, ..)| span.name == "replay").count()
        });
        let replays: Vec<usize> = of_ranks.into_iter().map(|(replays, _)| replays).collect();
        assert_eq!(replays, vec![alike - WARM_UP; world_size], "{preset}");
    }
}

#[test]
fn sums_of_batch_norm_are_not_recorded() {
    let config = config("iad-1", &["precision.dtype=float32"]);
    on_ranks(2, false, |ranks| {
        let reached = over_ranks(Arc::clone(&ranks), Timeline::default(), false);
        let student = network_across(1, 5, Kind::Float, Some(reached));
        let teachers = ["robust", "standard"].map(|name| (name.to_string(), network(2, Kind::Float)));
        let networks = Networks::new(student, BTreeMap::from(teachers), config.precision);
        let mut step = Step::new(&config, networks, ranks).unwrap();
        let reason = record(&mut step).unwrap_err();
        assert!(reason.contains("across_ranks"), "{reason}");
        steps(&mut step, &config, 5, images);
    });
}

/// A loss that needs the whole batch before its gradient asks all ranks in the middle of a step.
#[test]
fn numbers_of_all_ranks_are_not_recorded() {
    let config = config("saad", &["batch_norm.across_ranks=local"]);
    let alone = Step::new(&config, networks(Kind::Double), Arc::new(Single));
    assert!(record(&mut alone.unwrap()).is_ok());
    on_ranks(2, false, |ranks| {
        let mut step = Step::new(&config, networks(Kind::Double), ranks).unwrap();
        let reason = record(&mut step).unwrap_err();
        assert!(reason.contains("numbers of all ranks"), "{reason}");
        steps(&mut step, &config, 5, images);
    });
}

#[test]
fn only_gpus_record_and_others_say_so() {
    let config = config("at", &["precision.cuda_graphs=true"]);
    let mut step = step(&config);
    let warning = step.take_warning().unwrap();
    assert!(warning.contains("precision.cuda_graphs") && warning.contains("only GPUs"), "{warning}");
    assert_eq!(step.take_warning(), None);
    steps(&mut step, &config, 5, images);
    assert!(!replayed(&step, Phase::Replay));
}
