//! A reader for the pickles of CIFAR-10 that executes nothing: it knows their few opcodes and refuses all others.

use anyhow::{Context, Result, bail, ensure};

/// What those pickles are made of; strings and arrays are slices of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Integer(i64),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    Tuple(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// A name of numpy, by which the next three are made.
    Global(&'a str),
    /// The type `uint8`.
    Byte,
    /// A numpy array of `uint8`, in C order; `None` until its contents are known.
    Array(Option<(Vec<usize>, &'a [u8])>),
}

impl<'a> Value<'a> {
    /// The value of `key`, if this is a dict that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Value<'a>> {
        let Value::Dict(entries) = self else { return None };
        entries.iter().find(|(name, _)| *name == Value::Bytes(key.as_bytes())).map(|(_, value)| value)
    }

    /// How many containers stand inside each other here.
    fn depth(&self) -> usize {
        match self {
            Value::List(items) | Value::Tuple(items) => 1 + items.iter().map(Value::depth).max().unwrap_or(0),
            Value::Dict(entries) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }
}

const RECONSTRUCT: &str = "numpy.core.multiarray\n_reconstruct\n";
const NDARRAY: &str = "numpy\nndarray\n";
const DTYPE: &str = "numpy\ndtype\n";

/// Reads the one value of a pickle of protocol 2. An error names the byte where the reading stopped.
pub(super) fn read(bytes: &[u8]) -> Result<Value<'_>> {
    let mut machine = Machine { rest: bytes, stack: Vec::new(), marks: Vec::new() };
    machine.run().with_context(|| format!("at byte {}", bytes.len() - machine.rest.len()))
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value<'a>>,
    /// Lengths of the stack; nothing below the last one may be taken.
    marks: Vec<usize>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value<'a>> {
        ensure!(self.take(2)? == [0x80, 2], "not a pickle of protocol 2");
        loop {
            let value = match self.byte()? {
                b'.' => break,
                // Nothing is ever fetched from the memo, so that putting there is no work.
                b'q' => self.take(1).map(|_| None)?,
                b'r' => self.take(4).map(|_| None)?,
                b'(' => {
                    self.marks.push(self.stack.len());
                    None
                }
                b'N' => Some(Value::None),
                0x88 => Some(Value::Bool(true)),
                0x89 => Some(Value::Bool(false)),
                b'K' => Some(Value::Integer(self.byte()?.into())),
                b'M' => Some(Value::Integer(u16::from_le_bytes(self.array()?).into())),
                b'J' => Some(Value::Integer(i32::from_le_bytes(self.array()?).into())),
                b'U' => Some(self.string(1)?),
                b'T' => Some(self.string(4)?),
                b'c' => Some(self.global()?),
                b'}' => Some(Value::Dict(Vec::new())),
                b']' => Some(Value::List(Vec::new())),
                b't' => Some(Value::Tuple(self.since_mark()?)),
                count @ 0x85..=0x87 => Some(Value::Tuple(self.pop_many(usize::from(count - 0x84))?)),
                b'e' => Some(self.append()?),
                b'u' => Some(self.set_items()?),
                b'R' => Some(self.reduce()?),
                b'b' => Some(self.build()?),
                other => bail!("opcode 0x{other:02x} is not one of CIFAR-10's"),
            };
            self.stack.extend(value);
        }
        ensure!(self.rest.is_empty(), "bytes after the end");
        let value = self.pop()?;
        ensure!(self.stack.is_empty() && self.marks.is_empty(), "more than one value");
        Ok(value)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).context("the file ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    /// A string behind its length, a little-endian number of `width` bytes.
    fn string(&mut self, width: usize) -> Result<Value<'a>> {
        let length = self.take(width)?.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
        self.take(length).map(Value::Bytes)
    }

    fn global(&mut self) -> Result<Value<'a>> {
        let known = [RECONSTRUCT, NDARRAY, DTYPE].into_iter().find(|name| self.rest.starts_with(name.as_bytes()));
        let name = known.context("a name other than those of numpy arrays")?;
        self.take(name.len())?;
        Ok(Value::Global(name))
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        ensure!(self.stack.len() > self.marks.last().copied().unwrap_or(0), "a value is missing");
        self.stack.pop().context("a value is missing")
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value<'a>>> {
        let mut values = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        values.reverse();
        contents(values)
    }

    fn since_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let start = self.marks.pop().context("a mark is missing")?;
        contents(self.stack.split_off(start))
    }

    fn append(&mut self) -> Result<Value<'a>> {
        let mut new = self.since_mark()?;
        let Value::List(mut items) = self.pop()? else { bail!("appending to something else than a list") };
        items.append(&mut new);
        Ok(Value::List(items))
    }

    fn set_items(&mut self) -> Result<Value<'a>> {
        let mut new = self.since_mark()?.into_iter();
        let Value::Dict(mut entries) = self.pop()? else { bail!("setting items of something else than a dict") };
        while let Some(key) = new.next() {
            ensure!(matches!(key, Value::Bytes(_)), "a key that is not a string");
            entries.push((key, new.next().context("a key without a value")?));
        }
        Ok(Value::Dict(entries))
    }

    /// The two calls in these files: an empty array, and the type `uint8`.
    fn reduce(&mut self) -> Result<Value<'a>> {
        use Value::{Bytes, Global, Integer, Tuple};
        let call = self.pop_many(2)?;
        let [Global(name), Tuple(arguments)] = call.as_slice() else { bail!("a call of something unknown") };
        match (*name, arguments.as_slice()) {
            (RECONSTRUCT, [Global(NDARRAY), Tuple(shape), Bytes(b"b")]) if *shape == [Integer(0)] => {
                Ok(Value::Array(None))
            }
            (DTYPE, [Bytes(b"u1"), Integer(0), Integer(1)]) => Ok(Value::Byte),
            _ => bail!("a call other than for an array of uint8"),
        }
    }

    /// The state of the two objects made by `reduce`.
    fn build(&mut self) -> Result<Value<'a>> {
        use Value::{Array, Bool, Byte, Bytes, Integer, None, Tuple};
        let pair = self.pop_many(2)?;
        let [object, Tuple(state)] = pair.as_slice() else { bail!("a state that is not a tuple") };
        match (object, state.as_slice()) {
            (Byte, [Integer(3), Bytes(b"|"), None, None, None, Integer(-1), Integer(-1), Integer(0)]) => Ok(Byte),
            (Array(Option::None), [Integer(1), Tuple(shape), Byte, Bool(false), Bytes(bytes)]) => {
                let shape = shape.iter().map(|size| match size {
                    Integer(size) => usize::try_from(*size).context("a negative size"),
                    _ => bail!("a size that is not a number"),
                });
                let shape = shape.collect::<Result<Vec<_>>>()?;
                let size = shape.iter().try_fold(1usize, |size, &next| size.checked_mul(next));
                ensure!(size == Some(bytes.len()), "{} bytes for an array of shape {shape:?}", bytes.len());
                Ok(Array(Some((shape, *bytes))))
            }
            _ => bail!("a state other than that of an array of uint8"),
        }
    }
}

/// Passes on what a container is to hold. Deep nesting would overflow the stack of whoever walks the value.
fn contents(values: Vec<Value<'_>>) -> Result<Vec<Value<'_>>> {
    ensure!(values.iter().all(|value| value.depth() < 3), "containers nested too deep");
    Ok(values)
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

    fn refusal(pickle: &[u8]) -> String {
        format!("{:#}", read(pickle).expect_err("not a pickle of CIFAR-10"))
    }

    #[test]
    fn a_batch_is_read() {
        let pickle = small();
        let value = read(&pickle).expect("a batch");
        assert_eq!(value.get("labels"), Some(&Value::List(vec![Value::Integer(3), Value::Integer(9)])));
        assert_eq!(value.get("data"), Some(&Value::Array(Some((vec![2, 3072], &[7; 6144])))));
        assert_eq!(value.get("other"), None);
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (pickle, message) in [
            (&b"\x80\x04K\x01."[..], "not a pickle of protocol 2"),
            (b"\x80\x02cos\nsystem\nU\x02ls\x85R.", "at byte 3: a name other than those of numpy arrays"),
            (b"\x80\x02cnumpy\nndarray\nU\x02ls\x85R.", "a call other than for an array of uint8"),
            (b"\x80\x02h\x00.", "at byte 3: opcode 0x68 is not one of CIFAR-10's"),
            (b"\x80\x02K\x01K\x02.", "more than one value"),
            (b"\x80\x02(K\x01.", "more than one value"),
            (b"\x80\x02.", "a value is missing"),
            (b"\x80\x02t.", "a mark is missing"),
            (b"\x80\x02K\x01(\x85.", "a value is missing"),
            (b"\x80\x02K\x01(e.", "something else than a list"),
            (b"\x80\x02}(K\x01Nu.", "a key that is not a string"),
            (b"\x80\x02}(U\x01au.", "a key without a value"),
            (b"\x80\x02K\x01.K", "bytes after the end"),
            (b"\x80\x02T\xff\xff\xff\xff.", "the file ends too early"),
        ] {
            assert!(refusal(pickle).contains(message), "{} instead of {message}", refusal(pickle));
        }
        let nested = [&b"\x80\x02N"[..], &[0x85; 100_000], b"."].concat();
        assert!(refusal(&nested).contains("nested too deep"));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let pickle = small();
        assert!((0..pickle.len()).all(|length| read(&pickle[..length]).is_err()));
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
