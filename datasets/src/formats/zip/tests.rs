//! Archives made here, plain, packed and with 64-bit records, whole and damaged.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::directory::long;
use super::*;

/// An archive of `members`, deflated or not; `wide` with the records for more than 65,535 members.
pub(crate) fn archive(members: &[(&str, &[u8])], deflate: bool, wide: bool) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, contents) in members {
        let mut crc = Crc::new();
        crc.update(contents);
        let packed = if deflate {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(contents).and_then(|()| encoder.finish()).expect("compressing into memory")
        } else {
            contents.to_vec()
        };
        let header = bytes.len() as u32;
        let common = |out: &mut Vec<u8>| {
            out.extend([20, 0, 0, 0, if deflate { 8 } else { 0 }, 0, 0, 0, 0, 0]);
            out.extend([crc.sum(), packed.len() as u32, contents.len() as u32].map(u32::to_le_bytes).concat());
            out.extend((name.len() as u16).to_le_bytes());
            out.extend([0, 0]);
        };
        bytes.extend(b"PK\x03\x04");
        common(&mut bytes);
        bytes.extend(name.as_bytes());
        bytes.extend(packed.clone());
        directory.extend(b"PK\x01\x02\x14\x00");
        common(&mut directory);
        directory.extend([0; 10]);
        directory.extend(header.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, count) = (bytes.len() as u64, members.len() as u64);
    bytes.extend(&directory);
    let record = bytes.len() as u64;
    if wide {
        bytes.extend(b"PK\x06\x06");
        bytes.extend([44, 0, 0, 0, 0, 0, 0, 0, 45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([count, count, directory.len() as u64, start].map(u64::to_le_bytes).concat());
        bytes.extend(b"PK\x06\x07\x00\x00\x00\x00");
        bytes.extend(record.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
    }
    let limited = |number: u64| if wide { u64::MAX } else { number };
    bytes.extend(b"PK\x05\x06\x00\x00\x00\x00");
    bytes.extend([count; 2].map(|number| (limited(number) as u16).to_le_bytes()).concat());
    bytes.extend([directory.len() as u64, start].map(|number| (limited(number) as u32).to_le_bytes()).concat());
    bytes.extend([0, 0]);
    bytes
}

const MEMBERS: [(&str, &[u8]); 3] = [("set/a", &[7; 3000]), ("set/", b""), ("b", b"short")];

#[test]
fn members_are_read_in_every_form() -> Result<()> {
    for (deflate, wide) in [(false, false), (true, false), (true, true)] {
        let bytes = archive(&MEMBERS, deflate, wide);
        let zip = Zip::open(&bytes[..])?;
        assert_eq!(zip.members.iter().map(|member| &member.name[..]).collect::<Vec<_>>(), ["set/a", "b"]);
        assert_eq!(zip.folders, ["set"]);
        assert_eq!(zip.read(&zip.members[0], 3000)?, [7; 3000]);
        assert_eq!(zip.read(&zip.members[1], 5)?, b"short");
        for member in &zip.members {
            zip.check(member)?;
            let mut part = [0; 3];
            let found = zip.fill(member, &mut part, 2).map(|()| part).ok();
            assert_eq!(found, (!deflate).then(|| if member.name == "b" { *b"ort" } else { [7; 3] }));
            assert!(zip.fill(member, &mut part, member.size - 2).is_err(), "beyond the end");
            assert_eq!(zip.contents(member).ok().map(<[u8]>::len), (!deflate).then_some(member.size as usize));
        }
    }
    Ok(())
}

#[test]
fn what_is_wrong_is_said() {
    let read = |bytes: Vec<u8>| -> Result<()> {
        let zip = Zip::open(&bytes[..])?;
        zip.members.iter().try_for_each(|member| zip.read(member, 3000).map(drop))
    };
    let whole = archive(&MEMBERS, true, false);
    let end = whole.len() - 22;
    let directory = usize::try_from(long(&whole, end + 16)).expect("small");
    let check = |at: usize, value: &[u8], message: &str| {
        let mut bytes = whole.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        let error = format!("{:#}", read(bytes).expect_err(message));
        assert!(error.contains(message), "{error} instead of {message}");
    };
    check(end, b"X", "no zip archive, or not all of it");
    check(end + 15, &[0x7f], "a directory of 2130706");
    check(end + 10, &[0xff, 0xff], "a directory of 65535 members in");
    check(end + 10, &[2, 0], "3 members instead of 2");
    check(directory, b"X", "member 0 of 3: its entry is damaged");
    check(directory + 28, &[0xff, 0xff], "member 0 of 3: its entry ends too early");
    check(directory + 8, &[1], "\"set/a\" is encrypted");
    check(directory + 10, &[12], "\"set/a\" has compression of kind 12, neither stored nor deflated");
    check(directory + 24, &[0xff; 4], "its 64-bit sizes are missing");
    check(directory + 24, &[0xff; 3], "16777215 bytes, more than 3000");
    check(directory + 42, &[0xff, 0xff, 0xff], "\"set/a\" overlaps another, or reaches beyond the file");
    check(0, b"X", "its header is damaged");
    check(27, &[0xff], "it lies outside the archive, or over another member");
    check(30, b"S", "its header names another member");
    check(directory + 20, &[200, 0], "overlaps another");
    check(directory + 20, &[1, 0], "1 bytes cannot unpack to 3000");
    check(directory + 24, &[10, 0], "does not unpack to the 10 bytes stated");
    check(directory + 16, &[0], "its checksum is wrong");
    check(35, &[0xff, 0xff], "its compression is damaged");
    let mut wide = archive(&MEMBERS, true, true);
    let at = wide.len() - 22 - 20 - 56;
    wide[at] = 0;
    assert!(format!("{:#}", read(wide).expect_err("damaged")).contains("its 64-bit end record is damaged"));
    let mut wide = archive(&MEMBERS, true, true);
    let at = wide.len() - 22 - 20 + 15;
    wide[at] = 1;
    assert!(format!("{:#}", read(wide).expect_err("damaged")).contains("its 64-bit end record: "));
    // An extra field that claims to be longer than all of them.
    let mut bytes = whole.clone();
    bytes[directory + 28..directory + 32].copy_from_slice(&[1, 0, 4, 0]);
    assert!(format!("{:#}", read(bytes).expect_err("damaged")).contains("its extra fields are damaged"));
}

#[test]
fn members_neither_overlap_nor_share_a_name() {
    let same = archive(&[("a", b"1"), ("a", b"2")], false, false);
    assert_eq!(Zip::open(&same[..]).expect_err("one name").to_string(), "two members \"a\"");
    // The second entry means the first member.
    let mut bytes = archive(&[("a", b"1"), ("b", b"2")], false, false);
    let second = bytes.windows(4).rposition(|part| part == b"PK\x01\x02").expect("an entry");
    bytes[second + 42..second + 46].fill(0);
    assert!(format!("{:#}", Zip::open(&bytes[..]).expect_err("overlap")).contains("overlaps another"));
}

#[test]
fn names_that_are_not_utf8_are_listed() -> Result<()> {
    let mut bytes = archive(&[("caf#.png", b"1"), ("b", b"2")], false, false);
    while let Some(at) = bytes.iter().position(|&byte| byte == b'#') {
        bytes[at] = 0xe9;
    }
    let zip = Zip::open(&bytes[..])?;
    assert_eq!((zip.members.len(), &zip.not_utf8[..]), (1, &["caf\u{fffd}.png".to_owned()][..]));
    Ok(())
}

#[test]
fn every_truncation_is_an_error() {
    let whole = archive(&MEMBERS, true, true);
    assert!((0..whole.len()).all(|length| Zip::open(&whole[..length]).is_err()));
}
