//! Changed checkpoints, also those whose author made the hash fit.

use std::path::Path;

use datasets::damage::{self, Dice, change, change_text, inputs};

use super::*;

/// Changed files: two thirds of them with a hash that fits.
const INPUTS: u64 = 3_000;
/// Kilobytes of addresses: what libtorch takes, and some.
const MEMORY: u64 = 8_000_000;

fn good() -> Vec<Vec<u8>> {
    let form = ModelSpec::new("resnet8".parse().unwrap(), [1, 28, 28], 10);
    let values = Tensor::arange(12, tch::kind::FLOAT_CPU).view([3, 4]) / 7.0;
    let tensors = Tensors::from([("student/a".to_string(), values), ("student/b".to_string(), Tensor::from(3i64))]);
    let header = Header { best: Some(7), class_names: vec!["x".into()], ..Header::new(form, "hash".into(), 8) };
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/runs/version-1/stopped/checkpoints");
    let old = std::fs::read(old.join("step-00000004.safetensors")).unwrap();
    // The whole file is large; its header is that of format 1.
    let header_of_old = 8 + u64::from_le_bytes(*old.first_chunk().unwrap()) as usize;
    vec![to_bytes(header, &tensors).unwrap(), old[..header_of_old].to_vec()]
}

/// The file with a hash that fits it, if it has a place for one.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let key = br#"\"sha256\":\""#;
    let Some(at) = bytes.windows(key.len()).position(|window| window == key).map(|at| at + key.len()) else {
        return bytes;
    };
    let Some(digits) = bytes.get_mut(at..at + DIGITS) else { return bytes };
    digits.fill(b'0');
    let Ok((begin, sha256)) = digest_of_file(&bytes, &"0".repeat(DIGITS)) else { return bytes };
    bytes[begin..begin + DIGITS].copy_from_slice(sha256.as_bytes());
    bytes
}

#[test]
fn changed_checkpoints_are_whole_or_refused() -> Result<()> {
    if !damage::is_limited() {
        let name = "weights::checkpoint::fuzz::changed_checkpoints_are_whole_or_refused";
        return damage::in_limited_memory(name, MEMORY);
    }
    let (files, mut taken) = (good(), 0);
    for input in 0..inputs(INPUTS) {
        let mut dice = Dice::new(20, input);
        let bytes = match input % 3 {
            0 => change(&files, &mut dice),
            1 => sealed(change(&files, &mut dice)),
            _ => sealed(change_text(&files, &mut dice)),
        };
        match from_bytes(&bytes) {
            Ok((_, tensors)) => {
                taken += 1;
                assert!(tensors.values().all(|tensor| tensor.numel() <= bytes.len()), "input {input}");
            }
            Err(error) => assert!(!format!("{error:#}").is_empty(), "input {input}"),
        }
        let _ = header_of(&bytes);
    }
    assert!(taken > 0, "nothing was accepted");
    Ok(())
}
