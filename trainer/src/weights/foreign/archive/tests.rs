//! Archives as they should be, and as somebody might send them.

use super::*;

const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const CENTRAL_SIZE: usize = 46;
const END_SIZE: usize = 22;
const LOCATOR_64_SIZE: usize = 20;
const END_64_SIZE: usize = 56;

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Two records. Their contents begin at bytes 64 and 128, the directory follows the second.
fn two() -> Vec<u8> {
    write(&[("a/one".into(), vec![1; 5]), ("a/two".into(), vec![2; 9])]).unwrap()
}

/// Where the entry of the directory with that number begins; all names here have five letters.
fn entry_at(bytes: &[u8], number: usize) -> usize {
    let start = word(&bytes[bytes.len() - END_SIZE + 16..]) as usize;
    start + number * (CENTRAL_SIZE + 5)
}

/// The bytes with others put in their place.
fn patched(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

#[track_caller]
fn refuses(bytes: &[u8], part: &str) {
    let error = format!("{:#}", Archive::read(bytes).unwrap_err());
    assert!(error.contains(part), "{error:?} lacks {part:?}");
}

#[test]
fn records_come_back_and_begin_at_multiples_of_64() {
    let records: Vec<(String, Vec<u8>)> =
        (0..70).map(|size| (format!("folder/{}", "n".repeat(size + 1)), vec![size as u8; size * 3])).collect();
    let bytes = write(&records).unwrap();
    let archive = Archive::read(&bytes).unwrap();
    assert_eq!(archive.records.len(), records.len());
    for ((name, contents), (expected_name, expected)) in archive.records.iter().zip(&records) {
        assert_eq!((name, *contents), (expected_name, expected.as_slice()));
        assert!((contents.as_ptr() as usize - bytes.as_ptr() as usize).is_multiple_of(64), "{name}");
    }
    assert_eq!(archive.get("folder/nothing"), None);
}

#[test]
fn compressed_and_encrypted_records_are_refused() {
    let entry = entry_at(&two(), 1);
    refuses(&patched(two(), entry + 10, &[8]), "\"a/two\": it is compressed");
    refuses(&patched(two(), entry + 8, &[1]), "\"a/two\" is encrypted");
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let same = write(&[("a/one".into(), vec![1]), ("a/one".into(), vec![2])]).unwrap();
    refuses(&same, "two members \"a/one\"");
}

#[test]
fn records_within_records_are_refused() {
    let inner = write(&[("a/two".into(), vec![2; 9])]).unwrap();
    let outer = write(&[("a/one".into(), inner), ("a/two".into(), vec![2; 9])]).unwrap();
    let offset = entry_at(&outer, 1) + 42;
    assert!(Archive::read(&outer).is_ok());
    // The second entry now means the record that stands in the contents of the first.
    refuses(&patched(outer, offset, &64u32.to_le_bytes()), "overlap");
}

#[test]
fn many_entries_for_one_record_are_refused_before_its_contents_are_summed() {
    let one = write(&[("a/one".into(), vec![7; 1 << 20])]).unwrap();
    let entry = entry_at(&one, 0);
    let (record, count) = (one[entry..entry + CENTRAL_SIZE + 5].to_vec(), 20_000u16);
    let directory = record.repeat(count.into());
    let mut bytes = one[..entry].to_vec();
    let sizes = [(directory.len() as u32).to_le_bytes(), (entry as u32).to_le_bytes()].concat();
    bytes.extend([&directory[..], END, &[0; 4], &count.to_le_bytes(), &count.to_le_bytes(), &sizes, &[0; 2]].concat());
    refuses(&bytes, "overlap");
}

#[test]
fn what_lies_outside_of_the_file_is_refused() {
    let entry = entry_at(&two(), 1);
    let both = |size: u32| [size.to_le_bytes(), size.to_le_bytes()].concat();
    refuses(&patched(two(), entry + 20, &both(1 << 20)), "reaches beyond the file");
    refuses(&patched(two(), entry + 20, &both(u32::MAX)), "64-bit sizes are missing");
    refuses(&patched(two(), entry + 20, &8u32.to_le_bytes()), "two sizes");
    refuses(&patched(two(), entry + 42, &(1u32 << 30).to_le_bytes()), "reaches beyond the file");
    refuses(&patched(two(), entry + 42, &3u32.to_le_bytes()), "overlaps");
    let end = two().len() - END_SIZE;
    refuses(&patched(two(), end + 16, &u32::MAX.to_le_bytes()), "a directory of");
    refuses(&patched(two(), end + 12, &u32::MAX.to_le_bytes()), "a directory of");
    refuses(&patched(two(), end + 10, &u16::MAX.to_le_bytes()), "a directory of");
}

#[test]
fn changed_contents_and_names_are_noticed() {
    refuses(&patched(two(), 128 + 4, &[3]), "\"a/two\": its checksum is wrong");
    refuses(&patched(two(), LOCAL_SIZE, b"b"), "its header names another member");
}

/// The same two records with all numbers in the fields of zip64, as archives above 4 GiB have them.
fn wide() -> Vec<u8> {
    let narrow = two();
    let start = entry_at(&narrow, 0);
    let mut bytes = narrow[..start].to_vec();
    for number in 0..2 {
        let entry = &narrow[entry_at(&narrow, number)..][..CENTRAL_SIZE + 5];
        let [packed, size, offset] = [20, 24, 42].map(|at| u64::from(word(&entry[at..])));
        let mut fixed = entry[..CENTRAL_SIZE].to_vec();
        fixed[20..28].fill(0xff);
        fixed[42..46].fill(0xff);
        fixed[30..32].copy_from_slice(&28u16.to_le_bytes());
        let numbers = [size, packed, offset].map(u64::to_le_bytes).concat();
        bytes.extend([&fixed[..], &entry[CENTRAL_SIZE..], &[1, 0, 24, 0], &numbers].concat());
    }
    let (end, size) = (bytes.len() as u64, (bytes.len() - start) as u64);
    let numbers = [2, 2, size, start as u64].map(u64::to_le_bytes).concat();
    bytes.extend([END_64, &44u64.to_le_bytes(), &[45, 0, 45, 0], &[0; 8], &numbers].concat());
    bytes.extend([LOCATOR_64, &[0; 4], &end.to_le_bytes(), &[1, 0, 0, 0]].concat());
    bytes.extend([END, &[0; 4], &[0xff; 12], &[0; 2]].concat());
    bytes
}

#[test]
fn zip64_is_read() {
    let (narrow, wide) = (two(), wide());
    assert_eq!(Archive::read(&wide).unwrap().records, Archive::read(&narrow).unwrap().records);
    let locator = wide.len() - END_SIZE - LOCATOR_64_SIZE;
    refuses(&patched(wide.clone(), locator + 8, &u64::MAX.to_le_bytes()), "64-bit end record");
    let record = locator - END_64_SIZE;
    for at in [32, 40, 48] {
        refuses(&patched(wide.clone(), record + at, &u64::MAX.to_le_bytes()), "a directory of");
    }
}

#[test]
fn a_comment_at_the_end_is_passed_over() {
    let length = two().len();
    let commented = [&patched(two(), length - 2, &[3, 0])[..], b"PK!"].concat();
    assert_eq!(Archive::read(&commented).unwrap().records.len(), 2);
}

#[test]
fn no_truncation_is_read_and_no_changed_byte_gives_other_contents() {
    for good in [two(), wide()] {
        assert!((0..good.len()).all(|length| Archive::read(&good[..length]).is_err()));
        let expected = Archive::read(&good).unwrap().records;
        for (place, bit) in (0..good.len()).flat_map(|place| (0..8).map(move |bit| (place, bit))) {
            let mut changed = good.clone();
            changed[place] ^= 1 << bit;
            if let Ok(archive) = Archive::read(&changed) {
                assert_eq!(archive.records, expected, "bit {bit} of byte {place}");
            }
        }
    }
}
