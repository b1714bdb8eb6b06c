//! Steps on several ranks: sums that start in the backward pass, batches in parts, running statistics.

use datasets::Shard;

use super::*;
use crate::fixtures::network_across;
use crate::fixtures::{Call, on_ranks};
use crate::method::networks::over_ranks;
use crate::model::ModelSpec;
use crate::system::timeline::Timeline;

/// The state of one rank after each step: parameters, gradients, running statistics.
pub(super) type States = Vec<[Tensor; 3]>;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Student {
    WithoutBatchNorm,
    Sync,
    Fused,
    Local,
}

/// Steps on batches of this many images, sharded over this many ranks.
pub(super) fn steps(
    config: &RunConfig,
    student: Student,
    world_size: usize,
    overlaps: bool,
    counts: &[usize],
) -> Vec<(States, Vec<Call>)> {
    let kind = config.precision.dtype.kind();
    on_ranks(world_size, overlaps, |ranks| {
        let shard = Shard { rank: ranks.rank(), world_size };
        let convnet = ModelSpec::new("convnet".parse().unwrap(), [3, 16, 16], 5);
        let fused = student == Student::Fused;
        let sync = (fused || student == Student::Sync) && world_size > 1;
        let reached = sync.then(|| over_ranks(Arc::clone(&ranks), Timeline::default(), fused));
        let student = match student {
            Student::WithoutBatchNorm => Model::build(convnet, 1, kind, Device::Cpu, None),
            Student::Sync | Student::Fused | Student::Local => network_across(1, 5, kind, reached),
        };
        let networks = Networks { student, ..networks(kind) };
        let mut step = Step::new(config, networks, ranks).unwrap();
        let terms: Vec<Term> = config.active_terms(0).collect();
        let draws = Draws::new(1, Purpose::AttackStart, 0);
        let mut states = vec![];
        for (number, &global_count) in counts.iter().enumerate() {
            let slots: Vec<i64> = shard.slots(global_count).map(|slot| slot as i64).collect();
            let images = pattern(global_count * 3 * 16 * 16, 7 + number as u64).view([-1, 3, 16, 16]);
            let rows = Tensor::from_slice(&slots);
            let labels = (&rows * 3 + number as i64).remainder(5);
            let images = images.index_select(0, &rows).to_kind(kind);
            let samples = slots.into_iter().map(|slot| slot as u64).collect();
            let batch = Batch { images, labels, samples, global_count };
            let noise = Noise::new(&draws, &batch.samples, Device::Cpu);
            step.run(&batch, &noise, &terms, 0.05).unwrap();
            let Work { parameters, networks, .. } = &step.work;
            states
                .push([&parameters.values, &parameters.gradients, &networks.student.flat_statistics].map(Tensor::copy));
        }
        states
    })
}

pub(super) fn distance(one: &Tensor, other: &Tensor) -> f64 {
    f64::try_from((one - other).norm() / one.norm()).unwrap()
}

pub(super) fn same(one: &States, other: &States) -> bool {
    one.iter().flatten().zip(other.iter().flatten()).all(|(one, other)| one.equal(other))
}

/// The second batch has one image: the other ranks make the same passes on an empty batch, in the same order.
#[test]
fn sums_that_start_in_the_backward_pass_are_those_after_it() {
    for world_size in 2..=4 {
        let run = |overlaps: bool, bucket_mib: f64| {
            let overrides =
                ["batch_norm.compat=lean", "precision.dtype=float32", &format!("comm.bucket_mib={bucket_mib}")];
            let of_ranks = steps(&config("iad-1", &overrides), Student::Sync, world_size, overlaps, &[7, 1]);
            for (states, calls) in &of_ranks {
                assert!(same(states, &of_ranks[0].0), "ranks of {world_size} differ");
                assert_eq!(calls, &of_ranks[0].1);
            }
            of_ranks.into_iter().next().unwrap()
        };
        let (after, calls) = run(false, 8.0);
        let buckets = |calls: &[Call]| calls.iter().filter(|call| matches!(call, Call::Sum(Kind::Float, _))).count();
        assert_eq!(buckets(&calls), 2);
        let value = 4.0 / f64::from(1 << 20);
        for (bucket_mib, expected) in [(value, 29), (64.0 * value, 19), (1.0, 1), (4096.0, 1)] {
            let (during, calls) = run(true, bucket_mib);
            assert!(same(&after, &during), "{world_size} ranks, buckets of {bucket_mib} MiB");
            assert_eq!(buckets(&calls), 2 * expected, "buckets of {bucket_mib} MiB");
            // Batch norm's sums of the backward pass come after the first gradients have started.
            let first = calls.iter().position(|call| matches!(call, Call::Sum(Kind::Float, _))).unwrap();
            let step = calls.len() / 2;
            let later = calls[first..step].iter().filter(|call| matches!(call, Call::Sum(Kind::Double, _))).count();
            assert!(expected == 1 || later > 1, "{later} sums after the first bucket");
        }
    }
}

#[test]
fn parts_of_a_batch_add_up_to_its_gradient() {
    let run = |accumulate: usize, world_size: usize| {
        let accumulate = format!("batch.accumulate={accumulate}");
        let config = config("at", &[&accumulate, "attack.start=uniform"]);
        let of_ranks = steps(&config, Student::WithoutBatchNorm, world_size, true, &[6, 2]);
        assert!(of_ranks.iter().all(|(states, _)| same(states, &of_ranks[0].0)));
        of_ranks.into_iter().next().unwrap()
    };
    let (whole, _) = run(1, 1);
    for world_size in 1..=3 {
        let sums = |calls: &[Call]| calls.iter().filter(|call| matches!(call, Call::Sum(..))).count();
        let (_, at_once) = run(1, world_size);
        for accumulate in [1, 2, 4] {
            let (parts, calls) = run(accumulate, world_size);
            for ([_, one, _], [_, other, _]) in whole.iter().zip(&parts) {
                let distance = distance(one, other);
                assert!(distance < 1e-12, "{accumulate} parts on {world_size} ranks: {distance:e}");
            }
            assert_eq!(sums(&calls), sums(&at_once), "parts need no sums of their own");
        }
    }
}

#[test]
fn the_alignment_of_gradients_adds_up_over_parts_and_ranks() {
    let run_student = |student: Student, accumulate: usize, world_size: usize| {
        let changes = [&format!("batch.accumulate={accumulate}"), "grad_align={ weight = 0.5 }", "attack.steps=1"];
        let config = config("at", &changes);
        let of_ranks = steps(&config, student, world_size, true, &[6, 1]);
        assert!(of_ranks.iter().all(|(states, _)| same(states, &of_ranks[0].0)));
        of_ranks.into_iter().next().unwrap().0
    };
    let run = |accumulate, world_size| run_student(Student::WithoutBatchNorm, accumulate, world_size);
    // Ranks without images make no passes of batch norm by themselves, whose second derivatives need images.
    run_student(Student::Local, 1, 2);
    let whole = run(1, 1);
    for (accumulate, world_size) in [(2, 1), (1, 2), (2, 3)] {
        for ([_, one, _], [_, other, _]) in whole.iter().zip(&run(accumulate, world_size)) {
            let distance = distance(one, other);
            assert!(distance < 1e-11, "{accumulate} parts on {world_size} ranks: {distance:e}");
        }
    }
    let plain = steps(&config("at", &["attack.steps=1"]), Student::WithoutBatchNorm, 1, false, &[6, 1]);
    assert!(distance(&whole[0][1], &plain[0].0[0][1]) > 1e-3, "the regulariser has a gradient");
}

/// Its statistics are those of the part over all ranks, which has the same images on any number of them.
#[test]
fn parts_with_batch_norm_across_ranks_are_the_same_on_any_number_of_ranks() {
    let run = |accumulate: usize, world_size: usize| {
        let config = config("iad-1", &[&format!("batch.accumulate={accumulate}")]);
        let of_ranks = steps(&config, Student::Sync, world_size, true, &[6, 4, 1]);
        assert!(of_ranks.iter().all(|(states, _)| same(states, &of_ranks[0].0)));
        of_ranks.into_iter().next().unwrap().0
    };
    let alone = run(3, 1);
    for world_size in 2..=3 {
        for (one, other) in alone.iter().flatten().zip(run(3, world_size).iter().flatten()) {
            let distance = distance(one, other);
            assert!(distance < 1e-9, "{world_size} ranks: {distance:e}");
        }
    }
    assert!(distance(&alone[0][1], &run(1, 1)[0][1]) > 1e-3, "batch norm does not see the parts");
}

/// The same steps and as many sums as with statistics in double precision: one a batch norm and pass, on ranks without images too.
#[test]
fn fused_batch_norm_takes_the_same_steps_with_as_many_sums() {
    for (accumulate, counts) in [(1, [5, 4, 1]), (3, [6, 4, 1])] {
        let config = config("iad-1", &[&format!("batch.accumulate={accumulate}")]);
        let run = |student, world_size: usize| steps(&config, student, world_size, false, &counts);
        let alone = run(Student::Fused, 1).remove(0).0;
        for world_size in 2..=3 {
            let (fused, exact) = (run(Student::Fused, world_size), run(Student::Sync, world_size));
            for (states, calls) in &fused {
                assert!(same(states, &fused[0].0) && *calls == fused[0].1, "ranks of {world_size} differ");
            }
            for (one, other) in alone.iter().flatten().zip(fused[0].0.iter().flatten()) {
                let distance = distance(one, other);
                assert!(distance < 1e-9, "{accumulate} parts on {world_size} ranks: {distance:e}");
            }
            let sums = |calls: &[Call]| calls.iter().filter(|call| matches!(call, Call::Sum(..))).count();
            assert_eq!(sums(&fused[0].1), sums(&exact[0].1), "{accumulate} parts on {world_size} ranks");
            // A table with a row for each rank ahead, two sums of each of 16 channels back.
            for values in [world_size * 33, 32] {
                let call = Call::Sum(Kind::Double, values);
                assert!(fused[0].1.contains(&call), "no sum of {values} values on {world_size} ranks");
            }
        }
    }
}

#[test]
fn running_statistics_of_ranks_apart_are_equal_after_every_step() {
    let config = config("iad-1", &[]);
    for world_size in 2..=3 {
        let of_ranks = steps(&config, Student::Local, world_size, false, &[5, 4, 1]);
        for (rank, (states, _)) in of_ranks.iter().enumerate() {
            assert!(same(states, &of_ranks[0].0), "rank {rank} of {world_size} differs");
        }
        let moved = |one: usize, other: usize| distance(&of_ranks[0].0[one][2], &of_ranks[0].0[other][2]);
        assert!(moved(0, 1) > 1e-3 && moved(1, 2) > 1e-3);
    }
}
