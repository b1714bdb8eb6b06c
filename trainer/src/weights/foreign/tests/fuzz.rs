//! Changed files of PyTorch and of safetensors: tensors within the file, or a message.

use datasets::damage::{self, Dice, change, inputs};

use super::*;

/// Changed files for each of the four readers, and for whole imports.
const INPUTS: u64 = 3_000;
const IMPORTS: u64 = 150;
/// Kilobytes of addresses: what libtorch takes, and some.
const MEMORY: u64 = 8_000_000;

/// Reads the file and every tensor of it, as an import does.
fn read(bytes: &[u8]) -> Result<()> {
    let opened = Opened::read(bytes)?;
    for dictionary in &opened.dictionaries {
        for (name, described) in &dictionary.tensors {
            let size = described.tensor().numel();
            assert!(size / 4 <= bytes.len(), "{name} has {size} values in a file of {} bytes", bytes.len());
        }
    }
    Ok(())
}

/// The archive with another pickle of the same length, and the checksum that fits it.
fn with_pickle(archive: &[u8], dice: &mut Dice) -> Vec<u8> {
    let pickle = Archive::read(archive).unwrap().get("archive/data.pkl").unwrap().to_vec();
    let mut changed = change(std::slice::from_ref(&pickle), dice);
    changed.resize(pickle.len(), b'.');
    let sum = |bytes: &[u8]| {
        let mut sum = flate2::Crc::new();
        sum.update(bytes);
        sum.sum().to_le_bytes()
    };
    let replace = |bytes: Vec<u8>, old: &[u8], new: &[u8]| {
        let mut bytes = bytes;
        let places: Vec<usize> = (0..=bytes.len() - old.len()).filter(|&at| bytes[at..].starts_with(old)).collect();
        places.into_iter().for_each(|at| bytes[at..at + new.len()].copy_from_slice(new));
        bytes
    };
    replace(replace(archive.to_vec(), &sum(&pickle), &sum(&changed)), &pickle, &changed)
}

#[test]
fn changed_files_of_other_programs_are_read_or_refused() -> Result<()> {
    if !damage::is_limited() {
        let name = "weights::foreign::tests::fuzz::changed_files_of_other_programs_are_read_or_refused";
        return damage::in_limited_memory(name, MEMORY);
    }
    let [archive, legacy] = small();
    let tensor = Tensor::arange(6, tch::kind::FLOAT_CPU).view([2, 3]);
    let plain = checkpoint::to_bytes(
        Header::new(form("wrn-10-1"), "configuration".into(), 8),
        &Tensors::from([("student/a".to_string(), tensor)]),
    )?;
    for (number, files) in [vec![archive.clone()], vec![legacy], vec![plain]].into_iter().enumerate() {
        let mut taken = 0;
        for input in 0..inputs(INPUTS) {
            match read(&change(&files, &mut Dice::new(60 + number, input))) {
                Ok(()) => taken += 1,
                Err(error) => assert!(!format!("{error:#}").is_empty(), "reader {number}, input {input}"),
            }
        }
        assert!(taken > 0, "reader {number}: nothing was accepted");
    }
    for input in 0..inputs(INPUTS) {
        let _ = read(&with_pickle(&archive, &mut Dice::new(64, input)));
    }

    // Whole networks: recognised, fitted, converted and written, or refused without a file.
    let folder = tempfile::tempdir()?;
    let (file, ..) = write(folder.path(), "wrn-10-1");
    let exported = ["whole.pth", "whole.safetensors"].map(|name| folder.path().join(name));
    exported.iter().try_for_each(|to| export(&file, to, None).map(drop))?;
    let files = exported.iter().map(fs::read).collect::<std::io::Result<Vec<_>>>()?;
    let (given, to) = (folder.path().join("given"), folder.path().join("made.safetensors"));
    for input in 0..inputs(IMPORTS) {
        fs::write(&given, change(&files, &mut Dice::new(65, input)))?;
        match import(&request(&given, &to)) {
            Ok(_) => fs::remove_file(&to)?,
            Err(error) => assert!(error.is::<UserError>() && !to.exists(), "input {input}: {error:#}"),
        }
    }
    Ok(())
}
