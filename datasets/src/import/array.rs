//! Arrays of bytes as numpy pickles them.

use anyhow::{Context, Result, bail, ensure};

use crate::pickle::{Pickle, Value};

const RECONSTRUCT: &str = "numpy.core.multiarray._reconstruct";
const NDARRAY: &str = "numpy.ndarray";
const DTYPE: &str = "numpy.dtype";

/// The functions and classes by which a pickle describes an array.
pub(super) const NAMES: [&str; 3] = [RECONSTRUCT, NDARRAY, DTYPE];

/// The shape and the contents, in C order, of an array of `uint8`.
pub(super) fn bytes<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<(Vec<usize>, &'a [u8])> {
    let array =
        pickle.made(value).filter(|made| made.function == RECONSTRUCT).context("something else than an array")?;
    let state = array.state.and_then(|state| pickle.elements(state));
    let Some(&[Value::Integer(1), shape, dtype, Value::Bool(false), Value::Bytes(contents)]) = state else {
        bail!("an array without contents in C order");
    };
    ensure!(is_byte(pickle, dtype), "an array of something else than uint8");
    let shape = pickle.elements(shape).context("an array without a shape")?.iter().map(|size| match size {
        Value::Integer(size) => usize::try_from(*size).context("a negative size"),
        _ => bail!("a size that is not a number"),
    });
    let shape = shape.collect::<Result<Vec<_>>>()?;
    let size = shape.iter().try_fold(1usize, |size, &next| size.checked_mul(next));
    ensure!(size == Some(contents.len()), "{} bytes for an array of shape {shape:?}", contents.len());
    Ok((shape, contents))
}

fn is_byte(pickle: &Pickle, dtype: Value) -> bool {
    let made = pickle.made(dtype).filter(|made| made.function == DTYPE);
    let arguments = made.and_then(|made| pickle.elements(made.arguments));
    arguments.and_then(|arguments| arguments.first()).and_then(|code| code.text()) == Some("u1")
}

#[cfg(test)]
mod samples;
#[cfg(test)]
pub(super) use samples::{batch, batch_of_hundred, meta};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Vec<u8> {
        batch(&[3, 9], &vec![7; 2 * 3072])
    }

    fn read(pickle: &[u8]) -> Result<(Vec<usize>, &[u8])> {
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
        assert_eq!(read(&bytes).expect("an array"), (vec![2, 3072], &[7; 6144][..]));
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
