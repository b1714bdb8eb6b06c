//! What the batches of all ranks add up to, and how a loader ends.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::batches::counting::Counting;
use crate::ground::memory::numbered;

const AUGMENT: Augment = Augment { crop: 1, flip: true, policy: None, cutout: 0, cutmix: 0.0 };

fn pipeline(count: usize, global_batch: usize, shard: Shard) -> Pipeline {
    let source = Arc::new(numbered(count, [1, 2, 3]));
    Pipeline {
        source,
        extra: None,
        augment: Some(AUGMENT),
        shard,
        global_batch,
        seed: 11,
        ahead: 2,
        threads: 1,
        window: 0,
    }
}

fn batches(pipeline: &Pipeline, epoch: u64, from_batch: usize) -> Vec<HostBatch> {
    pipeline.epoch(epoch, from_batch).collect::<Result<_>>().expect("reading memory does not fail")
}

/// The batches of all ranks with their samples back in global order.
fn merged(count: usize, global_batch: usize, world_size: usize, epoch: u64, from_batch: usize) -> Vec<HostBatch> {
    let of_ranks: Vec<_> = (0..world_size)
        .map(|rank| batches(&pipeline(count, global_batch, Shard { rank, world_size }), epoch, from_batch))
        .collect();
    assert!(of_ranks.iter().all(|batches| batches.len() == of_ranks[0].len()), "ranks take equally many steps");
    (0..of_ranks[0].len())
        .map(|batch| {
            let global_count = of_ranks[0][batch].global_count;
            let mut whole = HostBatch { global_count, ..HostBatch::default() };
            for slot in 0..global_count {
                let (part, at) = (&of_ranks[slot % world_size][batch], slot / world_size);
                assert_eq!(part.global_count, global_count);
                whole.samples.push(part.samples[at]);
                whole.labels.push(part.labels[at]);
                whole.images.extend(&part.images[at * 6..][..6]);
            }
            let parts = of_ranks.iter().map(|batches| batches[batch].samples.len());
            assert_eq!(parts.sum::<usize>(), global_count);
            whole
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn ranks_share_the_epoch(
        count in 0usize..200, global_batch in 1usize..40, world_size in 1usize..9,
        epoch in 0u64..4, from_batch in 0usize..8,
    ) {
        let whole = merged(count, global_batch, world_size, epoch, from_batch);
        let alone = merged(count, global_batch, 1, epoch, 0);
        prop_assert_eq!(&whole, &alone[from_batch.min(alone.len())..]);
        let samples: Vec<u64> = whole.iter().flat_map(|batch| batch.samples.iter().copied()).collect();
        let order = Draws::new(11, Purpose::Shuffle, epoch).permutation(count);
        let expected = order.iter().skip(from_batch * global_batch).map(|&sample| sample as u64);
        prop_assert!(samples.into_iter().eq(expected));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn threads_and_windows_change_nothing(
        count in 0usize..200, global_batch in 1usize..20, rank in 0usize..3, from_batch in 0usize..8,
        ahead in 0usize..6, threads in 1usize..5, window in 0usize..2000,
    ) {
        let plain = pipeline(count, global_batch, Shard { rank, world_size: 3 });
        let other = Pipeline { ahead, threads, window, ..plain.clone() };
        prop_assert_eq!(batches(&other, 1, from_batch), batches(&plain, 1, from_batch));
    }

    #[test]
    fn a_stop_on_some_ranks_goes_on_with_others(
        count in 1usize..150, global_batch in 1usize..30, before in 1usize..7, after in 1usize..7, at in 0usize..20,
    ) {
        let whole = merged(count, global_batch, 1, 2, 0);
        let at = at.min(whole.len());
        let mut broken = merged(count, global_batch, before, 2, 0);
        broken.truncate(at);
        broken.extend(merged(count, global_batch, after, 2, at));
        prop_assert_eq!(broken, whole);
    }
}

#[test]
fn what_is_read_ahead_stays_within_the_window() {
    for (threads, ahead, window) in [(1, 2, 40_000), (3, 2, 60_000), (2, 8, 1)] {
        let reads = Arc::new(AtomicUsize::new(0));
        let source = Arc::new(Counting { images: 10_000, reads: Arc::clone(&reads) });
        let shard = Shard { rank: 0, world_size: 2 };
        let pipeline =
            Pipeline { source, extra: None, augment: None, shard, global_batch: 20, seed: 0, ahead, threads, window };
        let mut loader = pipeline.epoch(0, 0);
        for taken in 1..=500 {
            assert!(loader.next().is_some_and(|batch| batch.is_ok()));
            let held = reads.load(Ordering::SeqCst) - taken * 10;
            // Without room in the window every thread still makes a batch, and as many wait as were asked for.
            let most = (window / 100).max(10 * (threads + ahead.next_multiple_of(threads)));
            assert!(held <= most, "{held} images held after {taken} batches, of {most}");
        }
    }
}

#[test]
fn uneven_epochs_end_with_a_smaller_batch() {
    let alone = Shard { rank: 0, world_size: 1 };
    let counts =
        |count| batches(&pipeline(count, 64, alone), 0, 0).iter().map(|batch| batch.global_count).collect::<Vec<_>>();
    let expected = |full, last| [vec![64; full], vec![last]].concat();
    assert_eq!(counts(1003), expected(15, 43));
    assert_eq!(counts(1025), expected(16, 1));
    assert_eq!(pipeline(1003, 64, alone).batches_per_epoch(), 16);
    for rank in 0..3 {
        let last = batches(&pipeline(1025, 64, Shard { rank, world_size: 3 }), 0, 0).pop().expect("17 batches");
        let own = usize::from(rank == 0);
        assert_eq!(
            (last.samples.len(), last.labels.len(), last.images.len(), last.global_count),
            (own, own, own * 6, 1)
        );
    }
}

#[test]
fn epochs_differ_in_order_and_augmentation() {
    let pipeline = pipeline(40, 40, Shard { rank: 0, world_size: 1 });
    let [first, again, second] = [0, 0, 1].map(|epoch| batches(&pipeline, epoch, 0).remove(0));
    assert_eq!(first, again);
    assert_ne!(first.samples, second.samples);
    let image = |batch: &HostBatch, sample| {
        let at = batch.samples.iter().position(|&other| other == sample).expect("every sample is there") * 6;
        batch.images[at..at + 6].to_vec()
    };
    assert!((0..40).any(|sample| image(&first, sample) != image(&second, sample)));
}

/// Fails or panics at its fourth sample, and counts what was read.
struct Faulty {
    panics: bool,
    reads: AtomicUsize,
}

impl Source for Faulty {
    fn len(&self) -> usize {
        1000
    }

    fn shape(&self) -> [usize; 3] {
        [1, 1, 1]
    }

    fn class_names(&self) -> &[String] {
        &[]
    }

    fn label(&self, _: usize) -> i64 {
        0
    }

    fn read(&self, _: usize, _: &mut [u8]) -> Result<()> {
        let reads = self.reads.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics || reads < 3, "the disk is on fire");
        anyhow::ensure!(reads < 3, "the disk is full");
        Ok(())
    }
}

#[test]
fn failures_and_panics_arrive_as_errors() {
    for (panics, message) in [(true, "a loader thread panicked: the disk is on fire"), (false, "the disk is full")] {
        let source = Arc::new(Faulty { panics, reads: AtomicUsize::new(0) });
        let shard = Shard { rank: 0, world_size: 1 };
        let pipeline = Pipeline {
            source,
            extra: None,
            augment: None,
            shard,
            global_batch: 1,
            seed: 0,
            ahead: 1,
            threads: 1,
            window: 0,
        };
        let mut items: Vec<_> = pipeline.epoch(0, 0).collect();
        let error = items.pop().expect("four items").expect_err("the last is the failure");
        assert!(format!("{error:#}").contains(message), "{error:#}");
        assert_eq!(items.len(), 3);
        assert!(items.iter().all(Result::is_ok));
    }
}

#[test]
fn dropping_a_loader_ends_its_thread() {
    let source = Arc::new(numbered(100, [1, 1, 1]));
    let shard = Shard { rank: 0, world_size: 1 };
    for ahead in [0, 1, 5] {
        let pipeline = Pipeline {
            source: source.clone(),
            extra: None,
            augment: None,
            shard,
            global_batch: 1,
            seed: 0,
            ahead,
            threads: 2,
            window: 9,
        };
        let mut loader = pipeline.epoch(0, 0);
        assert!(loader.next().is_some());
        drop((loader, pipeline));
        // The thread held a reference too.
        assert_eq!(Arc::strong_count(&source), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_mixed_image_does_not_depend_on_ranks_threads_or_its_batch(
        count in 1usize..80, global_batch in 1usize..30, other_batch in 1usize..30, world_size in 1usize..4,
        threads in 1usize..3, window in 0usize..2000,
    ) {
        let by_sample = |global_batch, world_size, threads, window| {
            let mut mixed = std::collections::BTreeMap::new();
            for rank in 0..world_size {
                let plain = pipeline(count, global_batch, Shard { rank, world_size });
                let augment = Some(Augment { cutmix: 0.7, cutout: 1, ..AUGMENT });
                for batch in batches(&Pipeline { augment, threads, window, ..plain }, 1, 0) {
                    let mixture = batch.mixture.expect("labels of both images");
                    for (row, sample) in batch.samples.iter().enumerate() {
                        let image = batch.images[row * 6..][..6].to_vec();
                        let labels = (batch.labels[row], mixture.labels[row], mixture.pixels[row]);
                        assert!(mixed.insert(*sample, (image, labels)).is_none());
                    }
                }
            }
            mixed
        };
        let alone = by_sample(global_batch, 1, 1, 0);
        prop_assert_eq!(alone.len(), count);
        prop_assert_eq!(&by_sample(other_batch, world_size, threads, window), &alone);
    }
}

#[test]
fn a_mixed_image_has_the_pixels_and_the_label_of_its_partner() {
    // Every pixel of an image tells its number, and so does its label.
    let count = 60;
    let source = crate::Memory::new(
        [1, 8, 8],
        (0..count).map(|class| class.to_string()).collect(),
        (0..count).flat_map(|sample| vec![sample as u8 + 1; 64]).collect(),
        (0..count as i64).collect(),
    )
    .expect("as many images as labels");
    let augment = Some(Augment { cutmix: 1.0, ..Augment::default() });
    let plain = pipeline(count, 20, Shard { rank: 0, world_size: 1 });
    let mut moved = 0;
    for batch in batches(&Pipeline { source: Arc::new(source), augment, ..plain }, 0, 0) {
        let mixture = batch.mixture.expect("labels of both images");
        for (row, image) in batch.images.chunks_exact(64).enumerate() {
            let (own, other) = (batch.labels[row] as u8 + 1, mixture.labels[row] as u8 + 1);
            assert!(image.iter().all(|&pixel| pixel == own || pixel == other));
            let pasted = image.iter().filter(|&&pixel| pixel == other).count() as i64;
            if own != other {
                assert_eq!(pasted, mixture.pixels[row]);
                moved += usize::from(pasted > 0);
            }
        }
    }
    assert!(moved > count / 3, "{moved} images have pixels of another one");
}
