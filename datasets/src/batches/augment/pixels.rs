//! Operations on the bytes of an image, with the rounding of Pillow, so that published recipes can be repeated to the bit.

use std::f64::consts::PI;

/// The highest byte.
const WHITE: u8 = 255;

/// One operation. Pixels from outside the image are black.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Operation {
    /// Nothing.
    Identity,
    /// The pixel (x, y) comes from (x + k (y - c), y), with the factor k and the row c.
    ShearX(f64, f64),
    /// The pixel (x, y) comes from (x, y + k (x - c)), with the factor k and the column c.
    ShearY(f64, f64),
    /// The pixel (x, y) comes from (x - t, y).
    TranslateX(i32),
    /// The pixel (x, y) comes from (x, y - t).
    TranslateY(i32),
    /// Turns by so many degrees about the centre, against the clock.
    Rotate(f64),
    /// Mixes with black: 0 is black, 1 the image.
    Brightness(f32),
    /// Mixes with the grey image.
    Color(f32),
    /// Mixes with the mean of the grey image.
    Contrast(f32),
    /// Mixes with a smoothed image.
    Sharpness(f32),
    /// Keeps so many of the highest bits.
    Posterize(u32),
    /// Inverts the bytes from this threshold on.
    Solarize(f64),
    /// Stretches each channel to the whole range.
    AutoContrast,
    /// Makes the histogram of each channel even.
    Equalize,
    /// 255 - v.
    Invert,
}

impl Operation {
    /// Changes `image` (channels x height x width bytes) in place. An image of three channels is red, green and blue;
    /// with any other number the grey image is the mean of the channels. `scratch` is working memory.
    pub(super) fn apply(self, shape: [usize; 3], image: &mut [u8], scratch: &mut Vec<u8>) {
        let [_, height, width] = shape;
        let plane = height * width;
        match self {
            Self::Identity => {}
            Self::ShearX(factor, row) => {
                affine(shape, image, scratch, [1.0, factor, -factor * row, 0.0, 1.0, 0.0]);
            }
            Self::ShearY(factor, column) => {
                affine(shape, image, scratch, [1.0, 0.0, 0.0, factor, 1.0, -factor * column]);
            }
            Self::TranslateX(pixels) => affine(shape, image, scratch, [1.0, 0.0, -f64::from(pixels), 0.0, 1.0, 0.0]),
            Self::TranslateY(pixels) => affine(shape, image, scratch, [1.0, 0.0, 0.0, 0.0, 1.0, -f64::from(pixels)]),
            Self::Rotate(degrees) => affine(shape, image, scratch, rotation(degrees, height, width)),
            Self::Brightness(factor) => each(image, |value| blend(0, value, factor)),
            Self::Color(factor) => {
                grey(shape, image, scratch);
                for channel in image.chunks_exact_mut(plane) {
                    channel.iter_mut().zip(&*scratch).for_each(|(value, &grey)| *value = blend(grey, *value, factor));
                }
            }
            Self::Contrast(factor) => {
                grey(shape, image, scratch);
                let sum: u64 = scratch.iter().map(|&value| u64::from(value)).sum();
                let mean = (sum as f64 / plane as f64 + 0.5) as u8;
                each(image, |value| blend(mean, value, factor));
            }
            Self::Sharpness(factor) => sharpen(shape, image, scratch, factor),
            Self::Posterize(bits) => each(image, |value| value & !((u32::from(WHITE) >> bits.min(8)) as u8)),
            Self::Solarize(threshold) => each(image, |value| if f64::from(value) < threshold { value } else { !value }),
            Self::AutoContrast => image.chunks_exact_mut(plane).for_each(stretch),
            Self::Equalize => image.chunks_exact_mut(plane).for_each(equalize),
            Self::Invert => each(image, |value| !value),
        }
    }
}

fn each(bytes: &mut [u8], change: impl Fn(u8) -> u8) {
    bytes.iter_mut().for_each(|value| *value = change(*value));
}

/// `from + factor (to - from)` in single precision, cut to a byte.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
}

/// The grey image of height x width bytes.
fn grey([channels, height, width]: [usize; 3], image: &[u8], grey: &mut Vec<u8>) {
    let plane = height * width;
    grey.clear();
    if channels == 3 {
        let (red, rest) = image.split_at(plane);
        let (green, blue) = rest.split_at(plane);
        grey.extend(red.iter().zip(green).zip(blue).map(|((&red, &green), &blue)| {
            ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 32_768) >> 16) as u8
        }));
    } else {
        let mean = |place: usize| {
            image.iter().skip(place).step_by(plane).map(|&value| usize::from(value)).sum::<usize>() / channels
        };
        grey.extend((0..plane).map(|place| mean(place) as u8));
    }
}

/// Mixes with the smoothed image: (sum of the eight neighbours + 5 times the pixel) / 13. The border stays.
fn sharpen([_, height, width]: [usize; 3], image: &mut [u8], scratch: &mut Vec<u8>, factor: f32) {
    if height < 3 || width < 3 {
        return;
    }
    scratch.clear();
    scratch.extend_from_slice(image);
    for (plane, old) in image.chunks_exact_mut(height * width).zip(scratch.chunks_exact(height * width)) {
        for y in 1..height - 1 {
            for x in 1..width - 1 {
                let at = y * width + x;
                let rows = [at - width, at, at + width];
                let square: u32 = rows.iter().flat_map(|&row| &old[row - 1..=row + 1]).map(|&v| u32::from(v)).sum();
                let smooth = (2 * (square + 4 * u32::from(old[at])) + 13) / 26;
                plane[at] = blend(smooth as u8, old[at], factor);
            }
        }
    }
}

fn stretch(channel: &mut [u8]) {
    let (Some(&low), Some(&high)) = (channel.iter().min(), channel.iter().max()) else { return };
    if high <= low {
        return;
    }
    let scale = 255.0 / f64::from(high - low);
    let offset = -f64::from(low) * scale;
    each(channel, |value| (f64::from(value) * scale + offset) as u8);
}

fn equalize(channel: &mut [u8]) {
    let mut histogram = [0usize; 256];
    channel.iter().for_each(|&value| histogram[usize::from(value)] += 1);
    let Some(last) = histogram.iter().rposition(|&count| count > 0) else { return };
    let step = (channel.len() - histogram[last]) / 255;
    if step == 0 {
        return;
    }
    let mut sum = step / 2;
    let table = histogram.map(|count| {
        let value = (sum / step).min(usize::from(WHITE)) as u8;
        sum += count;
        value
    });
    each(channel, |value| table[usize::from(value)]);
}

/// The matrix of [`affine`] that turns the image about its centre.
fn rotation(degrees: f64, height: usize, width: usize) -> [f64; 6] {
    let angle = -degrees * PI / 180.0;
    // Quarter turns must be exact.
    let rounded = |value: f64| (value * 1e15).round() / 1e15;
    let (sine, cosine) = (rounded(angle.sin()), rounded(angle.cos()));
    let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
    [cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y]
}

/// The pixel (x, y) comes from (a x + b y + c, d x + e y + f), the nearest one, with the centres of pixels at halves and
/// coordinates in steps of 2^-16.
fn affine([_, height, width]: [usize; 3], image: &mut [u8], scratch: &mut Vec<u8>, [a, b, c, d, e, f]: [f64; 6]) {
    let fixed = |value: f64| (value * 65_536.0 + 0.5).floor() as i64;
    let [across, down] = [(a, d), (b, e)].map(|(x, y)| (fixed(x), fixed(y)));
    let first = (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5));
    scratch.clear();
    scratch.extend_from_slice(image);
    let plane = height * width;
    for y in 0..height {
        for x in 0..width {
            let source = |start: i64, right: i64, below: i64| (start + x as i64 * right + y as i64 * below) >> 16;
            let old = (source(first.0, across.0, down.0), source(first.1, across.1, down.1));
            let inside = (0..width as i64).contains(&old.0) && (0..height as i64).contains(&old.1);
            let old = inside.then(|| old.1 as usize * width + old.0 as usize);
            let new = y * width + x;
            for (to, from) in image.chunks_exact_mut(plane).zip(scratch.chunks_exact(plane)) {
                to[new] = old.map_or(0, |old| from[old]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
