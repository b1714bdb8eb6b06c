//! Zip archives as `torch.save` writes them: records that are stored, not compressed, each at a multiple of 64 bytes.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use flate2::Crc;

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const LOCAL_SIZE: usize = 30;
const CENTRAL_SIZE: usize = 46;
const END_SIZE: usize = 22;
const LOCATOR_64_SIZE: usize = 20;
const END_64_SIZE: usize = 56;
const ALIGNMENT: usize = 64;
/// The year 1980 began.
const DATE: u16 = 1 << 5 | 1;

/// The records of an archive, in the order of its directory.
#[derive(Debug, Default)]
pub struct Archive<'a> {
    /// Names and contents; no name stands there twice.
    pub records: Vec<(String, &'a [u8])>,
}

/// A record as the directory describes it.
struct Entry {
    name: String,
    /// Where its local header begins.
    offset: usize,
    size: usize,
    crc: u32,
}

impl<'a> Archive<'a> {
    /// Whether the file begins like an archive with a record in it.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(LOCAL)
    }

    /// Reads an archive. Nothing is unpacked: contents are slices of `bytes`.
    ///
    /// # Errors
    /// A file that is cut short or damaged; compressed, encrypted or overlapping records; a name that stands there twice.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let (mut directory, start) = directory(bytes)?;
        let mut entries = vec![];
        while !directory.is_empty() {
            entries.push(entry(&mut directory)?);
        }
        let place = |entry: &Entry| {
            place(bytes, entry)
                .with_context(|| format!("its record {:?}", entry.name))
                .map(|range| (entry.offset, range))
        };
        let places = entries.iter().map(place).collect::<Result<Vec<_>>>()?;
        let mut taken: Vec<(usize, usize)> = places.iter().map(|(from, contents)| (*from, contents.end)).collect();
        taken.push((start, start));
        taken.sort_unstable();
        ensure!(taken.array_windows().all(|[(_, end), (next, _)]| end <= next), "records of the archive overlap");
        let mut records = vec![];
        for (entry, (_, contents)) in entries.into_iter().zip(places) {
            let contents = &bytes[contents];
            let mut crc = Crc::new();
            crc.update(contents);
            ensure!(crc.sum() == entry.crc, "its record {:?} is damaged (by its checksum)", entry.name);
            records.push((entry.name, contents));
        }
        let mut names: Vec<&str> = records.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[one, other]| one == other) {
            bail!("the archive has two records {name:?}");
        }
        Ok(Self { records })
    }

    /// The contents of a record.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.records.iter().find(|(known, _)| known == name).map(|(_, contents)| *contents)
    }
}

/// The central directory, and where it begins.
fn directory(bytes: &[u8]) -> Result<(&[u8], usize)> {
    // The end record is the last but for a comment of up to 65,535 bytes.
    let last = bytes.len().checked_sub(END_SIZE).context("the archive is cut short")?;
    let earliest = last.saturating_sub(usize::from(u16::MAX));
    let is_end = |&at: &usize| bytes[at..].starts_with(END) && usize::from(short(&bytes[at + 20..])) == last - at;
    let end = (earliest..=last).rev().find(is_end).context("the archive is cut short: it has no directory")?;
    let (mut count, mut size, mut start) =
        (u64::from(short(&bytes[end + 10..])), word(&bytes[end + 12..]).into(), word(&bytes[end + 16..]).into());
    let mut limit = end;
    if let Some(at) = end.checked_sub(LOCATOR_64_SIZE).filter(|&at| bytes[at..].starts_with(LOCATOR_64)) {
        let record = usize::try_from(long(&bytes[at + 8..]))?;
        let fits = record.checked_add(END_64_SIZE).is_some_and(|end| end <= at);
        ensure!(fits && bytes[record..].starts_with(END_64), "the archive's directory is damaged");
        (count, size, start) = (long(&bytes[record + 32..]), long(&bytes[record + 40..]), long(&bytes[record + 48..]));
        limit = record;
    }
    let (size, start) = (usize::try_from(size)?, usize::try_from(start)?);
    let range = start.checked_add(size).filter(|&end| end <= limit).context("the archive's directory is damaged")?;
    // Each entry takes some bytes: a count beyond them is a lie.
    ensure!(count <= (size / CENTRAL_SIZE) as u64, "the archive's directory is damaged");
    Ok((&bytes[start..range], start))
}

/// Takes the next entry of the directory.
fn entry(directory: &mut &[u8]) -> Result<Entry> {
    let damaged = "the archive's directory is damaged";
    let (fixed, rest) = directory.split_at_checked(CENTRAL_SIZE).context(damaged)?;
    ensure!(fixed.starts_with(CENTRAL), damaged);
    let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(short(&fixed[at..])));
    let (name, rest) = rest.split_at_checked(name).context(damaged)?;
    let (extra, rest) = rest.split_at_checked(extra).context(damaged)?;
    let (_, rest) = rest.split_at_checked(comment).context(damaged)?;
    *directory = rest;
    let name = std::str::from_utf8(name).context("a record's name is not UTF-8")?.to_string();
    ensure!(short(&fixed[8..]) & 1 == 0, "the record {name:?} is encrypted");
    ensure!(short(&fixed[10..]) == 0, "the record {name:?} is compressed; torch.save stores records as they are");
    let mut wide = wide_numbers(extra)?;
    // A number that does not fit stands in the extra field; they come in this order.
    let mut number = |at: usize| -> Result<usize> {
        let narrow = word(&fixed[at..]);
        if narrow != u32::MAX {
            return Ok(narrow as usize);
        }
        let (number, rest) = wide.split_at_checked(8).context(damaged)?;
        wide = rest;
        Ok(usize::try_from(long(number))?)
    };
    let (size, packed, offset) = (number(24)?, number(20)?, number(42)?);
    ensure!(size == packed, "the record {name:?} has two sizes");
    Ok(Entry { name, offset, size, crc: word(&fixed[16..]) })
}

/// The zip64 part of an extra field.
fn wide_numbers(mut extra: &[u8]) -> Result<&[u8]> {
    while extra.len() >= 4 {
        let (kind, size) = (short(extra), usize::from(short(&extra[2..])));
        let (part, rest) = extra[4..].split_at_checked(size).context("the archive's directory is damaged")?;
        if kind == 1 {
            return Ok(part);
        }
        extra = rest;
    }
    Ok(&[])
}

/// Where the contents of an entry stand.
fn place(bytes: &[u8], entry: &Entry) -> Result<Range<usize>> {
    let outside = "it reaches beyond the file";
    let header = bytes.get(entry.offset..).and_then(|rest| rest.get(..LOCAL_SIZE)).context(outside)?;
    ensure!(header.starts_with(LOCAL), "it is damaged");
    let [name, extra] = [26, 28].map(|at| usize::from(short(&header[at..])));
    let named = entry.offset + LOCAL_SIZE;
    ensure!(bytes.get(named..named + name).context(outside)? == entry.name.as_bytes(), "its name is damaged");
    let start = named + name + extra;
    let end = start.checked_add(entry.size).filter(|&end| end <= bytes.len()).context(outside)?;
    Ok(start..end)
}

fn short(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn long(bytes: &[u8]) -> u64 {
    u64::from(word(bytes)) | u64::from(word(&bytes[4..])) << 32
}

/// Makes an archive of `records`; equal records make equal bytes.
///
/// # Errors
/// More than 4 GiB, or 65,535 records.
pub fn write(records: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let (mut bytes, mut directory) = (vec![], vec![]);
    for (name, contents) in records {
        let mut crc = Crc::new();
        crc.update(contents);
        let offset = u32::try_from(bytes.len()).context("an archive of more than 4 GiB")?;
        let size = u32::try_from(contents.len()).context("a record of more than 4 GiB")?;
        let length = u16::try_from(name.len()).context("a name of more than 65,535 bytes")?;
        // An extra field of its own kind ("FB", PyTorch's) moves the contents to the next multiple of 64 bytes.
        let unpadded = bytes.len() + LOCAL_SIZE + name.len() + 4;
        let padding = (unpadded.next_multiple_of(ALIGNMENT) - unpadded) as u16;
        // Version 1.0, names in UTF-8, stored.
        let common = |version: &[u16]| -> Vec<u8> {
            let shorts = [version, &[1 << 11, 0, 0, DATE]].concat();
            let words = [crc.sum(), size, size].map(u32::to_le_bytes);
            [
                shorts.iter().flat_map(|number| number.to_le_bytes()).collect(),
                words.concat(),
                length.to_le_bytes().into(),
            ]
            .concat()
        };
        bytes.extend([LOCAL, &common(&[10]), &(4 + padding).to_le_bytes(), name.as_bytes()].concat());
        bytes.extend([b"FB", &padding.to_le_bytes()[..], &vec![b'Z'; padding.into()]].concat());
        bytes.extend(contents);
        // No extra field, comment, disk or attributes.
        directory.extend([CENTRAL, &common(&[10, 10]), &[0; 12], &offset.to_le_bytes(), name.as_bytes()].concat());
    }
    let start = u32::try_from(bytes.len()).context("an archive of more than 4 GiB")?;
    let count = u16::try_from(records.len()).context("an archive of more than 65,535 records")?.to_le_bytes();
    let size = u32::try_from(directory.len()).context("an archive of more than 4 GiB")?;
    bytes.extend(directory);
    bytes.extend([END, &[0; 4], &count, &count, &size.to_le_bytes(), &start.to_le_bytes(), &[0; 2]].concat());
    Ok(bytes)
}

#[cfg(test)]
mod tests;
