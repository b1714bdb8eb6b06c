//! Which samples of each global batch are this rank's.

/// One rank's part of every global batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// This rank, below `world_size`.
    pub rank: usize,
    /// The number of ranks, at least 1.
    pub world_size: usize,
}

impl Shard {
    /// This rank's slots of a global batch of `count`: every `world_size`-th, from `rank` on.
    ///
    /// Ranks differ by at most one sample, and taking turns over the ranks gives the global order back.
    pub fn slots(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        (self.rank..count).step_by(self.world_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_slot_belongs_to_one_rank(count in 0usize..500, world_size in 1usize..17) {
            let mut slots = Vec::new();
            for rank in 0..world_size {
                let own: Vec<_> = Shard { rank, world_size }.slots(count).collect();
                prop_assert!(own.len() == count / world_size || own.len() == count.div_ceil(world_size));
                slots.extend(own);
            }
            slots.sort_unstable();
            prop_assert!(slots.into_iter().eq(0..count));
        }
    }
}
