//! Randomness as a function of its purpose: nothing here has state.
//!
//! Every random number of a run is `bits(key, element)`, where the key is derived from (seed, purpose, epoch, sample).
//! Ranks, batches, threads and resumed runs therefore draw the same numbers, and a checkpoint has no generator to save.
//! The mixing of an element uses 32-bit integers only, so that tensor operations can repeat it to the bit
//! (see `trainer::attack::Noise`).

/// The purpose of a random number. Two purposes never share a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The order of an epoch's samples.
    Shuffle,
    /// Crop offsets and flips.
    Augment,
    /// The start of an attack in training.
    AttackStart,
    /// The initial values of a network's parameters.
    Initialise,
    /// The choice of held-out training samples, which select a checkpoint.
    HoldOut,
    /// The choice of the samples of a subset.
    Subset,
    /// The choice of a second source's images for the places of an epoch.
    ExtraImage,
    /// The places of the training set's own images beside them.
    ExtraPlace,
    /// The start of an evaluation attack; each attack of a suite has its own number.
    Evaluation(u32),
}

impl Purpose {
    fn number(self) -> u64 {
        match self {
            Purpose::Shuffle => 1,
            Purpose::Augment => 2,
            Purpose::AttackStart => 3,
            Purpose::Initialise => 4,
            Purpose::HoldOut => 5,
            Purpose::Subset => 6,
            Purpose::ExtraImage => 7,
            Purpose::ExtraPlace => 8,
            Purpose::Evaluation(attack) => (1 << 32) + u64::from(attack),
        }
    }
}

/// The random numbers of one purpose in one epoch.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    state: u64,
}

impl Draws {
    /// The stream of (`seed`, `purpose`, `epoch`).
    pub fn new(seed: u64, purpose: Purpose, epoch: u64) -> Self {
        let state = [seed, purpose.number(), epoch].into_iter().fold(0, |state, part| mix64(state ^ mix64(part)));
        Self { state }
    }

    /// The key of one sample's numbers, to be used with [`bits`].
    pub fn key(&self, sample: u64) -> u64 {
        mix64(self.state ^ mix64(sample))
    }

    /// An integer in `0..bound`, the `element`-th of this sample. `bound` must not be 0.
    pub fn below(&self, sample: u64, element: u32, bound: u32) -> u32 {
        // The multiplication maps 32 random bits to the range; the bias is below bound / 2^32.
        ((u64::from(bits(self.key(sample), element)) * u64::from(bound)) >> 32) as u32
    }

    /// A number in `0..bound` of this sample, of all its 64 bits: no visible bias for any number of images. 0 if `bound` is 0.
    pub fn index(&self, sample: u64, bound: usize) -> usize {
        ((u128::from(self.key(sample)) * bound as u128) >> 64) as usize
    }

    /// The numbers `0..count` in a random order (Fisher-Yates).
    pub fn permutation(&self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.index(last as u64, last + 1));
        }
        order
    }
}

/// 32 random bits: the `element`-th number of `key`.
pub fn bits(key: u64, element: u32) -> u32 {
    let (low, high) = (key as u32, (key >> 32) as u32);
    mix32(mix32(element ^ low).wrapping_add(high))
}

/// A number in [0, 1) with 24 random bits, exact in single precision.
pub fn uniform(key: u64, element: u32) -> f64 {
    f64::from(bits(key, element) >> 8) / f64::from(1u32 << 24)
}

/// The rounds of the mixing in [`bits`] as (shift, multiplier), the last with no multiplication; tensor code repeats them.
pub const MIX32: [(u32, u32); 3] = [(16, 0x7feb_352d), (15, 0x846c_a68b), (16, 1)];

/// A bijection of 32-bit integers with nearly ideal avalanche (constants: C. Wellons, "lowbias32").
fn mix32(value: u32) -> u32 {
    MIX32.iter().fold(value, |value, &(shift, multiplier)| (value ^ (value >> shift)).wrapping_mul(multiplier))
}

/// A bijection of 64-bit integers (the finaliser of SplitMix64, Steele et al. 2014).
fn mix64(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_depends_on_every_part_of_its_name() {
        let base = Draws::new(1, Purpose::Augment, 2).key(3);
        let others = [
            Draws::new(2, Purpose::Augment, 2).key(3),
            Draws::new(1, Purpose::Shuffle, 2).key(3),
            Draws::new(1, Purpose::Augment, 3).key(3),
            Draws::new(1, Purpose::Augment, 2).key(4),
            Draws::new(1, Purpose::Evaluation(2), 2).key(3),
        ];
        assert!(others.iter().all(|other| *other != base));
        assert_ne!(bits(base, 0), bits(base, 1));
    }

    #[test]
    fn streams_never_change() {
        // A change of these numbers changes every run: it needs a new format version of checkpoints and configs.
        let key = Draws::new(1, Purpose::AttackStart, 0).key(7);
        assert_eq!((key, bits(key, 0), bits(key, 3071)), FIXED);
    }
    const FIXED: (u64, u32, u32) = (7_593_505_700_338_058_643, 2_306_439_104, 2_663_793_215);

    #[test]
    fn uniforms_fill_the_unit_interval_evenly() {
        let draws = Draws::new(5, Purpose::AttackStart, 1);
        let mut counts = [0u32; 64];
        let (samples, elements) = (400, 784);
        for sample in 0..samples {
            let key = draws.key(sample);
            for element in 0..elements {
                counts[(uniform(key, element) * 64.0) as usize] += 1;
            }
        }
        let expected = (samples as f64) * f64::from(elements) / 64.0;
        let chi_squared: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        // 63 degrees of freedom: the 0.01 % and 99.99 % points are about 28 and 112.
        assert!((28.0..112.0).contains(&chi_squared), "chi squared {chi_squared}");
    }

    #[test]
    fn a_permutation_holds_every_number_once() {
        for count in [0, 1, 2, 1003] {
            let mut order = Draws::new(1, Purpose::Shuffle, 9).permutation(count);
            order.sort_unstable();
            assert!(order.into_iter().eq(0..count));
        }
    }
}
