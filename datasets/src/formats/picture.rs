//! JPEG and PNG files as planes of bytes.

use anyhow::{Context, Result, bail, ensure};
use jpeg_decoder::{Decoder, PixelFormat};
use png::{BitDepth, ColorType, Transformations};

/// Pixels on a side at most. A header that states more is damaged, or not for us.
const LARGEST_SIDE: usize = 4096;

/// The size and colours of a picture, from its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Whether it has no colours.
    pub(crate) grey: bool,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

/// The size of the JPEG or PNG file `bytes`, by its header alone.
pub(crate) fn size(bytes: &[u8]) -> Result<Size> {
    if bytes.starts_with(&[0xff, 0xd8]) {
        let mut decoder = Decoder::new(bytes);
        decoder.read_info().context("a damaged JPEG")?;
        return jpeg_size(&decoder);
    }
    ensure!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "neither JPEG nor PNG");
    png_size(&png_reader(bytes)?)
}

/// The pixels of the JPEG or PNG file `bytes` in `channels` planes; grey pictures get three equal ones where three are
/// asked for. Nothing else is converted: colours where one is asked for, another size than `height` and `width`, CMYK
/// and transparent pixels are errors.
pub(crate) fn decode(bytes: &[u8], [channels, height, width]: [usize; 3], planes: &mut [u8]) -> Result<()> {
    let found = size(bytes)?;
    ensure!(
        (found.height, found.width) == (height, width),
        "{}x{} pixels, where others have {height}x{width}",
        found.height,
        found.width
    );
    ensure!(found.grey || channels == 3, "a picture with colours among grey ones");
    let pixels = if bytes.starts_with(&[0xff, 0xd8]) { decode_jpeg(bytes)? } else { decode_png(bytes)? };
    let depth = if found.grey { 1 } else { 3 };
    let expected = height * width * depth;
    ensure!(pixels.len() == expected, "{} bytes of pixels instead of {expected}", pixels.len());
    for (channel, plane) in planes.chunks_exact_mut(height * width).enumerate() {
        let first = if found.grey { 0 } else { channel };
        for (out, &pixel) in plane.iter_mut().zip(pixels[first..].iter().step_by(depth)) {
            *out = pixel;
        }
    }
    Ok(())
}

fn checked(grey: bool, height: usize, width: usize) -> Result<Size> {
    let range = 1..=LARGEST_SIDE;
    ensure!(
        range.contains(&height) && range.contains(&width),
        "{height}x{width} pixels, more than {LARGEST_SIDE} or none"
    );
    Ok(Size { grey, height, width })
}

fn jpeg_size(decoder: &Decoder<&[u8]>) -> Result<Size> {
    let info = decoder.info().context("a damaged JPEG")?;
    let grey = match info.pixel_format {
        PixelFormat::L8 => true,
        PixelFormat::RGB24 => false,
        PixelFormat::CMYK32 => bail!("a JPEG with CMYK colours; convert it to RGB"),
        PixelFormat::L16 => bail!("a JPEG of 16 bits; convert it to 8"),
    };
    checked(grey, info.height.into(), info.width.into())
}

fn decode_jpeg(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut decoder = Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(LARGEST_SIDE * LARGEST_SIDE * 3);
    decoder.decode().context("a damaged JPEG")
}

fn png_reader(bytes: &[u8]) -> Result<png::Reader<std::io::Cursor<&[u8]>>> {
    let limits = png::Limits { bytes: LARGEST_SIDE * LARGEST_SIDE * 4 };
    let mut decoder = png::Decoder::new_with_limits(std::io::Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::EXPAND);
    decoder.read_info().context("a damaged PNG")
}

fn png_size(reader: &png::Reader<std::io::Cursor<&[u8]>>) -> Result<Size> {
    let (color, depth) = reader.output_color_type();
    ensure!(depth == BitDepth::Eight, "a PNG of 16 bits; convert it to 8");
    let info = reader.info();
    let grey = matches!(color, ColorType::Grayscale | ColorType::GrayscaleAlpha);
    checked(grey, info.height as usize, info.width as usize)
}

fn decode_png(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut reader = png_reader(bytes)?;
    let (color, _) = reader.output_color_type();
    let size = reader.output_buffer_size().context("a damaged PNG")?;
    let mut pixels = vec![0; size];
    reader.next_frame(&mut pixels).context("a damaged PNG")?;
    reader.finish().context("a damaged PNG")?;
    let depth = color.samples();
    if !matches!(color, ColorType::GrayscaleAlpha | ColorType::Rgba) {
        return Ok(pixels);
    }
    ensure!(pixels.chunks_exact(depth).all(|pixel| pixel[depth - 1] == 255), "a PNG with transparent pixels");
    Ok(pixels.chunks_exact(depth).flat_map(|pixel| &pixel[..depth - 1]).copied().collect())
}

#[cfg(test)]
pub(crate) mod tests;
