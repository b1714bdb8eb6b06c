//! Buckets and hooks on several ranks.

use std::sync::atomic::{AtomicUsize, Ordering};

use comm::{Alignment, HostSum};
use tch::{Kind, no_grad};

use super::*;
use crate::config::GradientDtype;
use crate::fixtures::network;
use crate::fixtures::{Call, on_ranks};

/// Buckets of this many float32 values.
fn buckets_of(values: f64) -> Comm {
    Comm { bucket_mib: values * 4.0 / f64::from(1 << 20), ..Comm::default() }
}

/// Buckets of one parameter each.
fn smallest() -> Comm {
    buckets_of(1.0)
}

fn sums(calls: &[Call]) -> Vec<usize> {
    calls.iter().filter_map(|call| if let Call::Sum(_, values) = call { Some(*values) } else { None }).collect()
}

#[test]
fn a_bucket_that_never_fills_is_summed_in_its_turn() {
    let of_ranks = on_ranks(2, true, |ranks| {
        let mut model = network(1, 5, Kind::Float);
        let sizes: Vec<usize> = model.parameters.iter().map(|named| named.tensor.numel()).rev().collect();
        let mut gradients = Gradients::flatten(&mut model, ranks, &smallest()).unwrap();
        // The first parameter in two uses, and the last; nothing reaches those between.
        let (first, last) = (&model.parameters[0].tensor, &model.parameters.last().unwrap().tensor);
        let mut started = vec![];
        for _ in 0..2 {
            gradients.zero();
            // Without the announcement of the last pass, a pass starts no sum.
            (first * 2.0).sum(Kind::Float).backward();
            started.push(gradients.buckets().unwrap().started());
            gradients.expect_last_pass().unwrap();
            ((first * 3.0).sum(Kind::Float) + (first * last.sum(Kind::Float)).sum(Kind::Float)).backward();
            started.push(gradients.buckets().unwrap().started());
            gradients.finish().unwrap();
        }
        let expected = (no_grad(|| last.sum(Kind::Float)) + 5.0) * 2.0;
        let found = gradients.gradients.get(0);
        assert!(found.allclose(&expected, 1e-6, 1e-6, false), "{found:?} {expected:?}");
        (sizes, started)
    });
    for ((sizes, started), calls) in of_ranks {
        // Only the last parameter's bucket starts in the pass: the first one waits for those between.
        assert_eq!(started, [0, 1, 0, 1]);
        assert_eq!(sums(&calls), [&sizes[..], &sizes].concat());
    }
}

#[test]
fn a_second_pass_after_the_last_is_an_error() {
    let mut model = network(1, 5, Kind::Float);
    let gradients = Gradients::flatten(&mut model, Arc::new(Overlapping::default()), &smallest()).unwrap();
    gradients.expect_last_pass().unwrap();
    let parameter = &model.parameters.last().unwrap().tensor;
    (0..2).for_each(|_| (parameter * 2.0).sum(Kind::Float).backward());
    assert!(format!("{:#}", gradients.finish().unwrap_err()).contains("second backward pass"));
}

/// A transport of one rank whose sums go wrong from the `fails_at`-th on, or panic.
#[derive(Default)]
struct Overlapping {
    calls: AtomicUsize,
    fails_at: Option<usize>,
    panics: bool,
}

impl Communicator for Overlapping {
    fn rank(&self) -> usize {
        0
    }
    fn world_size(&self) -> usize {
        1
    }
    fn start_sum(&self, _tensor: &Tensor) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics, "as a test wants it");
        anyhow::ensure!(self.fails_at != Some(call), "the wire is cut");
        Ok(())
    }
    fn overlaps(&self) -> bool {
        true
    }
    fn sums(&self, _kind: Kind) -> bool {
        true
    }
    fn finish_sums(&self) -> Result<()> {
        Ok(())
    }
    fn broadcast(&self, _tensor: &Tensor) -> Result<()> {
        Ok(())
    }
    fn sum(&self, _values: &mut [f64]) -> Result<()> {
        Ok(())
    }
    fn start_host_sum(&self, values: Vec<f64>) -> Result<HostSum> {
        Ok(HostSum::new(|| Ok(values)))
    }
    fn align(&self, _clock: &dyn Fn() -> f64) -> Result<Alignment> {
        Ok(Alignment::NONE)
    }
    fn gather(&self, text: &str) -> Result<Vec<String>> {
        Ok(vec![text.into()])
    }
    fn barrier(&self) -> Result<()> {
        Ok(())
    }
    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}

#[test]
fn what_goes_wrong_in_a_backward_pass_is_told_after_it() {
    for (ranks, message) in [
        (Overlapping { fails_at: Some(2), ..Overlapping::default() }, "the wire is cut"),
        (Overlapping { panics: true, ..Overlapping::default() }, "a panic in the backward pass"),
    ] {
        let mut model = network(1, 5, Kind::Float);
        let gradients = Gradients::flatten(&mut model, Arc::new(ranks), &smallest()).unwrap();
        gradients.expect_last_pass().unwrap();
        let all: Tensor = model.parameters.iter().map(|named| named.tensor.sum(Kind::Float)).sum();
        all.backward();
        let error = format!("{:#}", gradients.finish().unwrap_err());
        assert!(error.contains(message), "{error}");
    }
}

/// The relative distance (L2) of the sum over the ranks in bfloat16 from that in float32.
fn rounding(world_size: usize) -> f64 {
    let summed = |gradient_dtype: GradientDtype| {
        let of_ranks = on_ranks(world_size, true, |ranks| {
            let comm = Comm { gradient_dtype, ..buckets_of(1000.0) };
            let rank = ranks.rank() as f64;
            let mut model = network(1, 5, Kind::Float);
            let gradients = Gradients::flatten(&mut model, ranks, &comm).unwrap();
            gradients.expect_last_pass().unwrap();
            // Gradients of both signs that the ranks share in part, as those of parts of a batch.
            let wave = |scale: f64| {
                let place = Tensor::arange(gradients.values.numel() as i64, (Kind::Double, gradients.values.device()));
                (place * scale).sin()
            };
            let target = wave(1.7) + wave(0.377 + 0.071 * rank) * 2.0;
            let mut offset = 0;
            let loss = |tensor: &Tensor| {
                let count = tensor.numel() as i64;
                offset += count;
                (tensor * target.narrow(0, offset - count, count).view_as(tensor)).sum(Kind::Float)
            };
            let parts: Vec<Tensor> = model.parameters.iter().map(|named| &named.tensor).map(loss).collect();
            parts.into_iter().sum::<Tensor>().backward();
            gradients.finish().unwrap();
            gradients.gradients.copy()
        });
        let travelled = if gradient_dtype == GradientDtype::Bfloat16 { Kind::BFloat16 } else { Kind::Float };
        assert!(
            of_ranks[0]
                .1
                .iter()
                .all(|call| *call == Call::Other || matches!(call, Call::Sum(kind, _) if *kind == travelled))
        );
        assert!(of_ranks.iter().all(|(sum, _)| sum.equal(&of_ranks[0].0)));
        of_ranks.into_iter().next().unwrap().0.to_kind(Kind::Double)
    };
    let exact = summed(GradientDtype::Parameters);
    let distance = (summed(GradientDtype::Bfloat16) - &exact).norm() / exact.norm();
    f64::try_from(distance).unwrap()
}

/// docs/numerics.md has these figures.
#[test]
fn gradients_travel_in_half_the_bytes_to_two_or_three_digits() {
    for (world_size, least, most) in [(2, 1e-3, 3e-3), (8, 2e-3, 8e-3)] {
        let rounding = rounding(world_size);

        assert!((least..most).contains(&rounding), "{world_size} ranks: relative L2 {rounding:.2e}");
    }
}

#[test]
fn one_rank_sends_nothing_in_another_type() {
    let mut model = network(1, 5, Kind::Float);
    let comm = Comm { gradient_dtype: GradientDtype::Bfloat16, ..Comm::default() };
    let gradients = Gradients::flatten(&mut model, Arc::new(comm::Single), &comm).unwrap();
    (&model.parameters[0].tensor * (1.0 + 1e-5)).sum(Kind::Float).backward();
    gradients.finish().unwrap();
    assert_eq!(f64::try_from(gradients.gradients.get(0)).unwrap(), f64::from(1.0f32 + 1e-5));
}
