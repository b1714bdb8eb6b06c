//! Changes of training images, on bytes: a pure function of (seed, epoch, sample).

mod idbh;
mod pixels;
pub mod policy;
mod rectangle;
mod stream;

use serde::{Deserialize, Serialize};

use self::policy::Policy;
use self::rectangle::Rectangle;
use self::stream::Stream;
use crate::ground::error::UserError;
use crate::ground::random::{Draws, bits};

/// The first random number of a policy.
const OF_POLICY: u32 = 16;

/// How training images are varied, the same way for all channels of an image: a crop, a flip, the policy, cutout and
/// CutMix, in this order.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Black pixels added on each side before cutting out an image of the old size at random; 0 for none.
    pub crop: usize,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
    /// The operations on pixels; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// The side of a square that is blackened around a random pixel; 0 for none (DeVries and Taylor 2017).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cutout: usize,
    /// The share of images that get a rectangle of another image, and a part of its label (Yun et al. 2019).
    #[serde(default, skip_serializing_if = "is_none")]
    pub cutmix: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(share: &f64) -> bool {
    *share == 0.0
}

/// What CutMix pastes into an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// The place of the other image, below the number that was given.
    pub partner: usize,
    rectangle: Rectangle,
}

impl Patch {
    /// Copies the rectangle of `partner` into `image`; both are channels x height x width bytes.
    pub fn paste(&self, shape: [usize; 3], partner: &[u8], image: &mut [u8]) {
        self.rectangle.paste(shape, partner, image);
    }

    /// The pixels of the rectangle.
    pub fn pixels(&self) -> usize {
        self.rectangle.pixels()
    }
}

impl Augment {
    /// Refuses a padding that could leave nothing of an image of `shape` (channels, height, width).
    pub fn check(&self, shape: [usize; 3]) -> Result<(), UserError> {
        let limit = shape[1].min(shape[2]);
        let cropped = self.policy.map_or(0, Policy::cropped);
        if cropped >= limit {
            return Err(UserError::expected(format!("another policy: IDBH cuts off up to {cropped} pixels of a side"))
                .key("data.augment.policy")
                .value(format!("IDBH for images of {limit} pixels")));
        }
        if self.crop < limit {
            return Ok(());
        }
        Err(UserError::expected(format!("less than the {limit} pixels of an image"))
            .key("data.augment.crop")
            .value(self.crop))
    }

    /// Varies `image` (channels x height x width bytes) in place, CutMix left out.
    ///
    /// The result depends only on `draws` (seed and epoch) and on `sample` (the image). The sample's elements 0 and
    /// 1 are the vertical and horizontal offset of the crop, each uniform in `0..=2 * crop`; element 2 is the flip, 3 and 4
    /// are the row and column of cutout. The policy takes elements from 16 on.
    /// `scratch` is working memory, kept by the caller so that it is allocated once.
    pub fn apply(&self, shape: [usize; 3], draws: &Draws, sample: u64, image: &mut [u8], scratch: &mut Vec<u8>) {
        let [_, height, width] = shape;
        self.crop_and_flip(shape, draws, sample, image, scratch);
        if let Some(policy) = self.policy {
            policy.apply(shape, &mut Stream::new(draws.key(sample), OF_POLICY), image, scratch);
        }
        if self.cutout > 0 {
            let mut draws = Stream::new(draws.key(sample), 3);
            let centre = [height, width].map(|side| draws.below(side));
            Rectangle::around(centre, [self.cutout; 2], [height, width]).blacken(shape, image);
        }
    }

    /// What CutMix pastes into the image `sample`, of `images` in all; `None` where it stays whole.
    ///
    /// Element 5 of the sample decides whether, 6 is the share L that stays, before the rectangle is clipped, uniform in
    /// [0, 1), 7 and 8 are the centre, and 9 and 10 together the partner. The sides of the rectangle are those of the
    /// image times the root of 1 - L.
    pub fn patch(&self, [_, height, width]: [usize; 3], draws: &Draws, sample: u64, images: usize) -> Option<Patch> {
        let key = draws.key(sample);
        let mut draws = Stream::new(key, 5);
        if self.cutmix == 0.0 || draws.uniform() >= self.cutmix {
            return None;
        }
        let side = (1.0 - draws.uniform()).sqrt();
        let centre = [height, width].map(|side| draws.below(side));
        let partner = (u64::from(bits(key, 9)) << 32) | u64::from(bits(key, 10));
        let partner = ((u128::from(partner) * images as u128) >> 64) as usize;
        // An even number of rows and columns, before they are clipped.
        let sides = [height, width].map(|whole| (whole as f64 * side) as usize / 2 * 2);
        Some(Patch { partner, rectangle: Rectangle::around(centre, sides, [height, width]) })
    }

    fn crop_and_flip(&self, shape: [usize; 3], draws: &Draws, sample: u64, image: &mut [u8], scratch: &mut Vec<u8>) {
        let [_, height, width] = shape;
        if self.crop == 0 && !self.flip {
            return;
        }
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
mod tests;
