//! A step on many ranks as a sequence of events: computations, and sums that ranks start and wait for.

/// A piece of a step. All ranks have the same pieces in the same order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Work {
    /// Seconds of computation on a rank of average speed.
    Compute(f64),
    /// A sum of this many bytes that runs beside the following work. Sums run one after another; each begins when every
    /// rank has started it.
    StartSum(f64),
    /// A wait for all started sums.
    FinishSums,
}

/// The result of a simulated step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Played {
    /// Seconds until the last rank is done.
    pub(crate) seconds: f64,
    /// Seconds that a rank waits for sums, mean over the ranks: communication that no computation hides, and waiting
    /// for slower ranks.
    pub(crate) exposed: f64,
}

/// Simulates `step`. Each rank has a factor in `slowness` by which its computations take longer. A sum of b bytes takes
/// `seconds_of_sum(b)`.
pub(crate) fn play(step: &[Work], slowness: &[f64], seconds_of_sum: impl Fn(f64) -> f64) -> Played {
    let mut clocks = vec![0.0_f64; slowness.len()];
    // When the transport has finished all sums so far.
    let mut sums_done = 0.0_f64;
    let mut waited = 0.0;
    for work in step {
        match work {
            Work::Compute(seconds) => {
                clocks.iter_mut().zip(slowness).for_each(|(clock, slowness)| *clock += seconds * slowness);
            }
            Work::StartSum(bytes) => {
                let last = clocks.iter().copied().fold(0.0, f64::max);
                sums_done = last.max(sums_done) + seconds_of_sum(*bytes);
            }
            Work::FinishSums => {
                for clock in clocks.iter_mut().filter(|clock| **clock < sums_done) {
                    waited += sums_done - *clock;
                    *clock = sums_done;
                }
            }
        }
    }
    let seconds = clocks.iter().copied().fold(0.0, f64::max);
    Played { seconds, exposed: waited / slowness.len().max(1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Backward passes that fill `buckets` equal buckets in turn.
    fn step(compute: f64, backward: f64, bytes: f64, buckets: usize) -> Vec<Work> {
        let part = |whole: f64| whole / buckets as f64;
        let bucket = [Work::Compute(part(backward)), Work::StartSum(part(bytes))];
        let mut step = vec![Work::Compute(compute)];
        (0..buckets).for_each(|_| step.extend(bucket));
        step.push(Work::FinishSums);
        step
    }

    proptest! {
        #[test]
        fn an_infinitely_fast_transport_leaves_the_computation(
            compute in 0.0f64..10.0, backward in 0.0f64..10.0, buckets in 1usize..40, ranks in 1usize..64,
        ) {
            let played = play(&step(compute, backward, 1e9, buckets), &vec![1.0; ranks], |_| 0.0);
            prop_assert!((played.seconds - compute - backward).abs() <= 1e-6 * played.seconds.max(1.0));
            prop_assert!(played.exposed <= 1e-9);
        }

        #[test]
        fn one_bucket_without_overlap_adds_its_sum(
            compute in 0.0f64..10.0, bytes in 1.0f64..1e9, latency in 0.0f64..1e-2, rate in 1e6f64..1e12, ranks in 1usize..64,
        ) {
            let one = |bytes: f64| latency + bytes / rate;
            let played = play(&step(compute, 0.0, bytes, 1), &vec![1.0; ranks], one);
            prop_assert!((played.seconds - compute - one(bytes)).abs() <= 1e-6 * played.seconds);
            prop_assert!((played.exposed - one(bytes)).abs() <= 1e-6 * played.seconds);
        }

        #[test]
        fn one_straggler_holds_up_all(
            compute in 0.1f64..10.0, slow in 1.0f64..5.0, ranks in 2usize..64, who in 0usize..64, sum in 0.0f64..1.0,
        ) {
            let mut slowness = vec![1.0; ranks];
            slowness[who % ranks] = slow;
            let played = play(&step(compute, 0.0, 1.0, 1), &slowness, |_| sum);
            prop_assert!((played.seconds - compute * slow - sum).abs() <= 1e-6 * played.seconds);
            let others = (ranks - 1) as f64 * compute * (slow - 1.0);
            prop_assert!((played.exposed - sum - others / ranks as f64).abs() <= 1e-6 * played.seconds);
        }

        #[test]
        fn sums_behind_a_long_backward_pass_are_hidden_but_for_the_last(buckets in 1usize..40, sum in 0.0f64..1.0) {
            // Each bucket's all-reduce takes no longer than the computation of the next bucket.
            let played = play(&step(1.0, buckets as f64, 1.0, buckets), &[1.0, 1.0], |_| sum);
            prop_assert!((played.exposed - sum).abs() <= 1e-6 * played.seconds);
        }

        #[test]
        fn a_transport_that_never_rests_decides(buckets in 1usize..40, backward in 0.0f64..1.0) {
            // The sums take longer than all computation: the first starts when its bucket is full, then they follow one
            // another.
            let played = play(&step(1.0, backward, 1.0, buckets), &[1.0; 3], |_| 2.0);
            let expected = 1.0 + backward / buckets as f64 + 2.0 * buckets as f64;
            prop_assert!((played.seconds - expected).abs() <= 1e-6 * expected);
        }
    }
}
