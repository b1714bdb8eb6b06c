//! Tensors as a file describes them, checked before a value is touched.

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

/// More dimensions than any tensor of a network has.
const MOST_DIMENSIONS: usize = 8;

/// A view of bytes of a file.
#[derive(Debug, Clone)]
pub struct Described<'a> {
    /// The type of its elements.
    pub kind: Kind,
    /// Its sizes.
    pub shape: Vec<i64>,
    /// For each dimension, the elements from one value to the next.
    strides: Vec<i64>,
    /// From its first to its last element, little-endian.
    bytes: &'a [u8],
}

impl<'a> Described<'a> {
    /// The tensor that begins `offset` elements into `storage`.
    ///
    /// # Errors
    /// Negative numbers; elements outside of the storage.
    pub fn new(kind: Kind, storage: &'a [u8], offset: i64, shape: Vec<i64>, strides: Vec<i64>) -> Result<Self> {
        ensure!(
            shape.len() == strides.len() && shape.len() <= MOST_DIMENSIONS,
            "a tensor of {} dimensions",
            shape.len()
        );
        ensure!([&[offset], &shape[..], &strides].concat().iter().all(|&number| number >= 0), "a negative size");
        let size = kind.elt_size_in_bytes();
        let count = shape.iter().try_fold(size as i64, |count, &size| count.checked_mul(size));
        let elements = shape.iter().zip(&strides);
        let last = elements
            .clone()
            .try_fold(offset, |last, (&size, &stride)| last.checked_add((size - 1).max(0).checked_mul(stride)?));
        let (count, last) = count.zip(last).context("a tensor larger than any memory")?;
        let bytes = if count == 0 {
            &[]
        } else {
            let end = usize::try_from(last)?.checked_add(1).and_then(|end| end.checked_mul(size));
            let range = end.and_then(|end| storage.get(offset as usize * size..end));
            range.with_context(|| format!("a tensor of shape {shape:?} that reaches beyond its storage"))?
        };
        Ok(Self { kind, shape, strides, bytes })
    }

    /// The contiguous tensor whose elements are `bytes`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn contiguous(kind: Kind, bytes: &'a [u8], shape: Vec<i64>) -> Result<Self> {
        let strides = strides(&shape);
        Self::new(kind, bytes, 0, shape, strides)
    }

    /// The bytes from its first to its last element.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of its values; elements that share memory count once each.
    pub fn size(&self) -> usize {
        self.shape.iter().fold(self.kind.elt_size_in_bytes(), |count, &size| count.saturating_mul(size as usize))
    }

    /// The number of its values.
    pub fn count(&self) -> usize {
        self.size() / self.kind.elt_size_in_bytes()
    }

    /// Its values, in memory of their own.
    pub fn tensor(&self) -> Tensor {
        if self.strides == strides(&self.shape) || self.size() == 0 {
            return Tensor::from_data_size(self.bytes, &self.shape, self.kind);
        }
        let length = (self.bytes.len() / self.kind.elt_size_in_bytes()) as i64;
        let line = Tensor::from_data_size(self.bytes, &[length], self.kind);
        line.as_strided(&self.shape, &self.strides, 0).contiguous()
    }
}

/// The strides of a contiguous tensor.
pub fn strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1i64; shape.len()];
    for place in (1..shape.len()).rev() {
        strides[place - 1] = strides[place].saturating_mul(shape[place].max(1));
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(count: usize) -> Vec<u8> {
        (0..count).flat_map(|number| (number as f32).to_le_bytes()).collect()
    }

    #[test]
    fn views_of_every_kind_have_the_values_of_pytorch() {
        let bytes = line(24);
        let all = Tensor::arange(24, tch::kind::FLOAT_CPU);
        for (offset, shape, strides) in [
            (0, vec![24], vec![1]),
            (0, vec![2, 3, 4], vec![12, 4, 1]),
            (4, vec![2, 3], vec![3, 1]),
            (0, vec![4, 6], vec![1, 4]),
            (1, vec![3, 2], vec![2, 8]),
            (7, vec![], vec![]),
            (3, vec![5, 2], vec![0, 1]),
            (24, vec![0, 3], vec![3, 1]),
            (0, vec![2, 1, 3], vec![3, 99, 1]),
        ] {
            let described = Described::new(Kind::Float, &bytes, offset, shape.clone(), strides.clone()).unwrap();
            let expected = all.as_strided(&shape, &strides, offset);
            let found = described.tensor();
            assert_eq!(found.size(), shape);
            assert!(found.equal(&expected) && found.is_contiguous(), "{shape:?} {strides:?} from {offset}");
            assert_eq!(described.count(), expected.numel());
        }
    }

    #[test]
    fn what_lies_outside_of_the_storage_is_refused() {
        let bytes = line(6);
        for (offset, shape, strides) in [
            (0, vec![7], vec![1]),
            (1, vec![2, 3], vec![3, 1]),
            (0, vec![2, 2], vec![5, 1]),
            (6, vec![], vec![]),
            (-1, vec![2], vec![1]),
            (5, vec![2], vec![-1]),
            (0, vec![-2], vec![1]),
            (0, vec![2], vec![1, 1]),
            (0, vec![1; 9], vec![1; 9]),
            (i64::MAX, vec![2], vec![i64::MAX]),
            (0, vec![i64::MAX, i64::MAX], vec![0, 0]),
            (i64::MAX / 4 + 1, vec![1], vec![1]),
        ] {
            assert!(Described::new(Kind::Float, &bytes, offset, shape.clone(), strides).is_err(), "{shape:?} {offset}");
        }
    }

    proptest! {
        #[test]
        fn no_numbers_make_it_panic(
            offset in any::<i64>(), shape in prop::collection::vec(-2i64..9, 0..4), strides in prop::collection::vec(-1i64..9, 0..4),
            large in any::<i64>(), place in 0usize..8,
        ) {
            let (mut shape, mut strides) = (shape, strides);
            strides.resize(shape.len(), 1);
            let mut offset = offset % 7;
            match place {
                0 => offset = large,
                1 => shape.iter_mut().take(1).for_each(|size| *size = large),
                2 => strides.iter_mut().take(1).for_each(|stride| *stride = large),
                _ => {}
            }
            if let Ok(described) = Described::new(Kind::Float, &line(40), offset, shape, strides)
                && described.size() < 1 << 20
            {
                prop_assert_eq!(described.tensor().numel(), described.count());
            }
        }
    }
}
