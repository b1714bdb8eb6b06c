//! Random crops and flips of bytes: a pure function of (seed, epoch, sample).

use serde::{Deserialize, Serialize};

use crate::ground::error::UserError;
use crate::ground::random::{Draws, bits};

/// How training images are varied, the same way for all channels of an image.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Black pixels added on each side before cutting out an image of the old size at random; 0 for none.
    pub crop: usize,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
}

impl Augment {
    /// Refuses a padding that could leave nothing of an image of `shape` (channels, height, width).
    pub fn check(&self, shape: [usize; 3]) -> Result<(), UserError> {
        let limit = shape[1].min(shape[2]);
        if self.crop < limit {
            return Ok(());
        }
        Err(UserError::expected(format!("less than the {limit} pixels of an image"))
            .key("data.augment.crop")
            .value(self.crop))
    }

    /// Varies `image` (channels x height x width bytes) in place.
    ///
    /// The result depends only on `draws` (seed and epoch) and on `sample` (the image). The sample's elements 0 and
    /// 1 are the vertical and horizontal offset of the crop, each uniform in `0..=2 * crop`; element 2 is the flip.
    /// `scratch` is working memory, kept by the caller so that it is allocated once.
    pub fn apply(&self, shape: [usize; 3], draws: &Draws, sample: u64, image: &mut [u8], scratch: &mut Vec<u8>) {
        let [_, height, width] = shape;
        let offsets = u32::try_from(self.crop).unwrap_or(u32::MAX).saturating_mul(2).saturating_add(1);
        let [down, right] = [0, 1].map(|element| draws.below(sample, element, offsets) as usize);
        // The highest of 32 random bits is what `uniform < 1/2` asks for.
        let flip = self.flip && bits(draws.key(sample), 2) >> 31 == 0;

        scratch.clear();
        scratch.extend_from_slice(image);
        // Columns `left..left + kept` of the result come from columns `from..` of the image, the others are padding.
        let (left, from) = (self.crop.saturating_sub(right).min(width), right.saturating_sub(self.crop).min(width));
        let kept = width - left.max(from);
        for (plane, old) in image.chunks_exact_mut(height * width).zip(scratch.chunks_exact(height * width)) {
            for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                let Some(old_y) = (y + down).checked_sub(self.crop).filter(|&old_y| old_y < height) else {
                    row.fill(0);
                    continue;
                };
                let old = &old[old_y * width + from..][..kept];
                if flip {
                    let (right, rest) = row.split_at_mut(width - left - kept);
                    let (middle, rest) = rest.split_at_mut(kept);
                    right.fill(0);
                    middle.iter_mut().zip(old.iter().rev()).for_each(|(new, &old)| *new = old);
                    rest.fill(0);
                } else {
                    row[..left].fill(0);
                    row[left..left + kept].copy_from_slice(old);
                    row[left + kept..].fill(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Purpose;
    use crate::ground::random::uniform;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Pads, cuts out and mirrors, pixel by pixel.
    fn naive(
        [channels, height, width]: [usize; 3],
        image: &[u8],
        crop: usize,
        [down, right]: [usize; 2],
        flip: bool,
    ) -> Vec<u8> {
        let mut padded = vec![vec![vec![0; width + 2 * crop]; height + 2 * crop]; channels];
        for c in 0..channels {
            for y in 0..height {
                for x in 0..width {
                    padded[c][y + crop][x + crop] = image[(c * height + y) * width + x];
                }
            }
        }
        let mut result = Vec::new();
        for plane in &padded {
            for y in 0..height {
                let mut row = plane[y + down][right..right + width].to_vec();
                if flip {
                    row.reverse();
                }
                result.extend(row);
            }
        }
        result
    }

    fn image(shape: [usize; 3]) -> Vec<u8> {
        (0..shape.iter().product()).map(|place: usize| (place * 37 + 1) as u8).collect()
    }

    proptest! {
        #[test]
        fn it_equals_padding_then_cutting_then_mirroring(
            channels in 1usize..4, height in 1usize..9, width in 1usize..9, crop in 0usize..12, flip: bool,
            seed: u64, sample: u64,
        ) {
            let shape = [channels, height, width];
            let draws = Draws::new(seed, Purpose::Augment, 3);
            let mut varied = image(shape);
            Augment { crop, flip }.apply(shape, &draws, sample, &mut varied, &mut Vec::new());
            let offsets = [0, 1].map(|element| draws.below(sample, element, 2 * crop as u32 + 1) as usize);
            let flipped = flip && uniform(draws.key(sample), 2) < 0.5;
            prop_assert_eq!(varied, naive(shape, &image(shape), crop, offsets, flipped));
        }
    }

    #[test]
    fn every_offset_and_both_flips_occur_evenly() {
        let shape = [1, 9, 9];
        let draws = Draws::new(1, Purpose::Augment, 0);
        let (mut counts, mut scratch) = (BTreeMap::new(), Vec::new());
        let samples = 81 * 2 * 100;
        for sample in 0..samples {
            // One bright pixel in the middle of a 9 x 9 image shows both offsets, and the other tells the flip.
            let mut varied = vec![0; 81];
            (varied[40], varied[41]) = (2, 1);
            Augment { crop: 4, flip: true }.apply(shape, &draws, sample, &mut varied, &mut scratch);
            let at = varied.iter().position(|&pixel| pixel == 2).expect("the middle stays in every crop");
            let flipped = at % 9 > 0 && varied[at - 1] == 1 || at % 9 == 0 && varied.get(1 + at) != Some(&1);
            *counts.entry((at, flipped)).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 81 * 2);
        let chi_squared: f64 = counts.values().map(|&count| (f64::from(count) - 100.0).powi(2) / 100.0).sum();
        // 161 degrees of freedom: the 0.01 % and 99.99 % points are about 103 and 236.
        assert!((103.0..236.0).contains(&chi_squared), "chi squared {chi_squared}: {counts:?}");
    }

    #[derive(Deserialize)]
    struct Case {
        shape: [usize; 3],
        crop: usize,
        flip: bool,
        seed: u64,
        epoch: u64,
        samples: Vec<u64>,
        images: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Fixture {
        cases: Vec<Case>,
    }

    #[test]
    fn it_equals_pad_crop_and_flip_of_pytorch() -> anyhow::Result<()> {
        let text = include_str!("../../../tests/fixtures/augment.json");
        let fixture: Fixture = serde_json::from_str(text)?;
        assert!(fixture.cases.len() >= 4);
        for Case { shape, crop, flip, seed, epoch, samples, images } in fixture.cases {
            let draws = Draws::new(seed, Purpose::Augment, epoch);
            assert_eq!(samples.len(), images.len());
            for (sample, expected) in samples.into_iter().zip(images) {
                let pixel = |place: usize| ((place * 37 + place / 251) as u64 + sample % 256 * 11) as u8;
                let mut varied: Vec<u8> = (0..shape.iter().product()).map(pixel).collect();
                Augment { crop, flip }.apply(shape, &draws, sample, &mut varied, &mut Vec::new());
                let varied = base16ct::lower::encode_string(&varied);
                assert_eq!(varied, expected, "sample {sample} of {shape:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn without_crop_and_flip_nothing_changes() {
        let (shape, draws) = ([3, 5, 4], Draws::new(1, Purpose::Augment, 0));
        for sample in 0..100 {
            let mut varied = image(shape);
            Augment { crop: 0, flip: false }.apply(shape, &draws, sample, &mut varied, &mut Vec::new());
            assert_eq!(varied, image(shape));
        }
    }

    #[test]
    fn a_crop_beyond_the_image_is_refused() {
        assert!(Augment { crop: 4, flip: true }.check([3, 32, 32]).is_ok());
        let error = Augment { crop: 28, flip: true }.check([1, 28, 28]).expect_err("nothing would be left");
        assert_eq!(error.to_string(), "data.augment.crop is 28; expected less than the 28 pixels of an image");
        let mut varied = image([1, 2, 2]);
        let huge = Augment { crop: usize::MAX, flip: true };
        huge.apply([1, 2, 2], &Draws::new(1, Purpose::Augment, 0), 1, &mut varied, &mut Vec::new());
        assert_eq!(varied, [0; 4]);
    }
}
