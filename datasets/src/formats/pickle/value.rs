//! The values that a pickle describes, and the objects that hold them.

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
    /// `bytes`, `bytearray`, or a `str` of Python 2.
    Bytes(&'a [u8]),
    /// A function or class, by its module and name with a dot between them.
    Global(&'static str),
    /// A container: its number among the [`Pickle`](super::Pickle)'s objects. Several values may share one, and one may hold itself.
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

/// A container of values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Object<'a> {
    List(Vec<Value<'a>>),
    Tuple(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Outside(Value<'a>),
    Made(Box<Made<'a>>),
}

/// The result of a call, which is described and never made.
#[derive(Debug, Clone, PartialEq)]
pub struct Made<'a> {
    /// The function or class.
    pub function: &'static str,
    /// The tuple of its arguments.
    pub arguments: Value<'a>,
    /// Items set in the result, as in a dict.
    pub items: Vec<(Value<'a>, Value<'a>)>,
    /// Its state, if one is set.
    pub state: Option<Value<'a>>,
}
