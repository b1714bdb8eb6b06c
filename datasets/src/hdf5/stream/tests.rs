//! Streams give what the file holds, in any layout, and an error where it does not hold it any more.

use std::fs::{self, OpenOptions};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::hdf5::samples::{LAYOUTS, SIZE, file, pixels, put_bits, put_split_chunks};
use crate::{Container, Source, Split};

/// What many images at once are, read with [`Source::read_all`].
fn all(source: &dyn Source, samples: &[usize]) -> Result<Vec<u8>> {
    let mut images = vec![0; samples.len() * SIZE];
    let mut wanted: Vec<(usize, &mut [u8])> = samples.iter().copied().zip(images.chunks_exact_mut(SIZE)).collect();
    source.read_all(&mut wanted)?;
    Ok(images)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_layout_gives_the_same_images(
        count in 1usize..60, places in prop::collection::vec(0usize..1000, 0..80), layout in 0usize..LAYOUTS.len(),
        user_block in prop::sample::select(vec![0u64, 512]),
    ) {
        let folder = tempfile::tempdir()?;
        let stream = Container::stream(&file(folder.path(), count, LAYOUTS[layout], user_block), Split::Train)
            .expect("a proper file");
        stream.verify().expect("the right checksums");
        let samples: Vec<usize> = places.iter().map(|place| place % count).collect();
        let expected: Vec<u8> =
            samples.iter().flat_map(|&sample| pixels(count)[sample * SIZE..][..SIZE].to_vec()).collect();
        prop_assert_eq!(all(&stream, &samples).expect("readable"), &expected[..]);
        for (&sample, expected) in samples.iter().zip(expected.chunks(SIZE)) {
            let mut image = [0; SIZE];
            stream.read(sample, &mut image).expect("readable");
            prop_assert_eq!(image, expected);
        }
        prop_assert!(all(&stream, &[count]).is_err());
        prop_assert!(stream.read(count, &mut [0; SIZE]).is_err());
    }

    #[test]
    fn near_images_come_with_one_request(places in prop::collection::vec(0usize..4000, 1..60)) {
        // Images of 1,000 bytes: some are near enough, some are not, and some runs are longer than a request.
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("plain");
        let bytes: Vec<u8> = (0..4_000_000usize).map(|place| (place / 1000 + place) as u8).collect();
        fs::write(&path, &bytes)?;
        let stream = Stream::new(&path, File::open(&path)?, 1000, 4000, Places::Contiguous(0));
        let mut images = vec![0; places.len() * 1000];
        let mut wanted: Vec<(usize, &mut [u8])> = places.iter().copied().zip(images.chunks_exact_mut(1000)).collect();
        stream.read_all(&mut wanted).expect("readable");
        for (&sample, image) in places.iter().zip(images.chunks(1000)) {
            prop_assert_eq!(image, &bytes[sample * 1000..][..1000]);
        }
    }
}

#[test]
fn a_file_cut_short_in_use_is_an_error() -> Result<()> {
    for layout in LAYOUTS {
        let folder = tempfile::tempdir()?;
        let path = file(folder.path(), 40, layout, 0);
        let stream = Container::stream(&path, Split::Train)?;
        let samples: Vec<usize> = (0..40).collect();
        assert_eq!(all(&stream, &samples)?, pixels(40), "{layout}");
        OpenOptions::new().write(true).open(&path)?.set_len(600)?;
        let message = all(&stream, &samples).expect_err("the images are gone").to_string();
        assert!(message.contains("set.h5 ends before image") && message.contains("cut short"), "{layout}: {message}");
        let errors = (0..40).filter(|&sample| stream.read(sample, &mut [0; SIZE]).is_err()).count();
        assert!(errors > 0, "{layout}");
    }
    Ok(())
}

#[test]
fn changed_chunks_are_found() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = file(folder.path(), 40, "all filters", 0);
    let whole = fs::read(&path)?;
    let stream = Container::stream(&path, Split::Train)?;
    let samples: Vec<usize> = (0..40).collect();
    let mut damaged = 0;
    let changed = OpenOptions::new().write(true).open(&path)?;
    for at in 0..whole.len() {
        changed.write_all_at(&[whole[at] ^ 0x10], at as u64)?;
        // The places are known already: a change elsewhere does not matter any more.
        match all(&stream, &samples) {
            Ok(images) => assert_eq!(images, pixels(40), "byte {at}"),
            Err(error) => {
                assert!(format!("{error:#}").contains("is damaged"), "{error:#}");
                damaged += 1;
            }
        }
        changed.write_all_at(&whole[at..=at], at as u64)?;
    }
    assert!(damaged > 100, "{damaged} changes were seen");
    Ok(())
}

#[test]
fn what_cannot_be_streamed_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = file(folder.path(), 8, "contiguous", 0);
    let replace = |put: fn(&Path)| -> Result<String> {
        put(&path);
        Container::open(&path, Split::Train)?.verify()?;
        let message = Container::map(&path, Split::Train).expect_err("not in one piece").to_string();
        assert!(message.contains("stored as Chunked") && message.contains("data.reading = \"streaming\""), "{message}");
        Ok(Container::stream(&path, Split::Train).expect_err("another layout").to_string())
    };
    let message = replace(put_split_chunks)?;
    assert!(message.contains("chunks of [8, 1, 3, 4]") && message.contains("data.reading = \"resident\""), "{message}");
    let message = replace(put_bits)?;
    assert!(message.contains("NBit") && message.contains("deflate, shuffle and fletcher32"), "{message}");
    Ok(())
}

#[test]
fn many_threads_read_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stream = Arc::new(Container::stream(&file(folder.path(), 50, "deflated", 0), Split::Train)?);
    let read = |first: usize| {
        let stream = Arc::clone(&stream);
        std::thread::spawn(move || -> Result<()> {
            for sample in (0..500).map(|turn| (first + turn * 3) % 50) {
                let mut image = [0; SIZE];
                stream.read(sample, &mut image)?;
                ensure!(image == pixels(50)[sample * SIZE..][..SIZE], "sample {sample}");
            }
            Ok(())
        })
    };
    for thread in (0..4).map(read).collect::<Vec<_>>() {
        thread.join().expect("no panic")?;
    }
    Ok(())
}
