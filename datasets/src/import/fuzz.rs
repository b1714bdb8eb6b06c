//! Changed files for every reader of bytes: no panic, no memory beyond a small bound, and every message is reached.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;

use crate::ground::damage::{self, Dice, change, inputs};
use crate::ground::memory::numbered;
use crate::{Container, Layout, Source, Split, UserError};

mod readers;

use readers::{Reader, readers};

/// Inputs for each of the readers; there are eleven.
const INPUTS: u64 = 10_000;
/// Kilobytes of addresses that all readers together may take: what a test program takes anyway, and some.
const MEMORY: u64 = 700_000;

/// Runs this test again in a process whose memory is limited: an allocation beyond it ends that process.
#[test]
fn every_reader_survives_changed_files_and_reaches_every_message() -> Result<()> {
    if damage::is_limited() {
        readers().iter().enumerate().for_each(|(number, reader)| survives(number, reader));
        return changed_containers();
    }
    damage::in_limited_memory("import::fuzz::every_reader_survives_changed_files_and_reaches_every_message", MEMORY)
}

fn survives(number_of_reader: usize, reader: &Reader) {
    let mut reached = BTreeSet::new();
    let mut good = 0;
    for input in 0..inputs(INPUTS) {
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
    for input in 0..inputs(INPUTS) / 10 {
        fs::write(&path, change(&files, &mut Dice::new(99, input)))?;
        for result in [Container::open(&path, Split::Train).map(drop), crate::verify(&path).map(drop)] {
            if let Err(error) = result {
                assert!(error.is::<UserError>(), "input {input}: {error:#}");
            }
        }
    }
    Ok(())
}
