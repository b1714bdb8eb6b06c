//! Data set files as other programs would write them, for tests of readers.

use std::path::{Path, PathBuf};

use ::hdf5::{Group, Location};
use sha2::{Digest, Sha256};

/// Ways to store images of [2, 3, 4].
pub(crate) const LAYOUTS: [&str; 6] = ["contiguous", "chunked", "deflated", "checked", "all filters", "single chunks"];
/// The bytes of an image.
pub(crate) const SIZE: usize = 24;

/// The images of such a file.
pub(crate) fn pixels(count: usize) -> Vec<u8> {
    (0..count * SIZE).map(|place| (place * 7 + place / 50) as u8).collect()
}

/// A data set file of `count` images, as another program would write it.
pub(crate) fn file(folder: &Path, count: usize, layout: &str, user_block: u64) -> PathBuf {
    let path = folder.join("set.h5");
    let write = || -> ::hdf5::Result<()> {
        let file = ::hdf5::File::with_options().with_fcpl(|create| create.userblock(user_block)).create(&path)?;
        text(&file, "schema", "iad-images")?;
        file.new_attr::<i64>().create("version")?.write_scalar(&1i64)?;
        for key in ["name", "source"] {
            text(&file, key, "a test")?;
        }
        let names = ["one", "two"].map(|name| name.parse::<Text>().expect("short"));
        file.new_attr::<Text>().shape(2).create("class_names")?.write_raw(&names)?;
        let group = file.create_group("train")?;
        text(&group, "split", "train")?;
        let labels = vec![1i64; count];
        text(&group, "labels_sha256", &hex(&labels.iter().flat_map(|label| label.to_le_bytes()).collect::<Vec<u8>>()))?;
        text(&group, "images_sha256", &hex(&pixels(count)))?;
        group.new_dataset::<i64>().shape(count).create("labels")?.write_raw(&labels)?;
        images(&group, count, layout)
    };
    write().expect("a new file");
    path
}

type Text = ::hdf5::types::FixedUnicode<64>;

fn text(place: &Location, key: &str, text: &str) -> ::hdf5::Result<()> {
    place.new_attr::<Text>().create(key)?.write_scalar(&text.parse::<Text>().expect("short"))
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha256::digest(bytes))
}

fn images(group: &Group, count: usize, layout: &str) -> ::hdf5::Result<()> {
    let new = group.new_dataset::<u8>().shape((count, 2, 3, 4));
    let chunked = |images: usize| new.clone().chunk((images.min(count), 2, 3, 4));
    let new = match layout {
        "contiguous" => new,
        "chunked" => chunked(5),
        "deflated" => chunked(7).deflate(4),
        "checked" => chunked(3).fletcher32(),
        "all filters" => chunked(4).shuffle().deflate(9).fletcher32(),
        _ => chunked(1).deflate(1),
    };
    new.create("images")?.write_raw(&pixels(count))
}

/// Replaces the eight images of a file by chunks that hold parts of images.
pub(crate) fn put_split_chunks(path: &Path) {
    put(path, |group| {
        group.new_dataset::<u8>().shape((8, 2, 3, 4)).chunk((8, 1, 3, 4)).create("images")?.write_raw(&pixels(8))
    });
}

/// Replaces them by chunks through a filter that streams do not know.
pub(crate) fn put_bits(path: &Path) {
    put(path, |group| {
        let scaled = group.new_dataset::<u8>().shape((8, 2, 3, 4)).chunk((8, 2, 3, 4)).nbit();
        scaled.create("images")?.write_raw(&pixels(8))
    });
}

fn put(path: &Path, new: fn(&Group) -> ::hdf5::Result<()>) {
    let write = || -> ::hdf5::Result<()> {
        let file = ::hdf5::File::append(path)?;
        let group = file.group("train")?;
        group.unlink("images")?;
        new(&group)
    };
    write().expect("other images");
}
