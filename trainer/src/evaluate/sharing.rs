//! Rounds towards several target classes that share batches, where few images are left.

use super::rows::UNIT;
use crate::evaluate::{Outcomes, Round};

/// How many rounds from `number` on attack `pending`, its open images, in the same batches: the following target classes of
/// the same method, where this takes at most three quarters of the rows. Every rank of `ranks` finds the same number.
///
/// All target classes are tried before it is known which images fall, so a small gain in rows would be lost again.
pub(super) fn rounds_together(
    outcomes: &Outcomes,
    number: usize,
    pending: &[usize],
    ranks: usize,
    batch: usize,
) -> usize {
    let kind = |round: &Round| (round.attack, round.component);
    let alike = outcomes.rounds[number..].iter().take_while(|round| kind(round) == kind(&outcomes.rounds[number]));
    // A journal with damaged lines may know a later round of an image that is open in this one.
    let open = |round: &usize| pending.iter().all(|sample| !outcomes.is_decided(*sample, *round));
    let alike = (number..number + alike.count()).take_while(open).count();
    // No rank has more images.
    let images = pending.len().div_ceil(ranks).max(1);
    let together = alike.min(batch / images).max(1);
    let rows = |rows: usize| rows.next_multiple_of(UNIT);
    if 4 * rows(together * images) <= 3 * together * rows(images) { together } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Protocol, Suite};
    use crate::evaluate::{Decided, RoundStep};

    fn outcomes() -> Outcomes {
        let suite = Suite::named(["natural", "apgd_t"]).unwrap();
        Outcomes::new(&suite, suite.rounds(&Protocol::default(), 10), 200)
    }

    #[test]
    fn few_images_take_several_targets_at_once() {
        let outcomes = outcomes();
        let together = |round: usize, images: usize, ranks: usize| {
            let pending: Vec<usize> = (0..images).collect();
            rounds_together(&outcomes, round, &pending, ranks, 128)
        };
        assert_eq!(
            [1, 5, 9, 12, 17, 24, 64, 128, 200].map(|images| together(1, images, 1)),
            [9, 9, 9, 1, 7, 1, 1, 1, 1]
        );
        // The natural round has no target, the last one no follower.
        assert_eq!([0, 9, 10].map(|round| together(round, 1, 1)), [1, 1, 1]);
        assert_eq!([0, 8, 9].map(|round| together(round, 5, 1)), [1, 2, 1]);
        assert_eq!(together(1, 18, 2), 9);
        assert_eq!(together(1, 0, 1), 9);
    }

    #[test]
    fn rounds_that_a_journal_knows_are_not_repeated() {
        let mut outcomes = outcomes();
        let batch = Decided { samples: vec![3], fallen: "0".into(), predictions: vec![0], ..Decided::default() };
        outcomes.apply(&RoundStep { round: 4, seconds: 0.0, batches: vec![batch] }).unwrap();
        assert_eq!(rounds_together(&outcomes, 1, &[2, 3], 1, 128), 3);
        assert_eq!(rounds_together(&outcomes, 1, &[1, 2], 1, 128), 9);
    }
}
