//! Buckets: pieces of the flat buffer of gradients. Their sums over the ranks start one by one in a fixed order.
//!
//! Every rank must start the same sums in the same order. The order is that of the parameters from the last to the
//! first, about the order in which a backward pass reaches them. A full bucket waits for the buckets before it. So
//! timing and empty batches decide when a sum starts, but not which sums there are.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Error, Result, anyhow};
use comm::Communicator;
use tch::{Kind, Tensor, no_grad};

use crate::system::{Phase, summing, timeline::Timeline};

/// The buckets of one flat buffer.
pub(super) struct Buckets {
    /// The buckets, in the order in which their sums start.
    all: Vec<Bucket>,
    /// The bucket of each parameter.
    of: Vec<usize>,
    /// Whether the backward pass under way leaves complete gradients.
    expecting: bool,
    /// The number of sums that have started.
    started: usize,
    /// An error of the backward pass, which its hooks cannot return.
    failure: Option<Error>,
    ranks: Arc<dyn Communicator>,
    /// The timeline that books the time of starting sums.
    pub(super) timeline: Timeline,
}

/// A piece of the flat buffer.
struct Bucket {
    gradients: Tensor,
    /// A copy in another type, which is summed instead.
    travelling: Option<Tensor>,
    parameters: usize,
    /// The number of parameters whose gradients are missing.
    missing: usize,
}

impl Buckets {
    /// Cuts `gradients` into buckets of whole parameters. `ends` is the end of each parameter. There is at least one
    /// bucket; each holds about `most` values. Sums use the type `travelling` if it differs.
    pub(super) fn new(
        gradients: &Tensor,
        ends: &[usize],
        most: usize,
        travelling: Option<Kind>,
        ranks: Arc<dyn Communicator>,
    ) -> Self {
        let begin = |parameter: usize| if parameter == 0 { 0 } else { ends[parameter - 1] };
        let buffer = travelling.map(|kind| gradients.to_kind(kind));
        let bucket = |parameters: &Range<usize>| {
            let (from, to) = (begin(parameters.start), begin(parameters.end));
            let piece = |whole: &Tensor| whole.narrow(0, from as i64, (to - from) as i64);
            let (gradients, travelling) = (piece(gradients), buffer.as_ref().map(piece));
            Bucket { gradients, travelling, parameters: parameters.len(), missing: parameters.len() }
        };
        let cuts = cut(ends, most);
        let mut of = vec![0; ends.len()];
        cuts.iter().enumerate().for_each(|(bucket, parameters)| of[parameters.clone()].fill(bucket));
        let all = cuts.iter().map(bucket).collect();
        Self { all, of, expecting: false, started: 0, failure: None, ranks, timeline: Timeline::default() }
    }

    /// Announces that the next backward pass leaves complete gradients.
    pub(super) fn expect(&mut self) {
        self.expecting = true;
    }

    /// Takes note that a parameter's gradient is complete, and starts the sums that waited only for it.
    pub(super) fn filled(&mut self, parameter: usize) {
        if !self.expecting {
            return;
        }
        let bucket = &mut self.all[self.of[parameter]];
        match bucket.missing.checked_sub(1) {
            Some(missing) => bucket.missing = missing,
            // Its sum may be under way already.
            None => self.failure = Some(anyhow!("a second backward pass after the one that was said to be the last")),
        }
        while self.all.get(self.started).is_some_and(|bucket| bucket.missing == 0) {
            self.start_next();
        }
    }

    /// The number of sums that have started.
    #[cfg(test)]
    pub(super) fn started(&self) -> usize {
        self.started
    }

    /// Starts the sums of all remaining buckets, complete or not.
    pub(super) fn start_rest(&mut self) -> Result<()> {
        while self.started < self.all.len() {
            self.start_next();
        }
        self.failure.take().map_or(Ok(()), Err).context("the sum of the gradients over the ranks")
    }

    fn start_next(&mut self) {
        let (bucket, ranks) = (&self.all[self.started], &self.ranks);
        self.started += 1;
        let name = format!("bucket {} of {}", self.started, self.all.len());
        let started = self.timeline.during_piece(Phase::Communication, &name, || bucket.start(ranks));
        if let Err(error) = started {
            self.failure.get_or_insert(error);
        }
    }

    /// Forgets a backward pass that came to no end: the next one starts anew.
    pub(super) fn forget(&mut self) {
        self.all.iter_mut().for_each(|bucket| bucket.missing = bucket.parameters);
        (self.expecting, self.started, self.failure) = (false, 0, None);
    }

    /// Converts the finished sums to the type of the gradients and prepares for the next step.
    pub(super) fn take_sums(&mut self) {
        for bucket in &mut self.all {
            bucket.missing = bucket.parameters;
            if let Some(sum) = &bucket.travelling {
                no_grad(|| bucket.gradients.copy_(sum));
            }
        }
        (self.expecting, self.started) = (false, 0);
    }
}

impl Bucket {
    fn start(&self, ranks: &Arc<dyn Communicator>) -> Result<()> {
        let Some(travelling) = &self.travelling else { return summing::start(ranks, &self.gradients) };
        no_grad(|| travelling.shallow_clone().copy_(&self.gradients));
        summing::start(ranks, travelling)
    }
}

/// The parameters of each bucket, from the last parameter to the first. A bucket closes when it has `most` values.
fn cut(ends: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut buckets = vec![];
    let mut to = ends.len();
    for from in (0..ends.len()).rev() {
        let begin = if from == 0 { 0 } else { ends[from - 1] };
        if from == 0 || ends[to - 1] - begin >= most {
            buckets.push(from..to);
            to = from;
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_are_cut_from_the_end() {
        let ends = [10, 12, 20, 21];
        assert_eq!(cut(&ends, 1), [3..4, 2..3, 1..2, 0..1]);
        assert_eq!(cut(&ends, 9), [2..4, 0..2]);
        assert_eq!(cut(&ends, usize::MAX), vec![0..4; 1]);
        assert!(cut(&[], 5).is_empty());
    }

    proptest! {
        #[test]
        fn every_parameter_is_in_one_bucket(sizes in prop::collection::vec(1usize..300, 1..40), most in 1usize..2000) {
            let ends: Vec<usize> = sizes.iter().scan(0, |end, size| { *end += size; Some(*end) }).collect();
            let buckets = cut(&ends, most);
            let parameters: Vec<usize> = buckets.iter().rev().flat_map(Clone::clone).collect();
            prop_assert!(parameters.into_iter().eq(0..sizes.len()));
            let values = |bucket: &Range<usize>| sizes[bucket.clone()].iter().sum::<usize>();
            // Every bucket but the last is full, and would not be without its last parameter.
            prop_assert!(buckets[..buckets.len() - 1].iter().all(|bucket| values(bucket) >= most));
            prop_assert!(buckets.iter().all(|bucket| values(&(bucket.start + 1..bucket.end)) < most));
        }
    }
}
