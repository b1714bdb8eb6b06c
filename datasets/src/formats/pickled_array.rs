//! Arrays of bytes as numpy pickles them.

use std::borrow::Cow;

use anyhow::{Context, Result, bail, ensure};

use crate::formats::pickle::{Pickle, Value};

const NDARRAY: &str = "numpy.ndarray";
const DTYPE: &str = "numpy.dtype";
const ENCODE: &str = "_codecs.encode";
/// Protocols 2 to 4; NumPy 2 calls its inner package `_core`.
const RECONSTRUCT: [&str; 2] = ["numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"];
/// Protocol 5.
const FROM_BUFFER: [&str; 2] = ["numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"];

/// The functions and classes by which a pickle describes an array, of any protocol and NumPy.
pub const NAMES: [&str; 9] = [
    RECONSTRUCT[0],
    RECONSTRUCT[1],
    FROM_BUFFER[0],
    FROM_BUFFER[1],
    NDARRAY,
    DTYPE,
    ENCODE,
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
];

/// The shape and the contents, in C order, of an array of `uint8`.
pub(crate) fn bytes<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<(Vec<usize>, Cow<'a, [u8]>)> {
    let array = pickle.made(value).context("something else than an array")?;
    let (shape, dtype, contents) = if RECONSTRUCT.contains(&array.function) {
        let state = array.state.and_then(|state| pickle.elements(state));
        let Some(&[Value::Integer(1), shape, dtype, Value::Bool(false), contents]) = state else {
            bail!("an array without contents in C order");
        };
        (shape, dtype, contents)
    } else {
        ensure!(FROM_BUFFER.contains(&array.function), "something else than an array");
        match pickle.elements(array.arguments) {
            Some(&[contents, dtype, shape, order]) if order.text() == Some("C") => (shape, dtype, contents),
            _ => bail!("an array without contents in C order"),
        }
    };
    ensure!(is_byte(pickle, dtype), "an array of something else than uint8");
    let contents = buffer(pickle, contents).context("an array without contents in C order")?;
    let shape = pickle.elements(shape).context("an array without a shape")?.iter().map(|size| match size {
        Value::Integer(size) => usize::try_from(*size).context("a negative size"),
        _ => bail!("a size that is not a number"),
    });
    let shape = shape.collect::<Result<Vec<_>>>()?;
    let size = shape.iter().try_fold(1usize, |size, &next| size.checked_mul(next));
    ensure!(size == Some(contents.len()), "{} bytes for an array of shape {shape:?}", contents.len());
    Ok((shape, contents))
}

/// The bytes of a `bytes` value. Python 3 writes it into protocol 2 as a text in Latin-1.
fn buffer<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<Cow<'a, [u8]>> {
    if let Value::Bytes(bytes) = value {
        return Some(Cow::Borrowed(bytes));
    }
    let made = pickle.made(value).filter(|made| made.function == ENCODE)?;
    let &[Value::Text(text), code] = pickle.elements(made.arguments)? else { return None };
    code.text().filter(|code| *code == "latin1")?;
    text.chars().map(|letter| u8::try_from(letter).ok()).collect::<Option<Vec<u8>>>().map(Cow::Owned)
}

fn is_byte(pickle: &Pickle, dtype: Value) -> bool {
    let made = pickle.made(dtype).filter(|made| made.function == DTYPE);
    let arguments = made.and_then(|made| pickle.elements(made.arguments));
    arguments.and_then(|arguments| arguments.first()).and_then(|code| code.text()) == Some("u1")
}

#[cfg(test)]
mod samples;
#[cfg(test)]
pub(crate) use samples::{batch, batch_of_hundred, meta};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Vec<u8> {
        batch(&[3, 9], &vec![7; 2 * 3072])
    }

    fn read(pickle: &[u8]) -> Result<(Vec<usize>, Cow<'_, [u8]>)> {
        let pickle = Pickle::read(pickle, &NAMES)?;
        let data = pickle.get(pickle.root, "data").context("no data")?;
        bytes(&pickle, data)
    }

    #[test]
    fn a_batch_is_read() {
        let bytes = small();
        let pickle = Pickle::read(&bytes, &NAMES).expect("a batch");
        let labels = pickle.get(pickle.root, "labels").expect("labels");
        assert_eq!(pickle.elements(labels), Some(&[Value::Integer(3), Value::Integer(9)][..]));
        assert_eq!(read(&bytes).expect("an array"), (vec![2, 3072], Cow::Borrowed(&[7; 6144][..])));
    }

    /// The same two images as NumPy 2 pickles them by each protocol; fixtures/make.py made them.
    #[test]
    fn arrays_of_every_protocol_are_read() {
        let files: [&[u8]; 4] = [
            include_bytes!("../../fixtures/numpy2_protocol2.pickle"),
            include_bytes!("../../fixtures/numpy2_protocol3.pickle"),
            include_bytes!("../../fixtures/numpy2_protocol4.pickle"),
            include_bytes!("../../fixtures/numpy2_protocol5.pickle"),
        ];
        let pixels: Vec<u8> = (0..6144).map(|at| (at * 7) as u8).collect();
        for (file, protocol) in files.into_iter().zip(2..) {
            let found = read(file).unwrap_or_else(|error| panic!("protocol {protocol}: {error:#}"));
            assert_eq!(found, (vec![2, 3072], Cow::Borrowed(&pixels[..])), "protocol {protocol}");
        }
    }

    #[test]
    fn other_arrays_are_refused() {
        let good = small();
        for (old, new, message) in [
            (&b"U\x02u1"[..], &b"U\x02i1"[..], "something else than uint8"),
            (b"M\x00\x0c", b"M\x01\x0c", "6144 bytes for an array of shape [2, 3073]"),
            (b"M\x00\x0c\x86", b"M\x00\x0c\x85", "an array without contents"),
            (b"tb\x89T", b"tb\x88T", "an array without contents in C order"),
            (b"numpy\nndarray", b"numpy\nrecarray", "refused: numpy.recarray"),
        ] {
            let at = good.windows(old.len()).position(|window| window == old).expect("in the pickle");
            let bad = [&good[..at], new, &good[at + old.len()..]].concat();
            let error = format!("{:#}", read(&bad).expect_err("another array"));
            assert!(error.contains(message), "{error} instead of {message}");
        }
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(changes in prop::collection::vec((0usize..400, any::<u8>()), 1..6), tail: bool) {
            let mut pickle = small();
            let length = pickle.len();
            for (at, byte) in changes {
                pickle[if tail { length - 1 - at % 40 } else { at }] = byte;
            }
            let _ = read(&pickle);
        }
    }
}
