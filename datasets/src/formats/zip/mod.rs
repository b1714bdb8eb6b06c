//! A reader of zip archives by position: nothing is unpacked to the disk, and many threads read one archive.
//!
//! Members are stored or deflated, with 32-bit or 64-bit records. Before any contents are read, the directory shows that
//! members lie within the archive, that none overlaps another and that no name occurs twice. Memory follows the real
//! size of the file, never a number that the file states.

mod at;
mod directory;

use std::io::{self, Read};

use anyhow::{Context, Result, ensure};
use flate2::Crc;
use flate2::read::DeflateDecoder;

use self::directory::{Directory, LOCAL, word};

pub use self::at::At;
pub use self::directory::Member;

/// Deflate packs at best 1,032 bytes into one.
const DENSEST: u64 = 1032;

/// An archive whose directory has been read.
#[derive(Debug)]
pub struct Zip<B> {
    bytes: B,
    /// Its files, in the order of its directory.
    pub members: Vec<Member>,
    /// Its entries for folders, without the last `/`.
    pub folders: Vec<String>,
    /// Names that are not UTF-8, with a replacement character for each wrong byte. Their contents cannot be read.
    pub not_utf8: Vec<String>,
}

impl<B: At> Zip<B> {
    /// Reads the directory of an archive.
    ///
    /// # Errors
    /// No archive, one that is cut short or damaged, one with encrypted members or with other compression than deflate.
    pub fn open(bytes: B) -> Result<Self> {
        let length = bytes.length()?;
        let Directory { members, folders, not_utf8 } = directory::read(&bytes, length)?;
        Ok(Self { bytes, members, folders, not_utf8 })
    }

    /// The member `name`.
    pub fn find(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The contents of `member`, which must have at most `most` bytes. Compares the checksum.
    ///
    /// # Errors
    /// More bytes, or damage to the member.
    pub fn read(&self, member: &Member, most: u64) -> Result<Vec<u8>> {
        let size = member.size;
        ensure!(size <= most, "{size} bytes, more than {most}");
        let mut unpacked = self.unpack(member)?;
        let mut contents = Vec::with_capacity(size as usize);
        unpacked.read_to_end(&mut contents).context("its compression is damaged")?;
        ensure!(contents.len() as u64 == size, "it does not unpack to the {size} bytes stated");
        let mut crc = Crc::new();
        crc.update(&contents);
        ensure!(crc.sum() == member.crc, "its checksum is wrong");
        Ok(contents)
    }

    /// Reads all of `member` in pieces and compares its size and its checksum.
    ///
    /// # Errors
    /// Damage to the member.
    pub fn check(&self, member: &Member) -> Result<()> {
        let (mut crc, mut piece, mut left) = (Crc::new(), vec![0; 1 << 20], member.size);
        let mut contents = self.unpack(member)?;
        loop {
            let count = contents.read(&mut piece).context("its compression is damaged")?;
            let wrong = || format!("it does not unpack to the {} bytes stated", member.size);
            if count == 0 {
                ensure!(left == 0, wrong());
                break;
            }
            left = left.checked_sub(count as u64).with_context(wrong)?;
            crc.update(&piece[..count]);
        }
        ensure!(crc.sum() == member.crc, "its checksum is wrong");
        Ok(())
    }

    /// The contents of `member` from the first byte on, unpacked piece by piece. Does not compare the checksum.
    ///
    /// # Errors
    /// A damaged header; reading fails where the contents are damaged. At most one byte more than stated is read.
    pub fn unpack<'a>(&self, member: &Member) -> Result<Box<dyn Read + Send + 'a>>
    where
        B: 'a,
    {
        let at = self.start(member)?;
        // Checked before anything is allocated: the stated size must be possible.
        let (size, packed) = (member.size, member.packed);
        ensure!(size <= packed.saturating_mul(DENSEST), "{packed} bytes cannot unpack to {size}");
        let stored = Stored { bytes: self.bytes.clone(), at, end: at + packed };
        Ok(if member.deflated { Box::new(DeflateDecoder::new(stored).take(size + 1)) } else { Box::new(stored) })
    }

    /// Fills `bytes` from `offset` in the contents of a stored `member`.
    ///
    /// # Errors
    /// A compressed member, or a range beyond its end.
    pub fn fill(&self, member: &Member, bytes: &mut [u8], offset: u64) -> Result<()> {
        ensure!(!member.deflated, "it is compressed");
        let within = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= member.size);
        ensure!(within, "it ends too early");
        Ok(self.bytes.fill(bytes, self.start(member)? + offset)?)
    }

    /// The offset of the contents of `member`.
    fn start(&self, member: &Member) -> Result<u64> {
        let mut header = [0; LOCAL as usize];
        self.bytes.fill(&mut header, member.header).context("its header lies outside the archive")?;
        ensure!(header[..4] == *b"PK\x03\x04", "its header is damaged");
        let (name, extra) = (word(&header, 26), word(&header, 28));
        let start = member.header + LOCAL + u64::from(name) + u64::from(extra);
        let fits = start.checked_add(member.packed).is_some_and(|end| end <= member.end);
        ensure!(fits, "it lies outside the archive, or over another member");
        let mut found = vec![0; name.into()];
        self.bytes.fill(&mut found, member.header + LOCAL).context("its header lies outside the archive")?;
        ensure!(found == member.name.as_bytes(), "its header names another member");
        Ok(start)
    }
}

impl<'a> Zip<&'a [u8]> {
    /// The contents of a stored `member` where they are, without a copy. Compares the checksum.
    ///
    /// # Errors
    /// A compressed member, or damage to it.
    pub fn contents(&self, member: &Member) -> Result<&'a [u8]> {
        ensure!(!member.deflated, "it is compressed");
        let start = self.start(member)? as usize;
        let contents = &self.bytes[start..start + member.size as usize];
        let mut crc = Crc::new();
        crc.update(contents);
        ensure!(crc.sum() == member.crc, "its checksum is wrong");
        Ok(contents)
    }
}

/// The bytes of a member as they lie in the archive, one after the other.
struct Stored<B> {
    bytes: B,
    at: u64,
    end: u64,
}

impl<B: At> Read for Stored<B> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let count = piece.len().min((self.end - self.at).min(1 << 30) as usize);
        self.bytes.fill(&mut piece[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
pub(crate) mod tests;
