//! Pictures of every kind; the JPEG files and libjpeg's pixels for them are made by `fixtures/make.py`.

use super::*;

pub(crate) const COLOUR: &[u8] = include_bytes!("../../../fixtures/colour.jpeg");
pub(crate) const GREY: &[u8] = include_bytes!("../../../fixtures/grey.jpeg");
pub(crate) const CMYK: &[u8] = include_bytes!("../../../fixtures/cmyk.jpeg");
pub(crate) const SMALLER: &[u8] = include_bytes!("../../../fixtures/smaller.jpeg");
const COLOUR_PIXELS: &[u8] = include_bytes!("../../../fixtures/colour.pixels");
const GREY_PIXELS: &[u8] = include_bytes!("../../../fixtures/grey.pixels");

/// A PNG of 16x16 pixels, each of which has the bytes `pixel`.
pub(crate) fn png(color: ColorType, depth: BitDepth, pixel: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 16, 16);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        encoder.set_palette([9, 8, 7, 1, 2, 3].to_vec());
    }
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&pixel.repeat(256)).expect("pixels");
    writer.finish().expect("an end");
    bytes
}

fn planes(bytes: &[u8], channels: usize) -> Result<Vec<u8>> {
    let mut planes = vec![0; channels * 256];
    decode(bytes, [channels, 16, 16], &mut planes)?;
    Ok(planes)
}

#[test]
fn jpeg_files_have_the_pixels_of_libjpeg() -> Result<()> {
    // Decoders round differently; libjpeg's own builds do too.
    for (bytes, expected) in [(COLOUR, COLOUR_PIXELS), (GREY, GREY_PIXELS)] {
        let found = planes(bytes, 3)?;
        let largest = found.iter().zip(expected).map(|(one, other)| one.abs_diff(*other)).max();
        assert!(largest <= Some(4), "{largest:?}");
    }
    assert_eq!(planes(GREY, 1)?, planes(GREY, 3)?[512..]);
    assert_eq!(size(COLOUR)?, Size { grey: false, height: 16, width: 16 });
    assert_eq!(size(SMALLER)?, Size { grey: false, height: 8, width: 16 });
    Ok(())
}

#[test]
fn png_files_of_every_kind_have_their_pixels() -> Result<()> {
    use BitDepth::Eight;
    let rgb = [vec![1; 256], vec![2; 256], vec![3; 256]].concat();
    assert_eq!(planes(&png(ColorType::Rgb, Eight, &[1, 2, 3]), 3)?, rgb);
    assert_eq!(planes(&png(ColorType::Rgba, Eight, &[1, 2, 3, 255]), 3)?, rgb);
    assert_eq!(planes(&png(ColorType::Indexed, Eight, &[1]), 3)?, rgb);
    assert_eq!(planes(&png(ColorType::Grayscale, Eight, &[5]), 1)?, [5; 256]);
    assert_eq!(planes(&png(ColorType::GrayscaleAlpha, Eight, &[5, 255]), 3)?, [5; 768]);
    Ok(())
}

#[test]
fn other_pictures_are_refused_by_name() {
    let wide = |bytes: &[u8]| {
        // The sides follow the marker of the frame.
        let at = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
        [&bytes[..at + 5], &[0x20, 0, 0x20, 0], &bytes[at + 9..]].concat()
    };
    for (bytes, channels, message) in [
        (CMYK.to_vec(), 3, "a JPEG with CMYK colours"),
        (SMALLER.to_vec(), 3, "8x16 pixels, where others have 16x16"),
        (COLOUR.to_vec(), 1, "a picture with colours among grey ones"),
        (COLOUR[..COLOUR.len() / 4].to_vec(), 3, "a damaged JPEG"),
        (wide(COLOUR), 3, "8192x8192 pixels, more than 4096"),
        (b"GIF89a".to_vec(), 3, "neither JPEG nor PNG"),
        (png(ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 254]), 3, "transparent pixels"),
        (png(ColorType::Grayscale, BitDepth::Sixteen, &[1, 2]), 3, "a PNG of 16 bits"),
        (png(ColorType::Rgb, BitDepth::Eight, &[1, 2, 3])[..60].to_vec(), 3, "a damaged PNG"),
        (b"\x89PNG\r\n\x1a\n".to_vec(), 3, "a damaged PNG"),
    ] {
        let error = format!("{:#}", planes(&bytes, channels).expect_err(message));
        assert!(error.contains(message), "{error} instead of {message}");
    }
}
