//! Random numbers of a batch as a function of its samples, made of integer tensor operations: the same bits whatever the
//! rank, the batch and the device (see `datasets::random`, which states the same function for single numbers).

use datasets::Draws;
use datasets::random::MIX32;
use tch::{Device, Kind, Tensor, no_grad};

/// The keys of a batch's samples.
pub struct Noise {
    low: Tensor,
    high: Tensor,
}

impl Noise {
    /// The numbers that `draws` gives to `samples`.
    pub fn new(draws: &Draws, samples: &[u64], device: Device) -> Self {
        let keys: Vec<u64> = samples.iter().map(|&sample| draws.key(sample)).collect();
        let half = |shift: u32| {
            let halves: Vec<i64> = keys.iter().map(|key| i64::from((key >> shift) as u32)).collect();
            Tensor::from_slice(&halves).view([-1, 1]).to_device(device)
        };
        Self { low: half(0), high: half(32) }
    }

    /// Uniform numbers in [0, 1) in the shape `[N, ...]` and type of `like`; element e of a sample is its e-th number.
    pub fn uniform(&self, like: &Tensor) -> Tensor {
        let samples = like.size()[0];
        let elements = if samples == 0 { 0 } else { like.numel() as i64 / samples };
        no_grad(|| {
            let element = Tensor::arange(elements, (Kind::Int64, like.device())).view([1, elements]);
            let bits = mix32(element.bitwise_xor_tensor(&self.low));
            let bits = mix32((bits + &self.high).bitwise_and_(0xffff_ffff));
            let unit = bits.bitwise_right_shift_tensor_scalar(8).to_kind(like.kind()) / f64::from(1u32 << 24);
            unit.view_as(like)
        })
    }
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
    fn an_empty_batch_has_no_numbers() {
        let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &[], Device::Cpu);
        assert_eq!(noise.uniform(&Tensor::zeros([0, 3, 8, 8], tch::kind::FLOAT_CPU)).size(), [0, 3, 8, 8]);
    }
}
