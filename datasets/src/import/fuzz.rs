//! Changed files for every reader of bytes: no panic, no memory beyond a small bound, and every message is reached.
//!
//! The inputs are functions of a seed and their number. `IAD_FUZZ_INPUTS` (for each reader) and `IAD_FUZZ_SEED` change
//! them; `make fuzz` takes many more than the tests of every day.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::ground::memory::numbered;
use crate::ground::random::bits;
use crate::{Container, Draws, Layout, Purpose, Source, Split, UserError};

mod readers;

use readers::{Reader, readers};

/// Inputs for each of the readers; there are eleven.
const INPUTS: u64 = 10_000;
/// Kilobytes of addresses that all readers together may take: what a test program takes anyway, and some.
const MEMORY: u32 = 700_000;
const CHILD: &str = "IAD_FUZZ_CHILD";

/// Numbers one after the other, the same for the same input.
struct Dice {
    key: u64,
    thrown: u32,
}

impl Dice {
    fn new(reader: usize, input: u64) -> Self {
        let seed = number("IAD_FUZZ_SEED", 1);
        Self { key: Draws::new(seed, Purpose::Shuffle, reader as u64).key(input), thrown: 0 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.thrown += 1;
        u64::from(bits(self.key, self.thrown)) % bound
    }
}

/// A change of a file; the dice decide which.
fn change(files: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
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

fn number(name: &str, usual: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Runs this test again in a process whose memory is limited: an allocation beyond it ends that process.
#[test]
fn every_reader_survives_changed_files_and_reaches_every_message() -> Result<()> {
    if env::var_os(CHILD).is_some() {
        readers().iter().enumerate().for_each(|(number, reader)| survives(number, reader));
        return changed_containers();
    }
    let name = "import::fuzz::every_reader_survives_changed_files_and_reaches_every_message";
    let limited = format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &limited])
        .arg(env::current_exe()?)
        .args([name, "--exact"])
        .env(CHILD, "1")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", output.status);
    Ok(())
}

fn survives(number_of_reader: usize, reader: &Reader) {
    let mut reached = BTreeSet::new();
    let mut good = 0;
    for input in 0..number("IAD_FUZZ_INPUTS", INPUTS) {
        let bytes = change(&reader.files, &mut Dice::new(number_of_reader, input));
        match (reader.read)(&bytes) {
            Ok(()) => good += 1,
            Err(error) => {
                let error = format!("{error:#}");
                let message = reader.messages.iter().find(|message| error.contains(**message));
                reached.insert(*message.unwrap_or_else(|| panic!("{}, input {input}: {error}", reader.name)));
            }
        }
    }
    let missing: Vec<_> =
        reader.messages.iter().filter(|message| !message.is_empty() && !reached.contains(**message)).collect();
    assert!(missing.is_empty(), "{}: not reached: {missing:?}", reader.name);
    assert!(good > 0, "{}: nothing was accepted", reader.name);
}

/// Data set files in one piece and in compressed chunks. They go through the disk: fewer of them.
fn changed_containers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let memory = numbered(12, [1, 4, 4]);
    let about =
        crate::About { name: "twelve".into(), class_names: memory.class_names().to_vec(), ..Default::default() };
    let mut files = Vec::new();
    for (number, compress) in [None, Some(1)].into_iter().enumerate() {
        let path = folder.path().join(format!("{number}.h5"));
        let layout = Layout { chunk: compress.map(|_| 5), compress, threads: Some(1) };
        crate::write_from(&path, &about, &[(Split::Train, &memory as &dyn Source)], &layout)?;
        files.push(fs::read(path)?);
    }
    let path = folder.path().join("changed.h5");
    for input in 0..number("IAD_FUZZ_INPUTS", INPUTS) / 10 {
        fs::write(&path, change(&files, &mut Dice::new(99, input)))?;
        for result in [Container::open(&path, Split::Train).map(drop), crate::verify(&path).map(drop)] {
            if let Err(error) = result {
                assert!(error.is::<UserError>(), "input {input}: {error:#}");
            }
        }
    }
    Ok(())
}
