//! A reader of Python's pickles that executes nothing: calls are described, never made.
//!
//! A pickle is a program for a small stack machine. This machine knows the opcodes by which protocols 2 to 5 describe data
//! and refuses all others. Functions and classes are known by name alone: their user lists the names a pickle may hold,
//! every other one is refused. The result describes each call as [`Made`].

mod machine;
mod value;

use anyhow::{Context, Result, ensure};

use self::machine::Machine;
use self::value::Object;

pub use self::value::{Made, Value};

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
    /// A file that is no pickle of protocols 2 to 5, is cut short, continues after its end, or holds another name; with the
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

    /// The described result of a call.
    pub fn made(&self, value: Value) -> Option<&Made<'a>> {
        if let Object::Made(made) = self.object(value)? { Some(made) } else { None }
    }

    /// The identifiers of all objects outside the pickle, also of those that no value refers to any more.
    pub fn outsides(&self) -> impl Iterator<Item = Value<'a>> {
        self.objects
            .iter()
            .filter_map(|object| if let Object::Outside(identifier) = object { Some(*identifier) } else { None })
    }

    /// The identifier of an object outside the pickle (a "persistent id").
    pub fn outside(&self, value: Value) -> Option<Value<'a>> {
        if let Object::Outside(identifier) = self.object(value)? { Some(*identifier) } else { None }
    }
}

#[cfg(test)]
mod tests;
