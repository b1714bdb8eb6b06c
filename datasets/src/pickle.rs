//! A reader of Python's pickles that executes nothing: what a pickle would call is written down, never called.
//!
//! A pickle is a program for a small stack machine. This machine knows the opcodes by which protocols 2 to 5 describe data
//! and refuses all others. Functions and classes are known by name alone: their user lists the names a pickle may hold,
//! every other one is refused, and what a call by one of them would have made stands in the result as [`Made`].

mod machine;

use anyhow::{Context, Result, ensure};

use self::machine::Machine;

/// A value; strings are slices of the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Integer(i64),
    /// A longer one: two's complement, little-endian.
    Long(&'a [u8]),
    /// A `float`.
    Float(f64),
    /// A `str`.
    Text(&'a str),
    /// `bytes`, or a `str` of Python 2.
    Bytes(&'a [u8]),
    /// A function or class, by its module and name with a dot between them.
    Global(&'static str),
    /// A container: its number among the [`Pickle`]'s objects. Several values may share one, and one may hold itself.
    Object(usize),
}

impl<'a> Value<'a> {
    /// The string, whichever Python wrote it.
    pub fn text(self) -> Option<&'a str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// Something that holds values.
#[derive(Debug, Clone, PartialEq)]
enum Object<'a> {
    List(Vec<Value<'a>>),
    Tuple(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Outside(Value<'a>),
    Made(Box<Made<'a>>),
}

/// What a call would have made.
#[derive(Debug, Clone, PartialEq)]
pub struct Made<'a> {
    /// The function or class.
    pub function: &'static str,
    /// The tuple that it would have been called with.
    pub arguments: Value<'a>,
    /// What would have been set in the result as in a dict.
    pub items: Vec<(Value<'a>, Value<'a>)>,
    /// What would have become its state.
    pub state: Option<Value<'a>>,
}

/// The contents of a pickle.
#[derive(Debug, Clone, PartialEq)]
pub struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    /// The one value that was pickled.
    pub root: Value<'a>,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle that holds no other functions and classes than `names`, each written `module.name`.
    ///
    /// # Errors
    /// Whatever is no pickle of protocols 2 to 5, is cut short, goes on behind its end, or has another name in it; with the
    /// byte where the reading stopped.
    pub fn read(bytes: &'a [u8], names: &[&'static str]) -> Result<Self> {
        let (pickle, rest) = Self::read_first(bytes, names)?;
        ensure!(rest.is_empty(), "at byte {}: bytes after the end", bytes.len() - rest.len());
        Ok(pickle)
    }

    /// Reads the pickle at the beginning of `bytes`, and returns what follows it too.
    ///
    /// # Errors
    /// As [`read`](Self::read), but for what may follow.
    pub fn read_first(bytes: &'a [u8], names: &[&'static str]) -> Result<(Self, &'a [u8])> {
        let mut machine = Machine::new(bytes, names);
        let root = machine.run();
        let root = root.with_context(|| format!("at byte {}", bytes.len() - machine.rest.len()))?;
        Ok((Self { objects: machine.objects, root }, machine.rest))
    }

    fn object(&self, value: Value) -> Option<&Object<'a>> {
        if let Value::Object(number) = value { self.objects.get(number) } else { None }
    }

    /// The elements of a list or tuple.
    pub fn elements(&self, value: Value) -> Option<&[Value<'a>]> {
        match self.object(value)? {
            Object::List(elements) | Object::Tuple(elements) => Some(elements),
            _ => None,
        }
    }

    /// The keys and values of a dict, in the order in which they were set.
    pub fn entries(&self, value: Value) -> Option<&[(Value<'a>, Value<'a>)]> {
        if let Object::Dict(entries) = self.object(value)? { Some(entries) } else { None }
    }

    /// The value of `key`, if this is a dict that has it.
    pub fn get(&self, value: Value, key: &str) -> Option<Value<'a>> {
        // A key that is set twice keeps the last value.
        let mut entries = self.entries(value)?.iter().rev();
        entries.find(|(name, _)| name.text() == Some(key)).map(|(_, value)| *value)
    }

    /// What a call would have made.
    pub fn made(&self, value: Value) -> Option<&Made<'a>> {
        if let Object::Made(made) = self.object(value)? { Some(made) } else { None }
    }

    /// The identifiers of all that stands outside the pickle, also of what nothing in it speaks of any more.
    pub fn outsides(&self) -> impl Iterator<Item = Value<'a>> {
        self.objects
            .iter()
            .filter_map(|object| if let Object::Outside(identifier) = object { Some(*identifier) } else { None })
    }

    /// The identifier of something that stands outside the pickle (a "persistent id").
    pub fn outside(&self, value: Value) -> Option<Value<'a>> {
        if let Object::Outside(identifier) = self.object(value)? { Some(*identifier) } else { None }
    }
}

#[cfg(test)]
mod tests;
