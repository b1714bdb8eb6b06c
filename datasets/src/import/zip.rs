//! A reader of zip archives by position, so that many threads can read members of one file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context, Result, ensure};
use flate2::Crc;
use flate2::read::DeflateDecoder;

/// Bytes that can be read from anywhere.
pub(crate) trait At {
    /// How many there are.
    fn length(&self) -> io::Result<u64>;
    /// Fills `bytes` with what lies at `offset`.
    fn fill(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl At for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn fill(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }
}

/// A member of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Its path in the archive.
    pub(crate) name: String,
    /// Its bytes once unpacked, as the archive states them.
    pub(crate) size: u64,
    packed: u64,
    deflated: bool,
    crc: u32,
    header: u64,
}

/// The bytes of the end record with its longest comment.
const LONGEST_END: u64 = 22 + 0xffff;
/// More than a directory of two million files.
const LARGEST_DIRECTORY: u64 = 256 << 20;
/// Deflate packs at best 1,032 bytes into one.
const DENSEST: u64 = 1032;

/// An archive whose directory has been read.
#[derive(Debug)]
pub(crate) struct Zip<B> {
    bytes: B,
    length: u64,
    /// The files of the archive, in the order of its directory.
    pub(crate) members: Vec<Member>,
}

impl<B: At> Zip<B> {
    /// Reads the directory of an archive. Members with names that are not UTF-8 are left out.
    pub(crate) fn open(bytes: B) -> Result<Self> {
        let length = bytes.length()?;
        let (offset, size, count) = find_directory(&bytes, length)?;
        let fits = offset.checked_add(size).is_some_and(|end| end <= length);
        ensure!(fits && size <= LARGEST_DIRECTORY, "a directory of {size} bytes at {offset} in {length}");
        ensure!(count.saturating_mul(46) <= size, "a directory of {count} members in {size} bytes");
        let mut directory = vec![0; size as usize];
        bytes.fill(&mut directory, offset).context("the directory")?;
        let (mut rest, mut members) = (&directory[..], Vec::new());
        for number in 0..count {
            let member;
            (member, rest) = entry(rest).with_context(|| format!("member {number} of {count}"))?;
            members.extend(member.filter(|member| !member.name.ends_with('/')));
        }
        Ok(Self { bytes, length, members })
    }

    /// The contents of `member`, which must have at most `most` bytes.
    pub(crate) fn read(&self, member: &Member, most: u64) -> Result<Vec<u8>> {
        let Member { size, packed, .. } = *member;
        ensure!(size <= most, "{size} bytes, more than {most}");
        let mut header = [0; 30];
        self.bytes.fill(&mut header, member.header).context("its header lies outside the archive")?;
        ensure!(header[..4] == *b"PK\x03\x04", "its header is damaged");
        let start = member.header + 30 + u64::from(word(&header, 26)) + u64::from(word(&header, 28));
        ensure!(start.checked_add(packed).is_some_and(|end| end <= self.length), "it lies outside the archive");
        // Before anything is allocated: what is stated must be possible.
        let possible = if member.deflated { size <= packed.saturating_mul(DENSEST) } else { size == packed };
        ensure!(possible, "{packed} bytes cannot unpack to {size}");
        let mut stored = vec![0; packed as usize];
        self.bytes.fill(&mut stored, start)?;
        let contents = if member.deflated {
            let mut contents = Vec::with_capacity(size as usize);
            DeflateDecoder::new(&stored[..])
                .take(size + 1)
                .read_to_end(&mut contents)
                .context("its compression is damaged")?;
            contents
        } else {
            stored
        };
        ensure!(contents.len() as u64 == size, "it does not unpack to the {size} bytes stated");
        let mut crc = Crc::new();
        crc.update(&contents);
        ensure!(crc.sum() == member.crc, "its checksum is wrong");
        Ok(contents)
    }
}

/// Where the directory begins, its bytes and its members, by the record at the end of the archive.
fn find_directory(bytes: &impl At, length: u64) -> Result<(u64, u64, u64)> {
    let start = length.saturating_sub(LONGEST_END);
    let mut tail = vec![0; (length - start) as usize];
    bytes.fill(&mut tail, start)?;
    let end = (0..tail.len().saturating_sub(21))
        .rev()
        .find(|&at| tail[at..].starts_with(b"PK\x05\x06") && at + 22 + usize::from(word(&tail, at + 20)) == tail.len());
    let end = end.context("no zip archive, or not all of it")?;
    let mut place = (long(&tail, end + 16).into(), long(&tail, end + 12).into(), word(&tail, end + 10).into());
    // More members or bytes than the old record can state: another record says it, and a locator before this one where.
    if let Some(locator) = end.checked_sub(20).filter(|&at| tail[at..].starts_with(b"PK\x06\x07")) {
        let mut record = [0; 56];
        bytes.fill(&mut record, quad(&tail, locator + 8)).context("its 64-bit end record")?;
        ensure!(record[..4] == *b"PK\x06\x06", "its 64-bit end record is damaged");
        place = (quad(&record, 48), quad(&record, 40), quad(&record, 32));
    }
    Ok(place)
}

/// The first entry of a directory, if it has a name, and the entries after it.
fn entry(directory: &[u8]) -> Result<(Option<Member>, &[u8])> {
    ensure!(directory.len() >= 46 && directory[..4] == *b"PK\x01\x02", "its entry is damaged");
    let lengths = [28, 30, 32].map(|at| usize::from(word(directory, at)));
    let all: usize = 46 + lengths.iter().sum::<usize>();
    ensure!(all <= directory.len(), "its entry ends too early");
    let method = word(directory, 10);
    ensure!(word(directory, 8) & 1 == 0, "it is encrypted");
    ensure!(method == 0 || method == 8, "compression of kind {method}");
    let name = String::from_utf8(directory[46..46 + lengths[0]].to_vec()).ok();
    let mut extra = &directory[46 + lengths[0]..][..lengths[1]];
    let mut wide: &[u8] = &[];
    while extra.len() >= 4 {
        let (kind, size) = (word(extra, 0), usize::from(word(extra, 2)));
        let field = extra.get(4..4 + size).context("its extra fields are damaged")?;
        if kind == 1 {
            wide = field;
        }
        extra = &extra[4 + size..];
    }
    // Numbers that do not fit into 32 bits stand in an extra field, in this order.
    let mut number = |at: usize| -> Result<u64> {
        let short = long(directory, at);
        if short != u32::MAX {
            return Ok(short.into());
        }
        let (first, rest) = wide.split_at_checked(8).context("its 64-bit sizes are missing")?;
        wide = rest;
        Ok(quad(first, 0))
    };
    let (size, packed, header) = (number(24)?, number(20)?, number(42)?);
    let header = header.min(u64::MAX >> 1);
    let member =
        name.map(|name| Member { name, size, packed, deflated: method == 8, crc: long(directory, 16), header });
    Ok((member, &directory[all..]))
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) | u32::from(word(bytes, at + 2)) << 16
}

fn quad(bytes: &[u8], at: usize) -> u64 {
    u64::from(long(bytes, at)) | u64::from(long(bytes, at + 4)) << 32
}

#[cfg(test)]
pub(crate) mod tests;
