//! The shape of an image on the command line.

/// Channels, height and width: `3x32x32`.
pub(super) fn shape(text: &str) -> Result<[usize; 3], String> {
    let sizes = text.split('x').map(|size| size.parse().ok().filter(|size| (1..=4096).contains(size)));
    let sizes: Option<Vec<usize>> = sizes.collect();
    sizes
        .and_then(|sizes| sizes.try_into().ok())
        .ok_or_else(|| "expected channels, height and width, as in 3x32x32".into())
}
