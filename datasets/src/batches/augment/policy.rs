//! Policies: which operations change an image, and how much.

use serde::{Deserialize, Serialize};

use super::idbh::{self, Idbh};
use super::pixels::Operation;
use super::stream::Stream;

/// A published choice of operations.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// AutoAugment's policy for CIFAR-10: one of 25 pairs of operations (Cubuk et al. 2019), as torchvision has it.
    AutoAugment,
    /// RandAugment: two operations of magnitude 9 of 31 (Cubuk et al. 2020), as torchvision has it.
    RandAugment,
    /// TrivialAugmentWide: one operation of any magnitude (Müller and Hutter 2021), as torchvision has it.
    TrivialAugment,
    /// IDBH for CIFAR-10 (Li and Spratling 2023), with half of the images partly erased.
    IdbhWeak,
    /// IDBH for CIFAR-10, with every image partly erased.
    IdbhStrong,
    /// IDBH for SVHN.
    IdbhSvhn,
}

impl Policy {
    /// Whether it crops images itself.
    pub fn crops(self) -> bool {
        self.idbh().is_some()
    }

    /// The most pixels that it cuts off along one side.
    pub(super) fn cropped(self) -> usize {
        self.idbh().map_or(0, |idbh| idbh.crop)
    }

    fn idbh(self) -> Option<&'static Idbh> {
        match self {
            Self::AutoAugment | Self::RandAugment | Self::TrivialAugment => None,
            Self::IdbhWeak => Some(&idbh::WEAK),
            Self::IdbhStrong => Some(&idbh::STRONG),
            Self::IdbhSvhn => Some(&idbh::SVHN),
        }
    }

    /// Changes `image` (channels x height x width bytes) in place.
    pub(super) fn apply(self, shape: [usize; 3], draws: &mut Stream, image: &mut [u8], scratch: &mut Vec<u8>) {
        let [_, height, width] = shape;
        if let Some(idbh) = self.idbh() {
            return idbh.apply(shape, draws, image, scratch);
        }
        match self {
            Self::AutoAugment => {
                let pair = &AUTO_AUGMENT[draws.below(AUTO_AUGMENT.len())];
                // Both positions draw, whether or not they act.
                let [first, second] = [0, 1].map(|_| (draws.uniform(), draws.coin()));
                for (&(kind, probability, level), (drawn, positive)) in pair.iter().zip([first, second]) {
                    if drawn <= probability {
                        NARROW.operation(kind, [height, width], (level, 10), !positive).apply(shape, image, scratch);
                    }
                }
            }
            Self::RandAugment => {
                for _ in 0..2 {
                    let (kind, negative) = (SPACE[draws.below(SPACE.len())], draws.coin());
                    NARROW.operation(kind, [height, width], (9, 31), negative).apply(shape, image, scratch);
                }
            }
            Self::TrivialAugment => {
                let (kind, level, negative) = (SPACE[draws.below(SPACE.len())], draws.below(31), draws.coin());
                WIDE.operation(kind, [height, width], (level, 31), negative).apply(shape, image, scratch);
            }
            // Above.
            Self::IdbhWeak | Self::IdbhStrong | Self::IdbhSvhn => {}
        }
    }
}

/// An operation without its magnitude.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
    Invert,
}

use Kind::{
    AutoContrast, Brightness, Color, Contrast, Equalize, Identity, Invert, Posterize, Rotate, Sharpness, ShearX,
    ShearY, Solarize, TranslateX, TranslateY,
};

/// The operations of RandAugment and TrivialAugment, each equally likely.
const SPACE: [Kind; 14] = [
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
];

/// Pairs of an operation, its probability and its level of 10.
#[rustfmt::skip]
const AUTO_AUGMENT: [[(Kind, f64, usize); 2]; 25] = [
    [(Invert, 0.1, 0), (Contrast, 0.2, 6)],
    [(Rotate, 0.7, 2), (TranslateX, 0.3, 9)],
    [(Sharpness, 0.8, 1), (Sharpness, 0.9, 3)],
    [(ShearY, 0.5, 8), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.5, 0), (Equalize, 0.9, 0)],
    [(ShearY, 0.2, 7), (Posterize, 0.3, 7)],
    [(Color, 0.4, 3), (Brightness, 0.6, 7)],
    [(Sharpness, 0.3, 9), (Brightness, 0.7, 9)],
    [(Equalize, 0.6, 0), (Equalize, 0.5, 0)],
    [(Contrast, 0.6, 7), (Sharpness, 0.6, 5)],
    [(Color, 0.7, 7), (TranslateX, 0.5, 8)],
    [(Equalize, 0.3, 0), (AutoContrast, 0.4, 0)],
    [(TranslateY, 0.4, 3), (Sharpness, 0.2, 6)],
    [(Brightness, 0.9, 6), (Color, 0.2, 8)],
    [(Solarize, 0.5, 2), (Invert, 0.0, 0)],
    [(Equalize, 0.2, 0), (AutoContrast, 0.6, 0)],
    [(Equalize, 0.2, 0), (Equalize, 0.6, 0)],
    [(Color, 0.9, 9), (Equalize, 0.6, 0)],
    [(AutoContrast, 0.8, 0), (Solarize, 0.2, 8)],
    [(Brightness, 0.1, 3), (Color, 0.7, 0)],
    [(Solarize, 0.4, 5), (AutoContrast, 0.9, 0)],
    [(TranslateY, 0.9, 9), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.9, 0), (Solarize, 0.8, 3)],
    [(Equalize, 0.8, 0), (Invert, 0.1, 0)],
    [(TranslateY, 0.7, 9), (AutoContrast, 0.9, 0)],
];

/// The largest magnitudes of a policy.
struct Ranges {
    shear: f32,
    /// In pixels, of a side of so many.
    translate: fn(usize) -> f32,
    degrees: f32,
    /// The most by which a factor differs from 1.
    factor: f32,
    /// The bits that posterize takes away.
    bits: f64,
}

const NARROW: Ranges = Ranges {
    shear: 0.3,
    translate: |side| (150.0 / 331.0 * side as f64) as f32,
    degrees: 30.0,
    factor: 0.9,
    bits: 4.0,
};

const WIDE: Ranges = Ranges { shear: 0.99, translate: |_| 32.0, degrees: 135.0, factor: 0.99, bits: 6.0 };

impl Ranges {
    /// The operation at a level of so many, on an image of [height, width].
    fn operation(
        &self,
        kind: Kind,
        [height, width]: [usize; 2],
        (level, levels): (usize, usize),
        negative: bool,
    ) -> Operation {
        let magnitude = |most: f32| {
            let value = f64::from(between(0.0, most, level, levels));
            if negative { -value } else { value }
        };
        let factor = || (1.0 + magnitude(self.factor)) as f32;
        match kind {
            Identity => Operation::Identity,
            ShearX => Operation::ShearX(magnitude(self.shear), 0.0),
            ShearY => Operation::ShearY(magnitude(self.shear), 0.0),
            TranslateX => Operation::TranslateX(magnitude((self.translate)(width)) as i32),
            TranslateY => Operation::TranslateY(magnitude((self.translate)(height)) as i32),
            Rotate => Operation::Rotate(magnitude(self.degrees)),
            Brightness => Operation::Brightness(factor()),
            Color => Operation::Color(factor()),
            Contrast => Operation::Contrast(factor()),
            Sharpness => Operation::Sharpness(factor()),
            Posterize => {
                let away = (level as f64 / ((levels - 1) as f64 / self.bits)).round_ties_even();
                Operation::Posterize(8 - away as u32)
            }
            Solarize => Operation::Solarize(f64::from(between(255.0, 0.0, level, levels))),
            AutoContrast => Operation::AutoContrast,
            Equalize => Operation::Equalize,
            Invert => Operation::Invert,
        }
    }
}

/// The number at `level` of `levels` equally spaced ones, in single precision and from the nearer end.
fn between(first: f32, last: f32, level: usize, levels: usize) -> f32 {
    let step = (last - first) / (levels - 1) as f32;
    if level < levels / 2 { first + step * level as f32 } else { last - step * (levels - 1 - level) as f32 }
}

#[cfg(test)]
mod tests;
