use tch::Kind;

use super::*;

/// One rank: the sum is the tensor itself.
fn alone() -> Sum {
    Arc::new(|_: &mut Tensor| Ok(()))
}

fn values(shape: &[i64], scale: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    ((Tensor::arange(count, (Kind::Double, tch::Device::Cpu)) * 0.7 + scale).sin() * scale + 0.3).view(shape)
}

#[test]
fn on_one_rank_it_equals_batch_norm_with_its_gradients() {
    let results: Vec<Vec<Tensor>> = [true, false]
        .into_iter()
        .map(|ours| {
            let images = values(&[4, 3, 5, 5], 2.0).set_requires_grad(true);
            let weight = values(&[3], 1.5).set_requires_grad(true);
            let bias = values(&[3], 0.5).set_requires_grad(true);
            let output = if ours {
                batch_norm_across_ranks(&images, &weight, &bias, 1e-5, &alone()).output
            } else {
                let none = None::<Tensor>;
                images.batch_norm(Some(&weight), Some(&bias), none.as_ref(), none.as_ref(), true, 0.1, 1e-5, false)
            };
            (&output * values(&[4, 3, 5, 5], 3.0)).sum(Kind::Double).backward();
            vec![output.detach(), images.grad(), weight.grad(), bias.grad()]
        })
        .collect();
    for (ours, native) in results[0].iter().zip(&results[1]) {
        let difference = f64::try_from((ours - native).abs().max()).unwrap();
        assert!(difference < 1e-12, "differs by {difference}");
    }
}

#[test]
fn two_halves_with_summed_statistics_equal_the_whole_batch() {
    // A sum that adds the other half's contribution: what a second rank would send, computed beforehand.
    let images = values(&[6, 2, 3, 3], 1.0);
    let (weight, bias) = (values(&[2], 1.0), values(&[2], 2.0));
    let whole = batch_norm_across_ranks(&images, &weight, &bias, 1e-5, &alone());
    let contribution = Arc::new(std::sync::Mutex::new(None::<Tensor>));
    let keep = Arc::clone(&contribution);
    let record: Sum = Arc::new(move |sums: &mut Tensor| {
        *keep.lock().unwrap() = Some(sums.copy());
        Ok(())
    });
    batch_norm_across_ranks(&images.narrow(0, 4, 2), &weight, &bias, 1e-5, &record);
    let add: Sum = Arc::new(move |sums: &mut Tensor| {
        let _ = sums.g_add_(contribution.lock().unwrap().as_ref().unwrap());
        Ok(())
    });
    let half = batch_norm_across_ranks(&images.narrow(0, 0, 4), &weight, &bias, 1e-5, &add);
    let difference = f64::try_from((half.output - whole.output.narrow(0, 0, 4)).abs().max()).unwrap();
    assert!(difference < 1e-12, "differs by {difference}");
    assert_eq!(f64::try_from(half.count).unwrap(), 54.0);
}

/// Maps of a forward pass in bfloat16 meet weights and statistics in single precision.
#[test]
fn bfloat16_maps_are_normalised_by_single_precision_statistics() {
    let results: Vec<Vec<Tensor>> = [Kind::BFloat16, Kind::Double]
        .into_iter()
        .map(|kind| {
            // All sides see the same rounded images, and gradients of the same rounded weights.
            let rounded = |shape: &[i64], scale| (values(shape, scale) + 2.0).to_kind(Kind::BFloat16).to_kind(kind);
            let parameters = if kind == Kind::Double { kind } else { Kind::Float };
            let images = rounded(&[8, 3, 6, 6], 2.0).set_requires_grad(true);
            let weight = rounded(&[3], 1.5).to_kind(parameters).set_requires_grad(true);
            let bias = rounded(&[3], 0.5).to_kind(parameters).set_requires_grad(true);
            let normalised = batch_norm_across_ranks(&images, &weight, &bias, 1e-5, &alone());
            assert_eq!((normalised.output.kind(), normalised.mean.kind()), (kind, parameters));
            (&normalised.output * rounded(&[8, 3, 6, 6], 3.0)).sum(parameters).backward();
            let gradients = [images.grad(), weight.grad(), bias.grad()];
            assert_eq!(gradients[1].kind(), parameters);
            [normalised.mean, normalised.variance, normalised.output.detach()].into_iter().chain(gradients).collect()
        })
        .collect();
    // Statistics have the digits of single precision; maps and gradients round once.
    for ((lower, exact), tolerance) in results[0].iter().zip(&results[1]).zip([1e-6, 1e-5, 0.01, 0.03, 0.01, 0.01]) {
        let apart = f64::try_from((lower.to_kind(Kind::Double) - exact).norm() / exact.norm()).unwrap();
        assert!(apart <= tolerance, "{apart} apart, {tolerance} allowed");
    }
}

#[test]
fn an_empty_rank_joins_both_passes() {
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let sum: Sum = Arc::new(move |sums: &mut Tensor| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let _ = sums.g_add_scalar_(1.0); // as if another rank had samples
        Ok(())
    });
    let images = Tensor::zeros([0, 2, 3, 3], tch::kind::DOUBLE_CPU).set_requires_grad(true);
    let weight = Tensor::ones([2], tch::kind::DOUBLE_CPU).set_requires_grad(true);
    let bias = Tensor::zeros([2], tch::kind::DOUBLE_CPU).set_requires_grad(true);
    let normalised = batch_norm_across_ranks(&images, &weight, &bias, 1e-5, &sum);
    normalised.output.sum(Kind::Double).backward();
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 2);
    assert_eq!(images.grad().size(), [0, 2, 3, 3]);
    assert_eq!(f64::try_from(weight.grad().abs().max()).unwrap(), 0.0);
}

/// A sum that fails, ahead or on the way back, is an error with its reason, also in a recording, and nothing ends the process.
#[test]
fn a_sum_that_fails_is_told() {
    let fails_in_call = |which: usize| -> Sum {
        let calls = std::sync::atomic::AtomicUsize::new(0);
        Arc::new(move |_: &mut Tensor| match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == which {
            true => Err("the other rank is gone".into()),
            false => Ok(()),
        })
    };
    let values = |shape: &[i64]| values(shape, 1.0).set_requires_grad(true);
    let (images, weight, bias) = (values(&[4, 2, 3, 3]), values(&[2]), values(&[2]));
    let pass = |sum: &Sum| batch_norm_across_ranks(&images, &weight, &bias, 1e-5, sum).output.sum(Kind::Double);
    let ahead = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pass(&fails_in_call(0))));
    let words = ahead.unwrap_err().downcast::<String>().unwrap();
    assert!(words.contains("the other rank is gone"), "{words}");
    let back = pass(&fails_in_call(1)).f_backward().unwrap_err().to_string();
    assert!(back.contains("the other rank is gone"), "{back}");
    for which in [0, 1] {
        let sum = fails_in_call(which);
        let recorded = crate::Graph::record(tch::Device::Cpu, || pass(&sum).backward());
        let reason = recorded.err().unwrap();
        assert!(reason.contains("the other rank is gone"), "{reason}");
    }
}
