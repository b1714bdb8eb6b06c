//! IDBH: crops that move, one operation on colours or shape, and erased rectangles (Li and Spratling, ICLR 2023).

use super::pixels::Operation;
use super::rectangle::Rectangle;
use super::stream::Stream;

/// The settings of one data set.
#[derive(Debug)]
pub(super) struct Idbh {
    /// The most pixels that are cut off along both sides together.
    pub(super) crop: usize,
    /// The probabilities, summed up, of colour, brightness, contrast, sharpness, contrast stretched, histogram made even, shear; the
    /// rest is rotation.
    until: [f64; 7],
    /// The largest shear in radians.
    shear: f64,
    /// The largest rotation in degrees.
    degrees: usize,
    /// How many images are partly erased.
    erase: f64,
    /// The smallest and the largest share of the image that is erased.
    area: [f64; 2],
}

const EVEN: [f64; 7] = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875];

pub(super) const WEAK: Idbh = Idbh { crop: 10, until: EVEN, shear: 0.15, degrees: 10, erase: 0.5, area: [0.02, 0.33] };
pub(super) const STRONG: Idbh = Idbh { erase: 1.0, ..WEAK };
pub(super) const SVHN: Idbh = Idbh {
    crop: 8,
    until: [0.08, 0.16, 0.2, 0.28, 0.32, 0.4, 0.7],
    shear: 0.35,
    degrees: 30,
    erase: 1.0,
    area: [0.02, 0.5],
};

/// What a moving crop cuts off and where it puts the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct CropShift {
    /// Columns and rows that are cut off.
    pub(super) cut: [usize; 2],
    /// The first column and row of the window in the image.
    pub(super) from: [usize; 2],
    /// The first column and row of the result in the padded window.
    pub(super) place: [usize; 2],
}

impl CropShift {
    fn draw(most: usize, draws: &mut Stream) -> Self {
        let strength = draws.below(most + 1);
        let across = draws.below(strength + 1);
        let cut = [across, strength - across];
        let [left, top, left_again, top_again] = [0, 1, 0, 1].map(|side| draws.below(cut[side] + 1));
        Self { cut, from: [left, top], place: [left_again, top_again] }
    }

    /// Cuts a window of the image, pads it with black and cuts out an image of the old size.
    pub(super) fn apply(self, [_, height, width]: [usize; 3], image: &mut [u8], scratch: &mut Vec<u8>) {
        scratch.clear();
        scratch.extend_from_slice(image);
        let Self { cut, from, place } = self;
        // The column `x` of the result is column `x + place - cut` of the window.
        let old = |at: usize, side: usize, size: usize| {
            let inside = (at + place[side]).checked_sub(cut[side])?;
            (inside < size.saturating_sub(cut[side])).then_some(from[side] + inside)
        };
        for (plane, before) in image.chunks_exact_mut(height * width).zip(scratch.chunks_exact(height * width)) {
            for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                let old_y = old(y, 1, height);
                for (x, pixel) in row.iter_mut().enumerate() {
                    let source = old_y.zip(old(x, 0, width));
                    *pixel = source.map_or(0, |(old_y, old_x)| before[old_y * width + old_x]);
                }
            }
        }
    }
}

impl Idbh {
    /// Changes `image` (channels x height x width bytes) in place.
    pub(super) fn apply(&self, shape: [usize; 3], draws: &mut Stream, image: &mut [u8], scratch: &mut Vec<u8>) {
        CropShift::draw(self.crop, draws).apply(shape, image, scratch);
        self.operation(shape, draws).apply(shape, image, scratch);
        if draws.uniform() < self.erase {
            self.erase(shape, draws, image);
        }
    }

    fn operation(&self, [_, height, width]: [usize; 3], draws: &mut Stream) -> Operation {
        let drawn = draws.uniform();
        // Every image takes the same number of random numbers here.
        let (size, sign, axis) = (draws.uniform(), draws.coin(), draws.coin());
        let factor = |low: f64| (low + (1.9 - low) * size) as f32;
        let signed = |value: f64| if sign { value } else { -value };
        match self.until.iter().position(|&until| drawn <= until) {
            Some(0) => Operation::Color(factor(0.1)),
            Some(1) => Operation::Brightness(factor(0.5)),
            Some(2) => Operation::Contrast(factor(0.5)),
            Some(3) => Operation::Sharpness(factor(0.1)),
            Some(4) => Operation::AutoContrast,
            Some(5) => Operation::Equalize,
            Some(_) => {
                let slope = signed((0.05 + (self.shear - 0.05) * size).tan());
                if axis {
                    Operation::ShearX(slope, height as f64 / 2.0)
                } else {
                    Operation::ShearY(slope, width as f64 / 2.0)
                }
            }
            None => Operation::Rotate(signed(1.0 + (size * self.degrees as f64).floor())),
        }
    }

    /// Blackens a rectangle of a random area and shape, if one of ten fits.
    fn erase(&self, shape: [usize; 3], draws: &mut Stream, image: &mut [u8]) {
        let [_, height, width] = shape;
        let all = (height * width) as f64;
        for _ in 0..10 {
            let area = all * draws.between(self.area[0], self.area[1]);
            let ratio = draws.between(0.3_f64.ln(), 3.3_f64.ln()).exp();
            let [down, across] = [area * ratio, area / ratio].map(|square| square.sqrt().round_ties_even() as usize);
            let [top, left] =
                [(height, down), (width, across)].map(|(side, part)| draws.below(side.saturating_sub(part) + 1));
            if down < height && across < width {
                return Rectangle { rows: top..top + down, columns: left..left + across }.blacken(shape, image);
            }
        }
    }
}

#[cfg(test)]
mod tests;
