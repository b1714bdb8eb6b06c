use datasets::Draws;
use datasets::random::Purpose;

use super::*;
use crate::fixtures::on_ranks;
use crate::system::summing::at_once;

fn batch(count: usize) -> Batch {
    let images = Tensor::arange(count as i64, tch::kind::FLOAT_CPU).view([-1, 1, 1, 1]);
    let labels = Tensor::zeros([count as i64], tch::kind::INT64_CPU);
    Batch { images, labels, samples: (0..count as u64).collect(), global_count: count }
}

/// Runs work on batches of these sizes; returns the number of calls, and the sums.
fn run(runner: &mut Runner<Tensor>, sizes: &[usize], work: impl Fn(&Inputs) -> Result<Tensor>) -> (usize, Vec<f64>) {
    let mut calls = 0;
    let mut found = vec![];
    for (number, &size) in sizes.iter().enumerate() {
        let mut batch = batch(size);
        batch.images += number as f64;
        let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &batch.samples, Device::Cpu);
        let done = runner.run(&Key::of(&batch, &[]), &batch, &noise, 0.1, |inputs| {
            calls += 1;
            work(&inputs)
        });
        found.push(f64::try_from(&*done.unwrap()).unwrap());
    }
    (calls, found)
}

fn sum(inputs: &Inputs) -> Result<Tensor> {
    Ok(inputs.batch.images.sum(tch::Kind::Float))
}

fn recording() -> Runner<Tensor> {
    Runner::recording(Device::Cpu, &Timeline::default())
}

#[test]
fn work_of_one_kind_is_called_a_few_times_recorded_once_and_replayed() {
    let sizes = [4; 9];
    let (calls, found) = run(&mut recording(), &sizes, sum);
    assert_eq!(calls, WARM_UP + 1);
    let (all, expected) = run(&mut Runner::default(), &sizes, sum);
    assert_eq!((all, found), (9, expected));
}

#[test]
fn a_smaller_batch_is_called_and_the_recording_lasts() {
    let sizes = [4, 4, 4, 4, 4, 2, 4, 4, 2, 4, 0, 0, 0, 0, 4];
    let mut runner = recording();
    let (calls, found) = run(&mut runner, &sizes, sum);
    assert_eq!(calls, WARM_UP + 1 + 2 + 4);
    assert_eq!(found, run(&mut Runner::default(), &sizes, sum).1);
    // Another kind that repeats takes its place, and later the first one again.
    let sizes = [vec![3; 6], vec![4; 6]].concat();
    let (calls, found) = run(&mut runner, &sizes, sum);
    assert_eq!(calls, 2 * (WARM_UP + 1));
    assert_eq!(found, run(&mut Runner::default(), &sizes, sum).1);
}

#[test]
fn sizes_that_alternate_are_never_recorded_and_that_is_said() {
    let mut runner = recording();
    let sizes: Vec<usize> = (0..PATIENCE + 10).map(|number| 3 + number % 2).collect();
    let (calls, _) = run(&mut runner, &sizes[..PATIENCE - 1], sum);
    assert_eq!((calls, runner.take_refusal()), (PATIENCE - 1, None));
    run(&mut runner, &sizes[PATIENCE - 1..], sum);
    assert!(runner.take_refusal().unwrap().contains("batch.accumulate"));
}

#[test]
fn what_cannot_be_recorded_is_called_and_the_reason_said_once() {
    type Work = fn(&Inputs) -> Result<Tensor>;
    let waits: Work = |inputs| {
        let _ = inputs.batch.images.sum(tch::Kind::Float).is_nonzero();
        sum(inputs)
    };
    let fails: Work = |inputs| {
        anyhow::ensure!(!catches_panics(), "not in a recording");
        sum(inputs)
    };
    for (work, words) in [(waits, "waits for the device"), (fails, "not in a recording")] {
        let mut runner = recording();
        let (calls, found) = run(&mut runner, &[4; 8], work);
        assert_eq!(calls, 8 + 1);
        assert_eq!(found, run(&mut Runner::default(), &[4; 8], sum).1);
        let reason = runner.take_refusal().unwrap();
        assert!(reason.contains(words) && !reason.contains('\n'), "{reason}");
        assert_eq!(runner.take_refusal(), None);
    }
}

/// Ranks that replayed alone would sum with nobody.
#[test]
fn a_rank_that_cannot_record_keeps_the_others_from_it() {
    for broken in [false, true] {
        let of_ranks = on_ranks(2, false, |ranks| {
            let mut runner = recording().with_sums_over(&ranks);
            let (calls, found) = run(&mut runner, &[4; 8], |inputs| {
                anyhow::ensure!(!(broken && ranks.rank() == 1 && catches_panics()), "not on this rank");
                let sum = inputs.batch.images.sum(tch::Kind::Float);
                at_once(&ranks, &sum)?;
                Ok(sum)
            });
            let alone = run(&mut Runner::default(), &[4; 8], sum).1;
            assert_eq!(found, alone.iter().map(|sum| 2.0 * sum).collect::<Vec<_>>());
            (calls, runner.take_refusal())
        });
        let refusals: Vec<_> = of_ranks.into_iter().map(|(told, _)| told).collect();
        let told = |words: &str| Some(words.to_string());
        let expected = match broken {
            false => [(WARM_UP + 1, None), (WARM_UP + 1, None)],
            true => {
                [(9, told("another rank could not record them, and its log says why")), (9, told("not on this rank"))]
            }
        };
        assert_eq!(refusals, expected);
    }
}
