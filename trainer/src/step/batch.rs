//! A batch on the device of its rank.

use std::ops::Range;

use datasets::{HostBatch, Mixture, Shard};
use tch::{Device, Kind, Tensor, no_grad};

use crate::system::transfer::on_device;

/// The images and labels of one rank in one step.
pub struct Batch {
    /// `[N, C, H, W]` in [0, 1]; N may be 0.
    pub images: Tensor,
    /// `[N]`, int64. Where images are mixed, the probability of each class, `[N, classes]`, in the type of the images.
    pub labels: Tensor,
    /// The number of each sample in its data set. Random numbers are drawn by it.
    pub samples: Vec<u64>,
    /// The number of samples of the step on all ranks.
    pub global_count: usize,
}

impl Batch {
    /// Uploads bytes to the device and scales them to [0, 1], as torchvision's ToTensor does.
    pub fn upload(host: &HostBatch, shape: [usize; 3], kind: Kind, device: Device) -> Self {
        let [channels, height, width] = shape.map(|size| size as i64);
        let pixels = Tensor::from_slice(&host.images).view([host.labels.len() as i64, channels, height, width]);
        Self {
            images: on_device(&pixels, device).to_kind(kind) / 255.0,
            labels: on_device(&Tensor::from_slice(&host.labels), device),
            samples: host.samples.clone(),
            global_count: host.global_count,
        }
    }

    /// With the labels of mixed images of `host`, if there are any: each of two classes counts by its share of the pixels.
    /// The network has `classes` outputs.
    #[must_use]
    pub fn mix_labels(mut self, host: &HostBatch, classes: usize) -> Self {
        let Some(Mixture { labels, pixels }) = &host.mixture else { return self };
        let all = self.images.size()[2..].iter().product::<i64>() as f64;
        let [partners, pixels] =
            [labels, pixels].map(|numbers| on_device(&Tensor::from_slice(numbers), self.images.device()).unsqueeze(1));
        let pasted = pixels.to_kind(self.images.kind()) / all;
        let none = Tensor::zeros([labels.len() as i64, classes as i64], (self.images.kind(), self.images.device()));
        self.labels =
            none.scatter_add(1, &self.labels.unsqueeze(1), &(1.0 - &pasted)).scatter_add(1, &partners, &pasted);
        self
    }

    /// The class of each image, `[N]`, int64: of a mixed image the one with the larger share.
    pub fn classes(&self) -> Tensor {
        if self.labels.dim() == 2 { self.labels.argmax(1, false) } else { self.labels.shallow_clone() }
    }

    /// A copy in memory of its own.
    pub fn copy(&self) -> Self {
        let (images, labels) = (self.images.copy(), self.labels.copy());
        Self { images, labels, samples: self.samples.clone(), global_count: self.global_count }
    }

    /// Copies the images and labels of `other`, of the same shapes, into the memory of this batch. The sample numbers
    /// stay.
    pub fn take(&self, other: &Self) {
        no_grad(|| {
            self.images.shallow_clone().copy_(&other.images);
            self.labels.shallow_clone().copy_(&other.labels);
        });
    }

    /// Splits the global batch into `parts` consecutive pieces, whose sizes differ by one sample at most, and returns
    /// this rank's rows of each. A rank has no rows in a piece with fewer samples than ranks. A batch of fewer samples
    /// than `parts` has one piece per sample. The pieces do not depend on the number of ranks.
    pub fn parts(&self, parts: usize, shard: Shard) -> Vec<Range<i64>> {
        let parts = parts.min(self.global_count).max(1);
        let rows_below = |slot: usize| slot.saturating_sub(shard.rank).div_ceil(shard.world_size) as i64;
        let begin = |part: usize| rows_below(part * self.global_count / parts);
        (0..parts).map(|part| begin(part)..begin(part + 1)).collect()
    }

    /// Images of the `part`-th of `parts` pieces, over all ranks.
    pub fn images_of_part(&self, part: usize, parts: usize) -> usize {
        (part + 1) * self.global_count / parts - part * self.global_count / parts
    }

    /// A batch of these rows, which stay part of the same step.
    pub fn rows(&self, rows: &Range<i64>) -> Self {
        let cut = |tensor: &Tensor| tensor.narrow(0, rows.start, rows.end - rows.start);
        Self {
            images: cut(&self.images),
            labels: cut(&self.labels),
            samples: self.samples[rows.start as usize..rows.end as usize].to_vec(),
            global_count: self.global_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(samples: Vec<u64>, global_count: usize) -> Batch {
        let images = Tensor::zeros([samples.len() as i64, 1, 2, 2], tch::kind::FLOAT_CPU);
        let labels = Tensor::from_slice(&samples.iter().map(|&sample| sample as i64).collect::<Vec<_>>());
        Batch { images, labels, samples, global_count }
    }

    #[test]
    fn mixed_labels_are_shares_of_two_classes() {
        let host = HostBatch {
            images: vec![0; 3 * 8],
            labels: vec![0, 1, 2],
            samples: vec![5, 6, 7],
            global_count: 3,
            mixture: Some(Mixture { labels: vec![2, 1, 0], pixels: vec![3, 2, 0] }),
        };
        let uploaded = || Batch::upload(&host, [2, 2, 2], Kind::Double, Device::Cpu);
        let mixed = uploaded().mix_labels(&host, 4);
        let shares = Vec::<f64>::try_from(mixed.labels.flatten(0, -1)).unwrap();
        assert_eq!(shares, [0.25, 0.0, 0.75, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(Vec::<i64>::try_from(mixed.classes()).unwrap(), [2, 1, 2]);
        assert_eq!(mixed.rows(&(1..3)).labels.size(), [2, 4]);
        let plain = uploaded().mix_labels(&HostBatch { mixture: None, ..host.clone() }, 4);
        assert_eq!(Vec::<i64>::try_from(&plain.labels).unwrap(), [0, 1, 2]);
        assert_eq!(Vec::<i64>::try_from(plain.classes()).unwrap(), [0, 1, 2]);
    }

    /// Source: `cutmix` of the recipe's golden numbers. A box of 12 of 36 pixels has come from the partner.
    #[test]
    fn mixed_labels_are_the_golden_ones() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/golden_recipe.json")).unwrap();
        let case = &golden["cutmix"];
        let labels: Vec<i64> = serde_json::from_value(case["labels"].clone()).unwrap();
        let partners: Vec<usize> = serde_json::from_value(case["permutation"].clone()).unwrap();
        let [_, _, height, width]: [i64; 4] = serde_json::from_value(case["box"].clone()).unwrap();
        let pixels = height * width;
        let host = HostBatch {
            images: vec![0; 3 * 36],
            samples: vec![0, 1, 2],
            global_count: 3,
            mixture: Some(Mixture {
                labels: partners.iter().map(|partner| labels[*partner]).collect(),
                pixels: vec![pixels; 3],
            }),
            labels,
        };
        let mixed = Batch::upload(&host, [1, 6, 6], Kind::Double, Device::Cpu).mix_labels(&host, 3);
        let apart = (mixed.labels - crate::fixtures::tensor_of(&case["targets"])).abs().max();
        assert!(f64::try_from(apart).unwrap() < 1e-12);
    }

    proptest! {
        #[test]
        fn parts_are_the_same_on_any_number_of_ranks(count in 1usize..40, parts in 1usize..12, world_size in 1usize..6) {
            let mut pieces = vec![vec![]; parts.min(count)];
            for rank in 0..world_size {
                let shard = Shard { rank, world_size };
                let mine = batch(shard.slots(count).map(|slot| slot as u64).collect(), count);
                let rows = mine.parts(parts, shard);
                prop_assert_eq!(rows.len(), pieces.len());
                prop_assert_eq!(rows.iter().map(|rows| rows.end - rows.start).sum::<i64>(), mine.samples.len() as i64);
                for (piece, rows) in pieces.iter_mut().zip(&rows) {
                    let part = mine.rows(rows);
                    prop_assert_eq!(part.images.size()[0], part.samples.len() as i64);
                    let labels = Vec::<i64>::try_from(&part.labels).unwrap();
                    prop_assert!(labels.iter().zip(&part.samples).all(|(label, sample)| *label as u64 == *sample));
                    piece.extend(part.samples);
                }
            }
            let alone: Vec<Vec<u64>> = {
                let whole = batch((0..count as u64).collect(), count);
                let rows = whole.parts(parts, Shard { rank: 0, world_size: 1 });
                rows.iter().map(|rows| whole.rows(rows).samples).collect()
            };
            prop_assert!(alone.iter().all(|piece| !piece.is_empty()));
            for (part, piece) in alone.iter().enumerate() {
                prop_assert_eq!(batch(vec![], count).images_of_part(part, alone.len()), piece.len());
            }
            pieces.iter_mut().for_each(|piece| piece.sort_unstable());
            prop_assert_eq!(pieces, alone);
        }
    }
}
