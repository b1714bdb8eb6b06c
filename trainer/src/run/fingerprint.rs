//! Numbers that stand for the bits of tensors. They are sums of integers on the device, so neither the order of the additions nor
//! the number of threads matters: equal bits give equal numbers everywhere.

use anyhow::Result;
use tch::{Device, Kind, Tensor, no_grad};

use crate::system::transfer;

/// The values that are taken at once. They bound the memory of a fingerprint.
const BLOCK: i64 = 1 << 20;

/// A number for each of `tensors`, which share a device. Tensors that differ in one value have different numbers; others have
/// equal ones once in 2^60 or so.
///
/// # Errors
/// libtorch's error of the device.
pub fn fingerprints<'a>(tensors: impl Iterator<Item = &'a Tensor> + Clone) -> Result<Vec<u64>> {
    let Some(first) = tensors.clone().next() else { return Ok(vec![]) };
    let largest = tensors.clone().map(Tensor::numel).max().unwrap_or(0) as i64;
    let weights = weights(largest.min(BLOCK), first.device());
    let numbers: Vec<Tensor> = tensors.map(|tensor| no_grad(|| fingerprint(tensor, &weights))).collect();
    // A float64 holds 32 bits and not 64.
    let numbers = Tensor::stack(&numbers, 0);
    let (low, high) = (numbers.bitwise_and(0xffff_ffff), numbers.bitwise_right_shift_tensor_scalar(32));
    let halves = transfer::read(&Tensor::stack(&[low, high.bitwise_and(0xffff_ffff)], 0))?;
    let (low, high) = halves.split_at(halves.len() / 2);
    Ok(low.iter().zip(high).map(|(low, high)| *low as u64 | (*high as u64) << 32).collect())
}

/// An odd number for each place in a block: an odd multiple of a difference is not 0 modulo 2^64.
fn weights(count: i64, device: Device) -> Tensor {
    let places = Tensor::arange(count, (Kind::Int64, device));
    (places * 2_654_435_761_i64).bitwise_and(0xffff_ffff).bitwise_or(1)
}

/// The weighted sum of the bits of `tensor`, modulo 2^64.
fn fingerprint(tensor: &Tensor, weights: &Tensor) -> Tensor {
    let integers = match tensor.kind().elt_size_in_bytes() {
        8 => Kind::Int64,
        4 => Kind::Int,
        2 => Kind::Int16,
        _ => Kind::Int8,
    };
    let bits = tensor.detach().flatten(0, -1).view_dtype(integers);
    let (mut sum, mut multiplier) = (Tensor::zeros([], (Kind::Int64, tensor.device())), 1);
    for block in bits.split(BLOCK, 0) {
        let weighted = block.to_kind(Kind::Int64) * weights.narrow(0, 0, block.numel() as i64);
        sum += weighted.sum(Kind::Int64) * multiplier;
        multiplier += 2;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pattern;

    fn one(tensor: &Tensor) -> u64 {
        fingerprints([tensor].into_iter()).unwrap()[0]
    }

    /// The definition, value by value.
    #[test]
    fn a_number_is_the_weighted_sum_of_the_bits() {
        let values: Vec<f32> = vec![0.0, -0.0, 1.5, f32::NAN, -3.25e-12];
        let weight = |place: u64| ((place * 2_654_435_761) & 0xffff_ffff) | 1;
        let sum = values.iter().zip(0..).fold(0u64, |sum, (value, place)| {
            sum.wrapping_add(i64::from(value.to_bits() as i32).wrapping_mul(weight(place) as i64) as u64)
        });
        assert_eq!(one(&Tensor::from_slice(&values)), sum);
    }

    #[test]
    fn any_flipped_bit_and_any_two_exchanged_values_change_it() {
        for kind in [Kind::Float, Kind::Double, Kind::BFloat16] {
            let values = pattern(300, 3).to_kind(kind);
            let number = one(&values);
            assert_eq!(number, one(&values.view([3, 100]).copy()));
            let integers = if kind == Kind::Double { Kind::Int64 } else { Kind::Int };
            let bits =
                if kind == Kind::BFloat16 { values.view_dtype(Kind::Int16) } else { values.view_dtype(integers) };
            for place in [0, 1, 150, 299] {
                for bit in 0..8 * kind.elt_size_in_bytes() as i64 - 1 {
                    let changed = bits.copy();
                    let flipped = changed.get(place).bitwise_xor(1i64 << bit);
                    changed.get(place).copy_(&flipped);
                    assert_ne!(one(&changed), number, "{kind:?}: bit {bit} of value {place}");
                }
            }
            let exchanged = values.copy();
            exchanged.get(7).copy_(&values.get(8));
            exchanged.get(8).copy_(&values.get(7));
            assert_ne!(one(&exchanged), number, "{kind:?}");
        }
    }

    #[test]
    fn a_tensor_of_several_blocks_is_known_by_each_of_them() {
        let count = 2 * BLOCK + 5;
        let values = Tensor::arange(count, (Kind::Float, Device::Cpu));
        let number = one(&values);
        for place in [3, BLOCK + 3, 2 * BLOCK + 3] {
            let changed = values.copy();
            let _ = changed.get(place).fill_(-1.0);
            assert_ne!(one(&changed), number, "{place}");
        }
        // Whole blocks that are exchanged.
        let blocks = values.split(BLOCK, 0);
        assert_ne!(one(&Tensor::cat(&[&blocks[1], &blocks[0], &blocks[2]], 0)), number);
        assert_eq!(fingerprints([&values, &values].into_iter()).unwrap(), [number; 2]);
        assert!(fingerprints(std::iter::empty()).unwrap().is_empty());
    }
}
