//! Every reader of bytes, whole and damaged files for it, and the messages it has.

use anyhow::Result;
use flate2::read::GzDecoder;
use png::{BitDepth, ColorType};

use super::super::idx::tests::{gzip, idx};
use super::super::npz::tests::npy;
use super::super::{cifar, idx as idx_reader, npy};
use crate::formats::pickle::Pickle;
use crate::formats::picture::tests as pictures;
use crate::formats::{pickled_array as array, picture, tar, zip};

/// A reader, files to change for it, and a part of each message it has.
pub(super) struct Reader {
    pub(super) name: &'static str,
    pub(super) files: Vec<Vec<u8>>,
    pub(super) read: fn(&[u8]) -> Result<()>,
    pub(super) messages: &'static [&'static str],
}

pub(super) fn readers() -> Vec<Reader> {
    vec![
        Reader {
            name: "idx",
            files: vec![idx(2, &[3, 2], &[7; 12]), idx(1, &[3, 2], &[1; 6])],
            read: |bytes| idx_reader::parse(&mut &bytes[..], &[3, 2], 10).map(drop),
            messages: IDX,
        },
        Reader {
            name: "idx.gz",
            files: vec![gzip(&idx(2, &[3, 2], &[7; 12])), gzip(&idx(2, &[3, 2], &[7; 11]))],
            read: |bytes| idx_reader::parse(&mut GzDecoder::new(bytes), &[3, 2], 10).map(drop),
            // The last ones are the library's.
            messages: &["after the header is 11;", "invalid gzip header", "corrupt", "unexpected end of file", ""],
        },
        Reader { name: "pickle", files: pickles(), read: read_pickle, messages: PICKLE },
        Reader { name: "tar", files: tars(), read: read_tar, messages: TAR },
        Reader {
            name: "tar.gz",
            files: tars().iter().map(|tar| gzip(tar)).collect(),
            read: |bytes| tar::members(&mut GzDecoder::new(bytes), &wanted).map(drop),
            messages: &["after the last member", "in folder/a", "the archive is damaged", "ends too early", ""],
        },
        Reader { name: "zip", files: zips(), read: read_zip, messages: ZIP },
        Reader { name: "npy", files: arrays(), read: npy::read_array, messages: NPY },
        Reader {
            name: "jpeg",
            files: [pictures::COLOUR, pictures::GREY, pictures::CMYK, pictures::SMALLER].map(<[u8]>::to_vec).to_vec(),
            read: read_picture,
            messages: JPEG,
        },
        Reader { name: "png", files: pngs(), read: read_picture, messages: PNG },
        Reader {
            name: "cifar10",
            files: vec![[&[3][..], &[9; 3072], &[9], &[8; 3072]].concat()],
            read: |bytes| cifar::read_batch(&cifar::CIFAR10, bytes),
            messages: &["after the last whole record", "the label of record"],
        },
        Reader {
            name: "cifar100",
            files: vec![[&[3, 20][..], &[9; 3072], &[3, 20], &[8; 3072]].concat()],
            read: |bytes| cifar::read_batch(&cifar::CIFAR100, bytes),
            messages: &[
                "after the last whole record",
                "the label of record",
                "expected 0..=19",
                "as records before had for class",
            ],
        },
    ]
}

const IDX: &[&str] = &[
    "failed to fill whole buffer",
    "the magic number is",
    "the number of items is",
    "a dimension is",
    "after the header is more than",
    "after the header is",
];

const PICKLE: &[&str] = &[
    "not a pickle of protocol 2 to 5",
    "the file ends too early",
    "a string that is not UTF-8",
    "a name that is not UTF-8",
    "refused: opcode",
    "refused: ",
    "nothing stands in the memo",
    "a value is missing",
    "a mark is missing",
    "a change of something that is no container",
    "appending to something else",
    "setting items of something else",
    "a key without a value",
    "a call of something that is no function",
    "without a tuple",
    "a state of something that was not made by a call",
    "a second state",
    "a module that is no string",
    "a name that is no string",
    "bytes after the end",
    "more than one value",
    "something else than an array",
    "an array without contents in C order",
    "an array of something else than uint8",
    "an array without a shape",
    "a negative size",
    "a size that is not a number",
    "for an array of shape",
];

fn read_pickle(bytes: &[u8]) -> Result<()> {
    let pickle = Pickle::read(bytes, &array::NAMES)?;
    pickle.get(pickle.root, "data").map_or(Ok(()), |data| array::bytes(&pickle, data).map(drop))
}

fn pickles() -> Vec<Vec<u8>> {
    let batch = array::batch(&[3, 9], &[7; 2]);
    let replaced = |old: &[u8], new: &[u8]| {
        let at = batch.windows(old.len()).position(|part| part == old).expect("a part of the pickle");
        [&batch[..at], new, &batch[at + old.len()..]].concat()
    };
    // Not an array of 2 x 3072 bytes; the first of these is the whole one.
    let two = replaced(b"M\x02\x00M\x00\x0c\x86", b"K\x02K\x01\x86");
    let mut files = vec![two, batch.clone(), array::meta(&[("label_names", &["a".into(), "b".into()])])];
    files.push(replaced(b"M\x02\x00M\x00\x0c\x86", b"J\xff\xff\xff\xffK\x01\x86"));
    files.push(replaced(b"M\x02\x00M\x00\x0c\x86", b"NK\x01\x86"));
    files.push(replaced(b"M\x02\x00M\x00\x0c\x86", b"N"));
    let short: [&[u8]; 15] = [
        b"\x80\x02K\x01(e.",
        b"\x80\x02K\x01(u.",
        b"\x80\x02](e(u.",
        b"\x80\x02}(K\x01Nu.",
        b"\x80\x02}(U\x01au.",
        b"\x80\x02}U\x04dataNs.",
        b"\x80\x02h\x05.",
        b"\x80\x02N)R.",
        b"\x80\x02cnumpy\ndtype\nNR.",
        b"\x80\x02cnumpy\ndtype\n)R}b}b.",
        b"\x80\x02}Nb.",
        b"\x80\x02NNb.",
        b"\x80\x02NN\x93.",
        b"\x80\x02U\x01aN\x93.",
        b"\x80\x02X\x02\x00\x00\x00\xff\xff.",
    ];
    files.extend(short.map(<[u8]>::to_vec));
    files
}

fn wanted(name: &str) -> Option<usize> {
    ["folder/a", "b"].contains(&name).then_some(600)
}

/// Changes break the checksum of a header first of all: half of the inputs get it right again.
fn read_tar(bytes: &[u8]) -> Result<()> {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 512 && bytes.last().is_some_and(|last| last.is_multiple_of(2)) {
        tar::seal(&mut bytes);
    }
    tar::members(&mut &bytes[..], &wanted).map(drop)
}

const TAR: &[&str] = &[
    "the archive ends too early",
    "a header of the archive is damaged",
    "a size in the archive is no number",
    "the archive unpacks to more than",
    "bytes, more than 600",
    "is there twice",
    "the archive ends within",
    "an entry of kind 0x",
];

fn tars() -> Vec<Vec<u8>> {
    let noise: Vec<u8> = (0..600u64).map(|at| ((at * at * 40503) >> 7) as u8).collect();
    let good = tar::archive(&[("folder/a", &noise), ("c", &noise), ("b", b"short")]);
    let field = |at: usize, text: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + text.len()].copy_from_slice(text);
        tar::seal(&mut bytes);
        bytes
    };
    let twice = tar::archive(&[("b", b"1"), ("b", b"2")]);
    vec![
        good.clone(),
        twice,
        field(124, b"0000000z"),
        field(124, b"77777777777"),
        field(156, b"?"),
        good[..900].to_vec(),
    ]
}

fn read_zip(bytes: &[u8]) -> Result<()> {
    let zip = zip::Zip::open(bytes)?;
    zip.members.iter().try_for_each(|member| zip.read(member, 300).map(drop))
}

const ZIP: &[&str] = &[
    "no zip archive, or not all of it",
    "a directory of",
    "its entry is damaged",
    "its entry ends too early",
    "is encrypted",
    "compression of kind",
    "its extra fields are damaged",
    "its 64-bit sizes are missing",
    "more than 300",
    "its header is damaged",
    "its header names another member",
    "overlaps another",
    "members instead of",
    "two members",
    "it lies outside the archive",
    "cannot unpack to",
    "its compression is damaged",
    "it does not unpack to",
    "its checksum is wrong",
    "its 64-bit end record is damaged",
    "its 64-bit end record: ",
];

fn zips() -> Vec<Vec<u8>> {
    let members: [(&str, &[u8]); 2] = [("a", &[7; 200]), ("b", b"some short text")];
    let [plain, packed, wide] = [(false, false), (true, false), (true, true)]
        .map(|(deflate, wide)| zip::tests::archive(&members, deflate, wide));
    let twice = zip::tests::archive(&[("a", b"1"), ("a", b"2")], false, false);
    let directory = packed.windows(4).position(|part| part == b"PK\x01\x02").expect("a directory");
    let mut extra = packed.clone();
    extra[directory + 28..directory + 32].copy_from_slice(&[0, 0, 4, 0]);
    vec![plain, packed, wide, extra, twice]
}

const NPY: &[&str] = &[
    "not an array of NumPy",
    "a header of an unknown version",
    "the header ends too early",
    "the header: ",
    "no descr in the header",
    "no fortran_order in the header",
    "no shape in the header",
    "a type of records",
    "an array in Fortran's order",
    "the shape: ",
    "numbers of type",
    "bytes for shape",
    "instead of |u1 (uint8)",
    "empty, with shape",
    "in which the channels cannot be told",
    "instead of [N]",
    "a label of no class in record",
];

fn arrays() -> Vec<Vec<u8>> {
    let good = npy("|u1", "(2, 5, 4, 3)", &[1; 120]);
    let headed =
        |header: &str| [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    vec![
        good.clone(),
        npy("|u1", "(2, 5, 4)", &[1; 40]),
        npy("<i8", "(2, 1)", &[0; 16]),
        npy("<i2", "(2, 2, 3)", &[0; 24]),
        npy("|u1", "(0, 5, 4)", &[]),
        npy("|u1", "(1, 5, 5, 4)", &[0; 100]),
        npy("|u1", "(1, 2)", &[0; 2]),
        npy("<i2", "(1,)", &[0xff; 2]),
        npy("|O1", "(2,)", &[0; 2]),
        headed("{'descr': [], 'fortran_order': True}"),
        headed("{'descr': '|u1', 'fortran_order': True}"),
        headed("{'descr': '|u1', 'fortran_order': False, 'shape': (x,)}"),
        headed("{'descr': '|u1', 'fortran_order': False, 'shape': 3}"),
        headed("{}"),
        headed("{'descr': '|u1'}"),
    ]
}

/// Files of even length as colours, others as grey.
fn read_picture(bytes: &[u8]) -> Result<()> {
    let channels = if bytes.len().is_multiple_of(2) { 3 } else { 1 };
    picture::decode(bytes, [channels, 16, 16], &mut vec![0; channels * 256])
}

const JPEG: &[&str] = &[
    "a damaged JPEG",
    "neither JPEG nor PNG",
    "where others have 16x16",
    "more than 4096 or none",
    "a JPEG with CMYK colours",
    "a picture with colours among grey ones",
    // A JPEG of 16 bits, and pixels of another number than its header says, do not come about by chance.
    "",
];

const PNG: &[&str] = &[
    "a damaged PNG",
    "neither JPEG nor PNG",
    "a PNG of 16 bits",
    "a PNG with transparent pixels",
    "a picture with colours among grey ones",
];

fn pngs() -> Vec<Vec<u8>> {
    let eight = BitDepth::Eight;
    let mut files = vec![
        pictures::png(ColorType::Rgb, eight, &[1, 2, 3]),
        pictures::png(ColorType::Rgba, eight, &[1, 2, 3, 254]),
        pictures::png(ColorType::Indexed, eight, &[1]),
        pictures::png(ColorType::GrayscaleAlpha, eight, &[5, 255]),
        pictures::png(ColorType::Grayscale, BitDepth::Sixteen, &[1, 2]),
    ];
    // Of odd length too: as grey.
    files.extend(files.clone().into_iter().map(|file| [file, vec![0]].concat()));
    files
}
