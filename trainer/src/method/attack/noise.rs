//! The random numbers of a batch as a function of its samples. Integer tensor operations give the same bits on every
//! rank and device and in every batch. `datasets::random` defines the same function for single numbers.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use datasets::Draws;
use datasets::random::MIX32;
use tch::{Device, Kind, Tensor, no_grad};

use crate::system::transfer::on_device;

/// The keys of a batch's samples.
pub struct Noise {
    low: Tensor,
    high: Tensor,
}

impl Noise {
    /// The keys that `draws` gives to `samples`.
    pub fn new(draws: &Draws, samples: &[u64], device: Device) -> Self {
        let keys: Vec<u64> = samples.iter().map(|&sample| draws.key(sample)).collect();
        let half = |shift: u32| {
            let halves: Vec<i64> = keys.iter().map(|key| i64::from((key >> shift) as u32)).collect();
            on_device(&Tensor::from_slice(&halves).view([-1, 1]), device)
        };
        Self { low: half(0), high: half(32) }
    }

    /// The noise of several batches, one after another.
    pub fn joined(parts: &[Self]) -> Self {
        let join = |half: fn(&Self) -> &Tensor| Tensor::cat(&parts.iter().map(half).collect::<Vec<_>>(), 0);
        Self { low: join(|part| &part.low), high: join(|part| &part.high) }
    }

    /// A copy in memory of its own.
    pub fn copy(&self) -> Self {
        Self { low: self.low.copy(), high: self.high.copy() }
    }

    /// Copies the keys of `other`, of as many samples, into this memory.
    pub fn take(&self, other: &Self) {
        self.low.shallow_clone().copy_(&other.low);
        self.high.shallow_clone().copy_(&other.high);
    }

    /// The noise of these rows.
    pub fn rows(&self, rows: &Range<i64>) -> Self {
        let cut = |keys: &Tensor| keys.narrow(0, rows.start, rows.end - rows.start);
        Self { low: cut(&self.low), high: cut(&self.high) }
    }

    /// Standard normal numbers in the shape `[N, ...]` and type of `like`, to 16 bits. They come from a table:
    /// logarithms and cosines differ from device to device.
    pub fn normal(&self, like: &Tensor) -> Tensor {
        let place = (self.uniform(&like.to_kind(Kind::Double)) * QUANTILES as f64).to_kind(Kind::Int64);
        no_grad(|| quantiles(like.device()).to_kind(like.kind()).take(&place))
    }

    /// Uniform numbers in [0, 1) in the shape `[N, ...]` and type of `like`; element e of a sample is its e-th number.
    pub fn uniform(&self, like: &Tensor) -> Tensor {
        let samples = like.size()[0];
        let elements = if samples == 0 { 0 } else { like.numel() as i64 / samples };
        self.uniform_from(0, elements, like.kind()).view_as(like)
    }

    /// The numbers `first..first + count` of each sample, uniform in [0, 1): `[N, count]` of type `kind`.
    pub fn uniform_from(&self, first: i64, count: i64, kind: Kind) -> Tensor {
        no_grad(|| {
            let element = Tensor::arange_start(first, first + count, (Kind::Int64, self.low.device())).unsqueeze(0);
            let bits = mix32(element.bitwise_xor_tensor(&self.low));
            let bits = mix32((bits + &self.high).bitwise_and_(0xffff_ffff));
            bits.bitwise_right_shift_tensor_scalar(8).to_kind(kind) / f64::from(1u32 << 24)
        })
    }
}

/// The number of equal parts of the normal distribution.
const QUANTILES: i64 = 1 << 16;

/// The middle of each part, float64: the quantile function at (i + 1/2) / 65,536. The CPU computes it once. Each device
/// keeps its copy, since captured work refers to it.
fn quantiles(device: Device) -> Tensor {
    static TABLES: Mutex<Vec<(Device, Tensor)>> = Mutex::new(vec![]);
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, table)) = tables.iter().find(|(known, _)| *known == device) {
        return table.shallow_clone();
    }
    let parts = Tensor::arange(QUANTILES, (Kind::Double, Device::Cpu));
    let middles = ((parts + 0.5) / QUANTILES as f64) * 2.0 - 1.0;
    let table = on_device(&(middles.erfinv() * 2f64.sqrt()), device);
    tables.push((device, table.shallow_clone()));
    table
}

/// The bijection of 32-bit integers of `datasets::random`, on int64 lanes whose products wrap modulo 2^64.
fn mix32(value: Tensor) -> Tensor {
    MIX32.iter().fold(value, |mut value, &(shift, multiplier)| {
        let shifted = value.bitwise_right_shift_tensor_scalar(i64::from(shift));
        let mixed = value.bitwise_xor_tensor_(&shifted);
        if multiplier == 1 {
            return mixed;
        }
        (mixed * i64::from(multiplier)).bitwise_and_(0xffff_ffff)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datasets::random::{Purpose, uniform};

    #[test]
    fn tensors_hold_the_same_numbers_as_the_host_function() {
        let draws = Draws::new(3, Purpose::AttackStart, 11);
        let samples = [0u64, 5, 49_999, u64::from(u32::MAX) + 7];
        let noise = Noise::new(&draws, &samples, Device::Cpu);
        let drawn = noise.uniform(&Tensor::zeros([4, 3, 8, 8], (Kind::Float, Device::Cpu)));
        for (row, &sample) in samples.iter().enumerate() {
            let values = Vec::<f64>::try_from(drawn.get(row as i64).flatten(0, -1).to_kind(Kind::Double)).unwrap();
            for (element, value) in values.into_iter().enumerate() {
                assert_eq!(value, uniform(draws.key(sample), element as u32));
            }
        }
    }

    #[test]
    fn numbers_from_the_middle_are_the_same_numbers() {
        let noise = Noise::new(&Draws::new(3, Purpose::Evaluation(2), 0), &[4, 9], Device::Cpu);
        let whole = noise.uniform(&Tensor::zeros([2, 40], (Kind::Double, Device::Cpu)));
        assert!(noise.uniform_from(13, 5, Kind::Double).equal(&whole.narrow(1, 13, 5)));
    }

    #[test]
    fn normal_numbers_have_the_moments_of_the_law() {
        let samples: Vec<u64> = (0..64).collect();
        let noise = Noise::new(&Draws::new(3, Purpose::AttackStart, 1), &samples, Device::Cpu);
        let drawn = noise.normal(&Tensor::zeros([64, 3, 32, 32], (Kind::Double, Device::Cpu)));
        let moment = |power: f64| f64::try_from(drawn.pow_tensor_scalar(power).mean(Kind::Double)).unwrap();
        // 196,608 numbers: standard errors of 0.0023, 0.0032 and 0.022.
        assert!(moment(1.0).abs() < 0.012 && (moment(2.0) - 1.0).abs() < 0.016 && (moment(4.0) - 3.0).abs() < 0.11);
        assert_eq!(
            f64::try_from(quantiles(Device::Cpu).get(0)).unwrap(),
            -f64::try_from(quantiles(Device::Cpu).get(QUANTILES - 1)).unwrap()
        );
    }

    /// The rank and the part of the batch do not change a bit of a sample's numbers.
    #[test]
    fn samples_have_their_numbers_on_any_number_of_ranks() {
        let draws = Draws::new(7, Purpose::AttackStart, 2);
        let start =
            |noise: &Noise, count: usize| noise.uniform(&Tensor::zeros([count as i64, 3, 4, 4], tch::kind::FLOAT_CPU));
        let noise = |samples: &[u64]| Noise::new(&draws, samples, Device::Cpu);
        let samples: Vec<u64> = (0..11).map(|sample| sample * 37 % 50).collect();
        let whole = start(&noise(&samples), 11);
        for world_size in 2..=4 {
            for rank in 0..world_size {
                let slots: Vec<usize> = datasets::Shard { rank, world_size }.slots(samples.len()).collect();
                let mine: Vec<u64> = slots.iter().map(|&slot| samples[slot]).collect();
                let rows = Tensor::from_slice(&slots.iter().map(|&slot| slot as i64).collect::<Vec<_>>());
                assert!(
                    start(&noise(&mine), mine.len()).equal(&whole.index_select(0, &rows)),
                    "rank {rank} of {world_size}"
                );
            }
        }
        assert!(start(&noise(&samples).rows(&(3..7)), 4).equal(&whole.narrow(0, 3, 4)));
    }

    #[test]
    fn an_empty_batch_has_no_numbers() {
        let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &[], Device::Cpu);
        assert_eq!(noise.uniform(&Tensor::zeros([0, 3, 8, 8], tch::kind::FLOAT_CPU)).size(), [0, 3, 8, 8]);
    }
}
