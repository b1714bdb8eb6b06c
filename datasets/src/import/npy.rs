//! Arrays of NumPy's `.npy` files: a header that is a literal of Python, and the values behind it.

use anyhow::{Context, Result, bail, ensure};

/// The header of an array.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    /// The type as NumPy writes it, such as `|u1`.
    kind: String,
    pub(super) shape: Vec<usize>,
    /// The offset of the values.
    start: usize,
}

/// How the images of an array lie in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Images {
    pub(super) count: usize,
    /// Channels, height and width.
    pub(super) shape: [usize; 3],
    /// Whether the channels of each pixel lie beside each other.
    pub(super) interleaved: bool,
    /// The offset of the first image.
    pub(super) start: u64,
}

/// Reads the header at the beginning of an array of `size` bytes; `bytes` are as many of them as the header can take.
pub(super) fn header(bytes: &[u8], size: u64) -> Result<Header> {
    let header = bytes.strip_prefix(b"\x93NUMPY").context("not an array of NumPy")?;
    let (length, rest) = match header {
        [1, 0, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, 0, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => bail!("a header of an unknown version"),
    };
    let start = (bytes.len() - rest.len()).saturating_add(length);
    let header = rest.get(..length).context("the header ends too early")?;
    let header = std::str::from_utf8(header).context("the header")?;
    let field = |name: &str| -> Result<&str> {
        let after = header.split_once(&format!("'{name}':")).with_context(|| format!("no {name} in the header"))?.1;
        Ok(after.trim_start())
    };
    let kind =
        field("descr")?.strip_prefix('\'').and_then(|text| text.split_once('\'')).context("a type of records")?.0;
    ensure!(field("fortran_order")?.starts_with("False"), "an array in Fortran's order");
    let shape =
        field("shape")?.strip_prefix('(').and_then(|text| text.split_once(')')).context("no shape in the header")?.0;
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let shape: Vec<usize> = sizes.map(str::parse).collect::<Result<_, _>>().context("the shape")?;
    let width = match kind {
        "|u1" | "|i1" => 1usize,
        "<u2" | "<i2" => 2,
        "<u4" | "<i4" => 4,
        "<u8" | "<i8" => 8,
        other => bail!("numbers of type {other}"),
    };
    let expected = shape.iter().try_fold(width, |size, &next| size.checked_mul(next));
    let found = size.saturating_sub(start as u64);
    ensure!(expected.is_some_and(|size| size as u64 == found), "{found} bytes for shape {shape:?} of {kind}");
    Ok(Header { kind: kind.to_owned(), shape, start })
}

/// The images of an array of `uint8`.
pub(super) fn images(header: &Header) -> Result<Images> {
    let Header { kind, shape, start } = header;
    ensure!(kind == "|u1", "of type {kind} instead of |u1 (uint8)");
    ensure!(!shape.contains(&0), "empty, with shape {shape:?}");
    let colours = |size: usize| size == 1 || size == 3;
    let (count, planes, interleaved) = match shape[..] {
        [count, height, width] => (count, [1, height, width], false),
        [count, height, width, channels] if colours(channels) && !colours(height) => {
            (count, [channels, height, width], true)
        }
        [count, channels, height, width] if colours(channels) && !colours(width) => {
            (count, [channels, height, width], false)
        }
        _ => bail!("of shape {shape:?}, in which the channels cannot be told"),
    };
    Ok(Images { count, shape: planes, interleaved, start: *start as u64 })
}

/// The labels in an array of any integer type, `[N]` or `[N, 1]`, below 65,536.
pub(super) fn labels(bytes: &[u8]) -> Result<Vec<i64>> {
    let Header { kind, shape, start } = header(bytes, bytes.len() as u64)?;
    ensure!(matches!(shape[..], [_] | [_, 1]), "of shape {shape:?} instead of [N]");
    let width = usize::from(kind.as_bytes()[2] - b'0');
    let labels = bytes[start..].chunks_exact(width).enumerate().map(|(record, bytes)| {
        let negative = kind.as_bytes()[1] == b'i' && bytes[width - 1] & 0x80 != 0;
        let value = bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        ensure!(!negative && value < 1 << 16, "a label of no class in record {record}");
        Ok(value as i64)
    });
    labels.collect()
}

/// Reads an array in memory as images or as labels.
#[cfg(test)]
pub(super) fn read_array(bytes: &[u8]) -> Result<()> {
    let header = header(bytes, bytes.len() as u64)?;
    if header.shape.len() > 2 { images(&header).map(drop) } else { labels(bytes).map(drop) }
}
