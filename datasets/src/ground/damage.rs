//! Damaged files for tests of readers, in this crate and in those above it.
//!
//! The inputs are functions of a seed and their number. `IAD_FUZZ_INPUTS` (for a fast reader, 10,000 every day) and
//! `IAD_FUZZ_SEED` change them; `make fuzz` takes many more than the tests of every day.

use std::env;
use std::process::Command;

use anyhow::{Result, ensure};

use super::random::{Draws, Purpose, bits};

const CHILD: &str = "IAD_FUZZ_CHILD";
/// The inputs of a fast reader in the tests of every day.
const USUAL: u64 = 10_000;

/// Numbers one after the other, the same for the same input.
pub struct Dice {
    key: u64,
    thrown: u32,
}

impl Dice {
    /// Those of the input of that number for the reader of that number.
    pub fn new(reader: usize, input: u64) -> Self {
        let seed = number("IAD_FUZZ_SEED", 1);
        Self { key: Draws::new(seed, Purpose::Shuffle, reader as u64).key(input), thrown: 0 }
    }

    /// A number from 0 up to `bound`, without it.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.thrown += 1;
        u64::from(bits(self.key, self.thrown)) % bound
    }
}

/// The number of inputs for a reader that usually gets `usual`; slow readers get fewer than others, in any case.
pub fn inputs(usual: u64) -> u64 {
    usual * number("IAD_FUZZ_INPUTS", USUAL) / USUAL
}

fn number(name: &str, usual: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A change of one of `files`; the dice decide which.
pub fn change(files: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = files[dice.below(files.len() as u64) as usize].clone();
    // Many files are given as they are: some are wrong in a way that no change makes.
    for _ in 0..dice.below(4) {
        let length = bytes.len() as u64;
        if length < 2 {
            return bytes;
        }
        // Headers are at either end.
        let at = match dice.below(4) {
            0 => dice.below(length.min(64)),
            1 => length - 1 - dice.below(length.min(128)),
            _ => dice.below(length),
        } as usize;
        match dice.below(8) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = dice.below(256) as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5) as usize],
            3 => {
                let wide = [2, 4, 8][dice.below(3) as usize].min(bytes.len() - at);
                bytes[at..at + wide].fill([0, 0x7f, 0xff][dice.below(3) as usize]);
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..(at + 1 + dice.below(8) as usize).min(length as usize))),
            6 => {
                let copied = bytes[at..(at + 1 + dice.below(40) as usize).min(length as usize)].to_vec();
                let to = dice.below(length) as usize;
                bytes.splice(to..to, copied);
            }
            _ => bytes.swap(at, dice.below(length) as usize),
        }
    }
    bytes
}

/// Whether this process is the one that [`in_limited_memory`] starts.
pub fn is_limited() -> bool {
    env::var_os(CHILD).is_some()
}

/// Runs the test `name` again in a process of `kilobytes` of addresses: an allocation beyond them ends that process.
///
/// # Errors
/// It fails, with what it said.
pub fn in_limited_memory(name: &str, kilobytes: u64) -> Result<()> {
    let limited = format!("ulimit -v {kilobytes} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &limited]).arg(env::current_exe()?).args([name, "--exact"]).env(CHILD, "1");
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.contains("1 passed"), "{}: {said}", output.status);
    Ok(())
}

/// Values that a text may have in the place of a number.
const EXTREMES: [&str; 16] = [
    "0",
    "1",
    "-1",
    "0.5",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "1e308",
    "1e-320",
    "nan",
    "null",
    "true",
    "\"\"",
    "[]",
    "{}",
];

/// A change of one of these texts: of some bytes, as in any file, or of a number that becomes an extreme value.
pub fn change_text(files: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = change(files, dice);
    for _ in 0..dice.below(3) {
        let starts = |at: &usize| bytes[*at].is_ascii_digit() && (*at == 0 || !bytes[at - 1].is_ascii_alphanumeric());
        let numbers: Vec<usize> = (0..bytes.len()).filter(starts).collect();
        if numbers.is_empty() {
            return bytes;
        }
        let at = numbers[dice.below(numbers.len() as u64) as usize];
        let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit() || b".e".contains(byte)).count();
        let value = EXTREMES[dice.below(EXTREMES.len() as u64) as usize];
        bytes.splice(at..at + length, value.bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_functions_of_their_number_and_differ() {
        let files = [b"a = 12\nb = [3.5, 4]\n".to_vec()];
        let made = |input| change_text(&files, &mut Dice::new(0, input));
        assert!((0..50).all(|input| made(input) == made(input)));
        assert!((0..50).any(|input| made(input) != made(input + 1)));
        assert!((0..1000).any(|input| made(input).starts_with(b"a = nan\nb")));
    }
}
