//! What a batch has of each source, on any ranks and resumed anywhere.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::batches::augment::Augment;
use crate::batches::counting::Counting;
use crate::batches::loader::{HostBatch, Pipeline};
use crate::batches::shard::Shard;
use crate::ground::memory::numbered;

/// Batches of `originals` images and of `others`, whose pixels all are the image's number.
fn pipeline(originals: usize, others: usize, global_batch: usize, fraction: f64, shard: Shard) -> Pipeline {
    Pipeline {
        source: Arc::new(numbered(originals, [1, 2, 3])),
        extra: Some(Extra { source: Arc::new(numbered(others, [1, 2, 3])), fraction }),
        augment: None,
        shard,
        global_batch,
        seed: 11,
        ahead: 2,
        threads: 1,
        window: 0,
    }
}

fn alone() -> Shard {
    Shard { rank: 0, world_size: 1 }
}

fn batches(pipeline: &Pipeline, epoch: u64, from_batch: usize) -> Vec<HostBatch> {
    pipeline.epoch(epoch, from_batch).collect::<Result<_>>().expect("reading memory does not fail")
}

/// The sizes of a case in which both kinds have a place in every batch.
fn sizes() -> impl Strategy<Value = (usize, usize, usize, f64)> {
    let sizes = (1usize..120, 1usize..120, 2usize..30, 0.02f64..0.98);
    sizes.prop_filter("images of both kinds", |&(_, _, batch, fraction)| {
        (1..batch).contains(&Extra::count(fraction, batch))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn every_batch_has_its_share_and_no_original_is_lost(
        (originals, others, global_batch, fraction) in sizes(), epoch in 0u64..4,
    ) {
        let pipeline = pipeline(originals, others, global_batch, fraction, alone());
        let of_extra = Extra::count(fraction, global_batch);
        let order = Draws::new(11, Purpose::Shuffle, epoch).permutation(originals);
        let found = batches(&pipeline, epoch, 0);
        prop_assert_eq!(found.len(), originals.div_ceil(global_batch));
        let mut seen = vec![];
        for (number, batch) in found.iter().enumerate() {
            prop_assert_eq!((batch.samples.len(), batch.global_count), (global_batch, global_batch));
            let own: Vec<usize> =
                batch.samples.iter().map(|&sample| sample as usize).filter(|&sample| sample < originals).collect();
            // Only where the epoch's order ends do others fill the places of originals.
            let left = originals - number * (global_batch - of_extra);
            prop_assert_eq!(own.len(), left.min(global_batch - of_extra));
            seen.extend(own);
            for ((&sample, &label), image) in batch.samples.iter().zip(&batch.labels).zip(batch.images.chunks(6)) {
                let sample = sample as usize;
                let number = sample.checked_sub(originals).unwrap_or(sample);
                prop_assert!(sample < originals + others);
                prop_assert_eq!((label, image), (number as i64 % 10, &[number as u8; 6][..]));
            }
        }
        // In the order that they have without others.
        prop_assert_eq!(&seen[..], &order[..seen.len()]);
    }

    #[test]
    fn ranks_threads_windows_and_stops_change_nothing(
        (originals, others, global_batch, fraction) in sizes(), world_size in 1usize..6, from_batch in 0usize..8,
        threads in 1usize..4, window in 0usize..2000,
    ) {
        let whole = batches(&pipeline(originals, others, global_batch, fraction, alone()), 1, 0);
        let rest = &whole[from_batch.min(whole.len())..];
        let augment = Some(Augment { crop: 1, flip: true, ..Augment::default() });
        let plain = Pipeline { augment, ..pipeline(originals, others, global_batch, fraction, alone()) };
        let augmented = batches(&plain, 1, from_batch);
        for rank in 0..world_size {
            let shard = Shard { rank, world_size };
            let parts = batches(&Pipeline { shard, threads, window, ..plain.clone() }, 1, from_batch);
            prop_assert_eq!(parts.len(), rest.len());
            for ((part, rest), augmented) in parts.iter().zip(rest).zip(&augmented) {
                let slots: Vec<usize> = shard.slots(global_batch).collect();
                prop_assert_eq!(&part.samples, &slots.iter().map(|&slot| rest.samples[slot]).collect::<Vec<_>>());
                prop_assert_eq!(&part.labels, &slots.iter().map(|&slot| rest.labels[slot]).collect::<Vec<_>>());
                let images: Vec<u8> =
                    slots.iter().flat_map(|&slot| augmented.images[slot * 6..][..6].to_vec()).collect();
                prop_assert_eq!(&part.images, &images);
                prop_assert_eq!(part.global_count, rest.global_count);
            }
        }
    }
}

#[test]
fn all_others_are_drawn_evenly_and_anew_in_each_epoch() {
    let (others, global_batch) = (50, 20);
    let pipeline = pipeline(2000, others, global_batch, 0.7, alone());
    let mut counts = vec![0; others];
    let mut at_places = vec![0; global_batch];
    for epoch in 0..4 {
        for batch in batches(&pipeline, epoch, 0) {
            for (place, &sample) in batch.samples.iter().enumerate().filter(|(_, sample)| **sample >= 2000) {
                counts[sample as usize - 2000] += 1;
                at_places[place] += 1;
            }
        }
    }
    let drawn = 4.0 * 100.0 * 14.0;
    assert_eq!(counts.iter().sum::<u32>(), drawn as u32);
    let chi_squared = |counts: &[u32]| {
        let expected = drawn / counts.len() as f64;
        counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum::<f64>()
    };
    // 49 degrees of freedom: the 0.01 % and 99.99 % points are about 19 and 93. Places have less variance: each is taken once.
    assert!((19.0..93.0).contains(&chi_squared(&counts)), "{counts:?}");
    assert!(chi_squared(&at_places) < 40.0, "{at_places:?}");
    let [one, other] = [0, 1].map(|epoch| batches(&pipeline, epoch, 0).remove(0).samples);
    assert_ne!(one, other);
}

#[test]
fn what_is_read_ahead_stays_within_the_window() {
    // The training set is smaller than a batch in the second case.
    for (originals, global_batch, threads, window) in [(2000, 20, 2, 40_000), (5, 40, 1, 1)] {
        let read = Arc::new(AtomicUsize::new(0));
        let [source, others] =
            [originals, 1_000_000].map(|images| Arc::new(Counting { images, reads: Arc::clone(&read) }));
        let extra = Some(Extra { source: others, fraction: 0.7 });
        let plain = pipeline(1, 1, global_batch, 0.7, Shard { rank: 0, world_size: 2 });
        let pipeline = Pipeline { source, extra, threads, window, ..plain };
        let own = global_batch / 2;
        let mut taken = 0;
        for batch in pipeline.epoch(0, 0) {
            taken += batch.expect("reading does not fail").samples.len();
            let held = read.load(Ordering::SeqCst) - taken;
            let most = (window / 100).max(own * (threads + 2));
            assert!(held <= most, "{held} images held after {taken}, of {most}");
        }
        assert_eq!(taken, originals.div_ceil(global_batch) * own);
    }
}

#[test]
fn counts_are_rounded_and_those_of_the_published_recipes() {
    for (fraction, global_batch, count) in
        [(0.7, 512, 358), (0.8, 1024, 819), (0.7, 1024, 717), (0.5, 1, 1), (0.1, 4, 0)]
    {
        assert_eq!(Extra::count(fraction, global_batch), count, "{fraction} of {global_batch}");
    }
}

#[test]
fn draws_never_change() {
    // A change of these numbers changes every run with extra images.
    let pipeline = pipeline(20, 1000, 8, 0.5, alone());
    assert_eq!(batches(&pipeline, 0, 0)[0].samples, FIXED);
}
const FIXED: [u64; 8] = [1, 406, 345, 7, 8, 246, 3, 888];
