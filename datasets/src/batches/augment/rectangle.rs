//! Rectangles of an image.

use std::ops::Range;

/// Rows and columns of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rectangle {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

impl Rectangle {
    /// So many rows and columns around the pixel `centre`, clipped to an image of [height, width].
    pub(super) fn around(centre: [usize; 2], sides: [usize; 2], image: [usize; 2]) -> Self {
        let [rows, columns] = [0, 1].map(|side| {
            let first = centre[side] as i64 - (sides[side] / 2) as i64;
            let clip = |at: i64| at.clamp(0, image[side] as i64) as usize;
            clip(first)..clip(first + sides[side] as i64)
        });
        Self { rows, columns }
    }

    /// How many pixels it has.
    pub(super) fn pixels(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Makes it black in all channels of `image` (channels x height x width bytes).
    pub(super) fn blacken(&self, shape: [usize; 3], image: &mut [u8]) {
        self.places(shape).for_each(|place| image[place].fill(0));
    }

    /// Copies it from `other` to `image`, both channels x height x width bytes.
    pub(super) fn paste(&self, shape: [usize; 3], other: &[u8], image: &mut [u8]) {
        self.places(shape).for_each(|place| image[place.clone()].copy_from_slice(&other[place]));
    }

    /// Its rows in all channels, as places in the bytes of an image.
    fn places(&self, [channels, height, width]: [usize; 3]) -> impl Iterator<Item = Range<usize>> {
        let rows = (0..channels).flat_map(move |channel| self.rows.clone().map(move |row| channel * height + row));
        rows.map(move |row| row * width + self.columns.start..row * width + self.columns.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_clipped_to_the_image() {
        let around = |centre, sides| Rectangle::around(centre, sides, [6, 6]);
        // The box of the published CutMix for an image of 6 x 6 pixels, a share of 0.41 and the centre (4, 1).
        let sides = [(6.0 * (1.0_f64 - 0.41).sqrt()) as usize / 2 * 2; 2];
        assert_eq!(around([4, 1], sides), Rectangle { rows: 2..6, columns: 0..3 });
        assert_eq!(around([4, 1], sides).pixels(), 12);
        assert_eq!(around([0, 5], [0, 0]).pixels(), 0);
        assert_eq!(around([0, 5], [100, 3]), Rectangle { rows: 0..6, columns: 4..6 });
    }

    /// Source: `cutmix` of the recipe's golden numbers, whose pixels are hundredths.
    #[test]
    fn mixed_images_are_those_of_the_published_code() -> anyhow::Result<()> {
        let golden = include_str!("../../../../tests/fixtures/golden_recipe.json");
        let golden: serde_json::Value = serde_json::from_str(golden)?;
        let case = &golden["cutmix"];
        let bytes = |name: &str| -> anyhow::Result<Vec<Vec<u8>>> {
            let images: Vec<[Vec<Vec<f64>>; 1]> = serde_json::from_value(case[name].clone())?;
            let pixels = |image: &[Vec<Vec<f64>>; 1]| {
                image.iter().flatten().flatten().map(|pixel| (pixel * 100.0).round() as u8).collect()
            };
            Ok(images.iter().map(pixels).collect())
        };
        let (images, expected) = (bytes("x")?, bytes("x_out")?);
        let partners: Vec<usize> = serde_json::from_value(case["permutation"].clone())?;
        let [top, left, height, width]: [usize; 4] = serde_json::from_value(case["box"].clone())?;
        let sides = [(6.0 * (1.0 - case["lam"].as_f64().unwrap_or(1.0)).sqrt()) as usize; 2];
        let found =
            Rectangle::around(serde_json::from_value(case["centre"].clone())?, sides.map(|side| side / 2 * 2), [6, 6]);
        assert_eq!(found, Rectangle { rows: top..top + height, columns: left..left + width });
        for ((image, partner), expected) in images.iter().zip(partners).zip(&expected) {
            let mut mixed = image.clone();
            found.paste([1, 6, 6], &images[partner], &mut mixed);
            assert_eq!(&mixed, expected);
        }
        Ok(())
    }
}
