//! The stack machine that a pickle is a program for, opcode by opcode.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

use super::value::{Made, Object, Value};

/// How many opcodes a pickle may have: it bounds the memory that a hostile one can ask for to some hundred megabytes.
const MOST_OPCODES: usize = 1 << 22;

/// The state of the machine.
pub(super) struct Machine<'a, 'n> {
    /// The bytes not read yet.
    pub(super) rest: &'a [u8],
    /// The functions and classes that may be named.
    names: &'n [&'static str],
    /// The objects made so far.
    pub(super) objects: Vec<Object<'a>>,
    stack: Vec<Value<'a>>,
    /// Lengths of the stack; nothing below the last one may be taken.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
}

impl<'a, 'n> Machine<'a, 'n> {
    /// The state before the first opcode.
    pub(super) fn new(bytes: &'a [u8], names: &'n [&'static str]) -> Self {
        Self { rest: bytes, names, objects: vec![], stack: vec![], marks: vec![], memo: HashMap::new() }
    }

    /// Runs to the end of the pickle and returns its value.
    pub(super) fn run(&mut self) -> Result<Value<'a>> {
        ensure!(matches!(self.rest, [0x80, 2..=5, ..]), "not a pickle of protocol 2 to 5");
        self.take(2)?;
        for _ in 0..MOST_OPCODES {
            let opcode = self.byte()?;
            if opcode == b'.' {
                let value = self.pop()?;
                ensure!(self.stack.is_empty() && self.marks.is_empty(), "more than one value");
                return Ok(value);
            }
            let value = self.step(opcode)?;
            self.stack.extend(value);
        }
        bail!("more than {MOST_OPCODES} opcodes");
    }

    /// Executes an opcode, and returns the value that it pushes.
    fn step(&mut self, opcode: u8) -> Result<Option<Value<'a>>> {
        Ok(Some(match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Integer(self.byte()?.into()),
            b'M' => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            0x8a => integer(self.counted(1)?),
            0x8b => integer(self.counted(4)?),
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            0x8c => self.string(1)?,
            b'X' => self.string(4)?,
            0x8d => self.string(8)?,
            b'U' | b'C' => Value::Bytes(self.counted(1)?),
            b'T' | b'B' => Value::Bytes(self.counted(4)?),
            0x8e | 0x96 => Value::Bytes(self.counted(8)?),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?
            }
            0x93 => {
                let (name, module) = (self.pop()?.text(), self.pop()?.text());
                self.global(module.context("a module that is no string")?, name.context("a name that is no string")?)?
            }
            b'}' => self.make(Object::Dict(vec![])),
            b']' => self.make(Object::List(vec![])),
            b')' => self.make(Object::Tuple(vec![])),
            b't' => {
                let elements = self.since_mark()?;
                self.make(Object::Tuple(elements))
            }
            count @ 0x85..=0x87 => {
                let mut elements = (0..count - 0x84).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
                elements.reverse();
                self.make(Object::Tuple(elements))
            }
            b'R' | 0x81 => self.call()?,
            b'Q' => {
                let identifier = self.pop()?;
                self.make(Object::Outside(identifier))
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            other => return self.change(other).map(|()| None),
        }))
    }

    /// Executes an opcode that pushes nothing.
    fn change(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'q' => {
                let number = self.number(1)? as u32;
                self.remember(number)?;
            }
            b'r' => {
                let number = self.number(4)? as u32;
                self.remember(number)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            // A frame states the size of the next part, which only matters to buffered readers.
            0x95 => drop(self.take(8)?),
            b'a' => {
                let value = self.pop()?;
                self.append(&[value])?;
            }
            b'e' => {
                let values = self.since_mark()?;
                self.append(&values)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let pairs = self.since_mark()?;
                self.set(&pairs)?;
            }
            b'b' => self.build()?,
            other => bail!("refused: opcode 0x{other:02x}"),
        }
        Ok(())
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

    /// A little-endian number of `width` bytes.
    fn number(&mut self, width: usize) -> Result<usize> {
        Ok(self.take(width)?.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    /// Bytes behind their number.
    fn counted(&mut self, width: usize) -> Result<&'a [u8]> {
        let count = self.number(width)?;
        self.take(count)
    }

    fn string(&mut self, width: usize) -> Result<Value<'a>> {
        Ok(Value::Text(std::str::from_utf8(self.counted(width)?).context("a string that is not UTF-8")?))
    }

    fn line(&mut self) -> Result<&'a str> {
        let length = self.rest.iter().position(|&byte| byte == b'\n').context("the file ends too early")?;
        let line = self.take(length + 1)?;
        std::str::from_utf8(&line[..length]).context("a name that is not UTF-8")
    }

    fn global(&self, module: &str, name: &str) -> Result<Value<'a>> {
        let is_it = |known: &str| {
            known.strip_prefix(module).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| rest == name)
        };
        match self.names.iter().find(|known| is_it(known)) {
            Some(known) => Ok(Value::Global(known)),
            None => bail!("refused: {}.{}", module.escape_debug(), name.escape_debug()),
        }
    }

    fn make(&mut self, object: Object<'a>) -> Value<'a> {
        self.objects.push(object);
        Value::Object(self.objects.len() - 1)
    }

    fn recall(&mut self, width: usize) -> Result<Value<'a>> {
        let number = self.number(width)?;
        self.memo.get(&(number as u32)).copied().with_context(|| format!("nothing stands in the memo at {number}"))
    }

    fn remember(&mut self, number: u32) -> Result<()> {
        let value = self.top()?;
        self.memo.insert(number, value);
        Ok(())
    }

    fn top(&self) -> Result<Value<'a>> {
        ensure!(self.stack.len() > self.marks.last().copied().unwrap_or(0), "a value is missing");
        self.stack.last().copied().context("a value is missing")
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn since_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let start = self.marks.pop().context("a mark is missing")?;
        Ok(self.stack.split_off(start))
    }

    /// The object on top of the stack.
    fn target(&mut self) -> Result<&mut Object<'a>> {
        let Value::Object(number) = self.top()? else { bail!("a change of something that is no container") };
        self.objects.get_mut(number).context("an object is missing")
    }

    fn append(&mut self, values: &[Value<'a>]) -> Result<()> {
        let Object::List(elements) = self.target()? else { bail!("appending to something else than a list") };
        elements.extend(values);
        Ok(())
    }

    fn set(&mut self, pairs: &[Value<'a>]) -> Result<()> {
        let (pairs, rest) = pairs.as_chunks::<2>();
        ensure!(rest.is_empty(), "a key without a value");
        let entries = match self.target()? {
            Object::Dict(entries) => entries,
            Object::Made(made) => &mut made.items,
            _ => bail!("setting items of something else than a dict"),
        };
        entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn call(&mut self) -> Result<Value<'a>> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(function) = function else { bail!("a call of something that is no function") };
        let tuple = matches!(arguments, Value::Object(number) if matches!(self.objects[number], Object::Tuple(_)));
        ensure!(tuple, "a call of {function} without a tuple");
        let made = Made { function, arguments, items: vec![], state: None };
        Ok(self.make(Object::Made(Box::new(made))))
    }

    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let Object::Made(made) = self.target()? else { bail!("a state of something that was not made by a call") };
        ensure!(made.state.is_none(), "a second state");
        made.state = Some(state);
        Ok(())
    }
}

fn integer(bytes: &[u8]) -> Value<'_> {
    let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    match wide.get_mut(..bytes.len()) {
        Some(low) => {
            low.copy_from_slice(bytes);
            Value::Integer(i64::from_le_bytes(wide))
        }
        None => Value::Long(bytes),
    }
}
