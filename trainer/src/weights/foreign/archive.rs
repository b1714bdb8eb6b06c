//! Zip archives as `torch.save` writes them: records that are stored, not compressed, each at a multiple of 64 bytes.

use anyhow::{Context, Result, ensure};
use datasets::zip::{Member, Zip};
use flate2::Crc;

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const LOCAL_SIZE: usize = 30;
const ALIGNMENT: usize = 64;
/// The year 1980 began.
const DATE: u16 = 1 << 5 | 1;

/// The records of an archive, in the order of its directory.
#[derive(Debug, Default)]
pub struct Archive<'a> {
    /// Names and contents; each name once.
    pub records: Vec<(String, &'a [u8])>,
}

impl<'a> Archive<'a> {
    /// Whether the file begins like an archive with a record in it.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(LOCAL)
    }

    /// Reads an archive. Nothing is unpacked: contents are slices of `bytes`.
    ///
    /// # Errors
    /// A file that is cut short or damaged; compressed, encrypted or overlapping records; two records of one name.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let zip = Zip::open(bytes)?;
        ensure!(zip.not_utf8.is_empty(), "a record's name is not UTF-8: {}", zip.not_utf8.join(", "));
        let record = |member: &Member| -> Result<(String, &'a [u8])> {
            let contents = zip.contents(member).with_context(|| format!("its record {:?}", member.name))?;
            Ok((member.name.clone(), contents))
        };
        Ok(Self { records: zip.members.iter().map(record).collect::<Result<_>>()? })
    }

    /// The contents of a record.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.records.iter().find(|(known, _)| known == name).map(|(_, contents)| *contents)
    }
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
