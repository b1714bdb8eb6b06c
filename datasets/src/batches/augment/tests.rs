//! Crops and flips against PyTorch; every augmentation against its promises.

use super::*;
use crate::Purpose;
use crate::ground::random::uniform;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
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
        Augment { crop, flip, ..Augment::default() }.apply(shape, &draws, sample, &mut varied, &mut Vec::new());
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
        Augment { crop: 4, flip: true, ..Augment::default() }.apply(shape, &draws, sample, &mut varied, &mut scratch);
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
    let text = include_str!("../../../../tests/fixtures/augment.json");
    let fixture: Fixture = serde_json::from_str(text)?;
    assert!(fixture.cases.len() >= 4);
    for Case { shape, crop, flip, seed, epoch, samples, images } in fixture.cases {
        let draws = Draws::new(seed, Purpose::Augment, epoch);
        assert_eq!(samples.len(), images.len());
        for (sample, expected) in samples.into_iter().zip(images) {
            let pixel = |place: usize| ((place * 37 + place / 251) as u64 + sample % 256 * 11) as u8;
            let mut varied: Vec<u8> = (0..shape.iter().product()).map(pixel).collect();
            Augment { crop, flip, ..Augment::default() }.apply(shape, &draws, sample, &mut varied, &mut Vec::new());
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
        Augment::default().apply(shape, &draws, sample, &mut varied, &mut Vec::new());
        assert_eq!(varied, image(shape));
    }
}

#[test]
fn a_crop_beyond_the_image_is_refused() {
    assert!(Augment { crop: 4, flip: true, ..Augment::default() }.check([3, 32, 32]).is_ok());
    let error =
        Augment { crop: 28, flip: true, ..Augment::default() }.check([1, 28, 28]).expect_err("nothing would be left");
    assert_eq!(error.to_string(), "data.augment.crop is 28; expected less than the 28 pixels of an image");
    let mut varied = image([1, 2, 2]);
    let huge = Augment { crop: usize::MAX, flip: true, ..Augment::default() };
    huge.apply([1, 2, 2], &Draws::new(1, Purpose::Augment, 0), 1, &mut varied, &mut Vec::new());
    assert_eq!(varied, [0; 4]);
}

/// The cases of `make_policies.py`.
#[derive(Deserialize)]
struct Policies {
    cases: Vec<PolicyCase>,
}

#[derive(Deserialize)]
struct PolicyCase {
    policy: Option<Policy>,
    shape: [usize; 3],
    cutout: usize,
    seed: u64,
    epoch: u64,
    images: Vec<String>,
}

#[test]
fn policies_equal_those_of_torchvision_and_pillow() -> anyhow::Result<()> {
    let Policies { cases } = serde_json::from_str(include_str!("../../../../tests/fixtures/policies.json"))?;
    assert!(cases.len() >= 11);
    for PolicyCase { policy, shape, cutout, seed, epoch, images } in cases {
        let augment = Augment { policy, cutout, ..Augment::default() };
        let draws = Draws::new(seed, Purpose::Augment, epoch);
        for (sample, expected) in (0u64..).zip(images) {
            let pixel = |place: usize| {
                let noise = (place as u64 * 37 + place as u64 / 251 + sample * 11) % 256;
                (noise * (50 + sample % 150) / 256 + sample % 50) as u8
            };
            let mut varied: Vec<u8> = (0..shape.iter().product()).map(pixel).collect();
            augment.apply(shape, &draws, sample, &mut varied, &mut Vec::new());
            let digest = base16ct::lower::encode_string(&Sha256::digest(&varied));
            assert_eq!(digest[..32], expected, "{policy:?} with cutout {cutout}: sample {sample} of {shape:?}");
        }
    }
    Ok(())
}

fn augmentations() -> impl Strategy<Value = Augment> {
    use Policy::{AutoAugment, IdbhStrong, IdbhSvhn, IdbhWeak, RandAugment, TrivialAugment};
    let policies = [AutoAugment, RandAugment, TrivialAugment, IdbhWeak, IdbhStrong, IdbhSvhn];
    let policy = prop::option::of(prop::sample::select(policies.to_vec()));
    (0usize..3, any::<bool>(), policy, 0usize..20, prop::sample::select(vec![0.0, 0.5, 1.0]))
        .prop_map(|(crop, flip, policy, cutout, cutmix)| Augment { crop, flip, policy, cutout, cutmix })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn an_image_depends_on_seed_epoch_and_sample_alone(
        augment in augmentations(), channels in 1usize..5, height in 1usize..24, width in 1usize..24,
        seed: u64, epoch in 0u64..300, sample: u64,
    ) {
        let shape = [channels, height, width];
        let draws = Draws::new(seed, Purpose::Augment, epoch);
        let (mut scratch, mut once, mut again) = (Vec::new(), image(shape), image(shape));
        augment.apply(shape, &draws, sample, &mut once, &mut scratch);
        // Other images in between, and memory that was used before.
        augment.apply(shape, &draws, sample ^ 1, &mut image(shape), &mut scratch);
        augment.apply(shape, &draws, sample, &mut again, &mut scratch);
        prop_assert_eq!(once, again);
    }

    #[test]
    fn a_patch_lies_in_the_image(height in 1usize..40, width in 1usize..40, seed: u64, sample: u64, images in 1usize..99) {
        let augment = Augment { cutmix: 1.0, ..Augment::default() };
        let (shape, draws) = ([2, height, width], Draws::new(seed, Purpose::Augment, 0));
        let patch = augment.patch(shape, &draws, sample, images).expect("every image is mixed");
        prop_assert_eq!(Some(patch.clone()), augment.patch(shape, &draws, sample, images));
        prop_assert!(patch.partner < images && patch.pixels() <= height * width);
        let (mut mixed, other) = (vec![1; 2 * height * width], vec![2; 2 * height * width]);
        patch.paste(shape, &other, &mut mixed);
        prop_assert_eq!(mixed.iter().filter(|&&pixel| pixel == 2).count(), 2 * patch.pixels());
        prop_assert_eq!(Augment::default().patch(shape, &draws, sample, images), None);
    }
}

#[test]
fn half_of_the_images_are_mixed_with_any_other_and_by_any_share() {
    let augment = Augment { cutmix: 0.5, ..Augment::default() };
    let draws = Draws::new(4, Purpose::Augment, 0);
    let patches: Vec<Patch> = (0..4000).filter_map(|sample| augment.patch([1, 32, 32], &draws, sample, 4)).collect();
    // Five standard deviations.
    assert!((1842..2158).contains(&patches.len()), "{}", patches.len());
    for partner in 0..4 {
        let count = patches.iter().filter(|patch| patch.partner == partner).count();
        assert!((400..600).contains(&count), "{count} of {}", patches.len());
    }
    let mean = patches.iter().map(|patch| patch.pixels() as f64 / 1024.0).sum::<f64>() / patches.len() as f64;
    // The whole rectangle has half of the pixels on average, less what is clipped and rounded off.
    assert!((0.25..0.45).contains(&mean), "{mean}");
}
