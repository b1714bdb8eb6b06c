//! A reader of tar archives that writes nothing to the disk: it returns the wanted members and passes over all others.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

const BLOCK: usize = 512;
/// Far above any published archive, so an archive that unpacks to more is refused.
const LARGEST: u64 = 4 << 30;
/// Members that are not wanted, at most: their names are in memory.
const MOST_OTHERS: usize = 100_000;

/// The contents of the wanted members, and the names of all others but folders.
pub(crate) type Members = (BTreeMap<String, Vec<u8>>, Vec<String>);

/// The contents of the wanted members: those for which `wanted` gives a largest size.
///
/// A leading `./` is dropped from their names; a name that climbs (`..`) or begins at the root is never wanted.
pub(crate) fn members(reader: &mut dyn Read, wanted: &dyn Fn(&str) -> Option<usize>) -> Result<Members> {
    let (mut found, mut others) = (BTreeMap::new(), Vec::new());
    let mut passed = 0u64;
    loop {
        let mut header = [0; BLOCK];
        reader.read_exact(&mut header).context("the archive ends too early")?;
        if header == [0; BLOCK] {
            break;
        }
        let (name, size, kind) = entry(&header)?;
        passed = passed.saturating_add(size);
        ensure!(passed <= LARGEST, "the archive unpacks to more than {LARGEST} bytes");
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        match wanted(&name).filter(|_| kind == Kind::File) {
            Some(most) => {
                ensure!(size <= most as u64, "{name} has {size} bytes, more than {most}");
                ensure!(!found.contains_key(&name), "{name} is there twice");
                // Grows with the bytes read, not with the size in the header.
                let mut bytes = Vec::new();
                reader.take(size).read_to_end(&mut bytes).with_context(|| format!("in {name}"))?;
                ensure!(bytes.len() as u64 == size, "the archive ends within {name}");
                skip(reader, padding)?;
                found.insert(name, bytes);
            }
            None => {
                if matches!(kind, Kind::File | Kind::Link) {
                    ensure!(others.len() < MOST_OTHERS, "the archive has more than {MOST_OTHERS} other members");
                    others.push(name);
                }
                skip(reader, size + padding)?;
            }
        }
    }
    // The checksum of the compression is at its end.
    std::io::copy(&mut reader.take(1 << 20), &mut std::io::sink()).context("after the last member")?;
    Ok((found, others))
}

/// The kind of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Link,
    /// A folder, or an extension of the next header.
    Other,
}

/// The name, size and kind that a header states.
fn entry(header: &[u8; BLOCK]) -> Result<(String, u64, Kind)> {
    let sum: u64 =
        header.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { byte.into() }).sum();
    ensure!(octal(&header[148..156]) == Some(sum), "a header of the archive is damaged");
    let size = octal(&header[124..136]).context("a size in the archive is no number")?;
    let text = |range: std::ops::Range<usize>| {
        let bytes = &header[range];
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let (name, prefix) = (text(0..100), if &header[257..262] == b"ustar" { text(345..500) } else { String::new() });
    let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
    let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
    match header[156] {
        b'0' | 0 => Ok((name, size, Kind::File)),
        b'1' | b'2' => Ok((name, size, Kind::Link)),
        // Devices and folders hold nothing; extensions of names are for names longer than any wanted one.
        b'3'..=b'7' | b'g' | b'x' | b'L' | b'K' => Ok((name, size, Kind::Other)),
        kind => bail!("an entry of kind 0x{kind:02x} in the archive"),
    }
}

/// A number in octal digits, with spaces before and after.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.starts_with('+') { None } else { u64::from_str_radix(text, 8).ok() }
}

fn skip(reader: &mut dyn Read, count: u64) -> Result<()> {
    let passed = std::io::copy(&mut reader.take(count), &mut std::io::sink()).context("the archive is damaged")?;
    ensure!(passed == count, "the archive ends too early");
    Ok(())
}

/// An archive of `members` as `tar` makes it.
#[cfg(test)]
pub(crate) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, contents) in members {
        let mut header = [0u8; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..136].copy_from_slice(format!("{:011o}\0", contents.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        seal(&mut header);
        bytes.extend(header);
        bytes.extend(*contents);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

/// Writes the checksum of a header.
#[cfg(test)]
pub(crate) fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..BLOCK].iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
        read_all(bytes).map(|(found, _)| found)
    }

    fn read_all(bytes: &[u8]) -> Result<Members> {
        members(&mut &bytes[..], &|name| ["folder/a", "b"].contains(&name).then_some(1000))
    }

    #[test]
    fn wanted_members_are_read_and_nothing_else() -> Result<()> {
        let bytes =
            archive(&[("./folder/a", &[1; 513]), ("../b", b"climbs"), ("/b", b"root"), ("b", b""), ("c", &[7; 600])]);
        let (found, others) = read_all(&bytes)?;
        assert_eq!(others, ["../b", "/b", "c"]);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["b", "folder/a"]);
        assert_eq!((found["folder/a"].len(), found["b"].len()), (513, 0));
        Ok(())
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = archive(&[("folder/a", &[1; 700]), ("c", &[2; 10])]);
        // Of the two blocks of zeros at the end, one is enough.
        let needed = bytes.len() - BLOCK;
        assert!((0..needed).all(|length| read(&bytes[..length]).is_err()));
        assert!(read(&bytes[..needed]).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = archive(&[("folder/a", &[1; 700])]);
            change(&mut bytes);
            format!("{:#}", read(&bytes).expect_err("a bad archive"))
        };
        let field = |at: usize, text: &'static [u8]| {
            changed(&|bytes| {
                bytes[at..at + text.len()].copy_from_slice(text);
                seal(bytes);
            })
        };
        assert_eq!(changed(&|bytes| bytes[0] ^= 1), "a header of the archive is damaged");
        assert_eq!(field(124, b"0000000z"), "a size in the archive is no number");
        assert_eq!(field(124, b"00000001751"), "folder/a has 1001 bytes, more than 1000");
        assert_eq!(field(124, b"77777777777"), "the archive unpacks to more than 4294967296 bytes");
        assert_eq!(field(156, b"?"), "an entry of kind 0x3f in the archive");
        assert_eq!(changed(&|bytes| bytes.truncate(900)), "the archive ends within folder/a");
        assert_eq!(changed(&|bytes| bytes.truncate(0)), "the archive ends too early: failed to fill whole buffer");
        let twice = archive(&[("b", b"1"), ("b", b"2")]);
        assert_eq!(read(&twice).expect_err("twice").to_string(), "b is there twice");
    }
}
