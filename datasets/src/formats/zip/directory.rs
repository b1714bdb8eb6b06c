//! The directory of a zip archive: its members, each within the file, none over another, no name twice.

use anyhow::{Context, Result, bail, ensure};

use super::at::At;

/// A member of an archive.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its path in the archive.
    pub name: String,
    /// Its bytes once unpacked, as the archive states them.
    pub size: u64,
    /// Whether it is compressed.
    pub deflated: bool,
    pub(super) packed: u64,
    pub(super) crc: u32,
    /// The offset of its local header.
    pub(super) header: u64,
    /// The offset of the next member or of the directory.
    pub(super) end: u64,
}

/// The contents of the directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) members: Vec<Member>,
    pub(super) folders: Vec<String>,
    pub(super) not_utf8: Vec<String>,
}

/// Bytes of the end record and of its longest comment.
const END: u64 = 22;
const LONGEST_COMMENT: u64 = 0xffff;
/// Bytes of an entry without its name, extra fields and comment, and of a local header without its own.
const ENTRY: usize = 46;
pub(super) const LOCAL: u64 = 30;
/// More than a directory of two million files.
const LARGEST: u64 = 256 << 20;

/// The location of the directory.
struct Place {
    offset: u64,
    size: u64,
    /// How many entries it has; `exact` without a 64-bit record is false, and only the low 16 bits count.
    count: u64,
    exact: bool,
    /// The offset of the records behind it.
    limit: u64,
}

/// Reads the directory of an archive of `length` bytes.
pub(super) fn read(bytes: &impl At, length: u64) -> Result<Directory> {
    let Place { offset, size, count, exact, limit } = find(bytes, length)?;
    let fits = offset.checked_add(size).is_some_and(|end| end <= limit);
    ensure!(fits && size <= LARGEST, "a directory of {size} bytes at {offset} in {length}");
    ensure!(count.saturating_mul(ENTRY as u64) <= size, "a directory of {count} members in {size} bytes");
    let mut directory = vec![0; size as usize];
    bytes.fill(&mut directory, offset).context("the directory")?;
    let (mut rest, mut entries) = (&directory[..], Vec::new());
    while !rest.is_empty() {
        let member;
        (member, rest) = entry(rest).with_context(|| format!("member {} of {count}", entries.len()))?;
        entries.push(member);
    }
    // Writers without 64-bit records state the low 16 bits of a larger number.
    let found = entries.len() as u64;
    ensure!(if exact { found == count } else { found & 0xffff == count }, "{found} members instead of {count}");
    keep_apart(&mut entries, offset)?;
    sort(entries)
}

/// Sets each member's `end` to the begin of the member after it. Refuses members that overlap.
fn keep_apart(entries: &mut [(Vec<u8>, Member)], directory: u64) -> Result<()> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|&number| entries[number].1.header);
    let mut end = directory;
    for number in order.into_iter().rev() {
        let (name, member) = &mut entries[number];
        let least = LOCAL + name.len() as u64;
        let taken = member.header.checked_add(least).and_then(|start| start.checked_add(member.packed));
        let name = String::from_utf8_lossy(name);
        ensure!(
            taken.is_some_and(|taken| taken <= end),
            "its member {name:?} overlaps another, or reaches beyond the file"
        );
        member.end = end;
        end = member.header;
    }
    Ok(())
}

/// Separates files from folders and from names that are not UTF-8. Refuses a name that occurs twice.
fn sort(entries: Vec<(Vec<u8>, Member)>) -> Result<Directory> {
    let mut directory = Directory { members: vec![], folders: vec![], not_utf8: vec![] };
    for (name, member) in entries {
        match String::from_utf8(name) {
            Ok(name) => match name.strip_suffix('/') {
                Some(_) if member.size > 0 => bail!("its folder {name:?} has contents"),
                Some(folder) => directory.folders.push(folder.to_owned()),
                None => directory.members.push(Member { name, ..member }),
            },
            Err(name) => directory.not_utf8.push(String::from_utf8_lossy(name.as_bytes()).into_owned()),
        }
    }
    let mut names: Vec<&str> = directory.members.iter().map(|member| &member.name[..]).collect();
    names.sort_unstable();
    if let Some([name, _]) = names.array_windows().find(|[one, other]| one == other) {
        bail!("two members {name:?}");
    }
    Ok(directory)
}

/// Finds the directory by the record at the end of the archive.
fn find(bytes: &impl At, length: u64) -> Result<Place> {
    let start = length.saturating_sub(END + LONGEST_COMMENT);
    let mut tail = vec![0; (length - start) as usize];
    bytes.fill(&mut tail, start)?;
    let end = (0..tail.len().saturating_sub(END as usize - 1))
        .rev()
        .find(|&at| tail[at..].starts_with(b"PK\x05\x06") && at + 22 + usize::from(word(&tail, at + 20)) == tail.len());
    let end = end.context("no zip archive, or not all of it")?;
    let (offset, size) = (long(&tail, end + 16).into(), long(&tail, end + 12).into());
    let place = Place { offset, size, count: word(&tail, end + 10).into(), exact: false, limit: start + end as u64 };
    // A 64-bit record holds numbers that do not fit; a locator before the end record gives its place.
    let Some(locator) = end.checked_sub(20).filter(|&at| tail[at..].starts_with(b"PK\x06\x07")) else {
        return Ok(place);
    };
    let mut record = [0; 56];
    let limit = quad(&tail, locator + 8);
    bytes.fill(&mut record, limit).context("its 64-bit end record")?;
    let before = limit.checked_add(56).is_some_and(|end| end <= start + locator as u64);
    ensure!(before && record[..4] == *b"PK\x06\x06", "its 64-bit end record is damaged");
    Ok(Place { offset: quad(&record, 48), size: quad(&record, 40), count: quad(&record, 32), exact: true, limit })
}

/// A member and the bytes of its name.
type Named = (Vec<u8>, Member);

/// The name and the numbers of the first entry of a directory, and the entries after it.
fn entry(directory: &[u8]) -> Result<(Named, &[u8])> {
    ensure!(directory.len() >= ENTRY && directory[..4] == *b"PK\x01\x02", "its entry is damaged");
    let lengths = [28, 30, 32].map(|at| usize::from(word(directory, at)));
    let all = ENTRY + lengths.iter().sum::<usize>();
    ensure!(all <= directory.len(), "its entry ends too early");
    let name = directory[ENTRY..ENTRY + lengths[0]].to_vec();
    let method = word(directory, 10);
    let shown = String::from_utf8_lossy(&name);
    ensure!(word(directory, 8) & 1 == 0, "{shown:?} is encrypted");
    ensure!(method == 0 || method == 8, "{shown:?} has compression of kind {method}, neither stored nor deflated");
    let mut wide = wide_numbers(&directory[ENTRY + lengths[0]..][..lengths[1]])?;
    // Numbers that do not fit into 32 bits lie in an extra field, in this order.
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
    let deflated = method == 8;
    ensure!(
        deflated || size == packed,
        "{shown:?} is stored and has two sizes: {packed} bytes cannot unpack to {size}"
    );
    let crc = long(directory, 16);
    let member = Member { name: String::new(), size, deflated, packed, crc, header, end: 0 };
    Ok(((name, member), &directory[all..]))
}

/// The 64-bit numbers among the extra fields of an entry.
fn wide_numbers(mut extra: &[u8]) -> Result<&[u8]> {
    let mut wide: &[u8] = &[];
    while extra.len() >= 4 {
        let (kind, size) = (word(extra, 0), usize::from(word(extra, 2)));
        let field = extra.get(4..4 + size).context("its extra fields are damaged")?;
        if kind == 1 {
            wide = field;
        }
        extra = &extra[4 + size..];
    }
    Ok(wide)
}

pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) | u32::from(word(bytes, at + 2)) << 16
}

fn quad(bytes: &[u8], at: usize) -> u64 {
    u64::from(long(bytes, at)) | u64::from(long(bytes, at + 4)) << 32
}
