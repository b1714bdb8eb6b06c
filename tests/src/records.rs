//! Readers of a run folder: metrics without clocks, and tensors to the bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The events of metrics.jsonl without their `timing` objects.
///
/// # Errors
/// A file that is missing or not JSON.
pub fn metrics(run: &Path) -> Result<Vec<Value>> {
    let path = run.join("metrics.jsonl");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let event = |line: &str| -> Result<Value> {
        let mut event: Value = serde_json::from_str(line).with_context(|| line.to_string())?;
        let timing = event.as_object_mut().context("an event is an object")?.remove("timing");
        ensure!(timing.is_none_or(|timing| timing.is_object()), "timing is an object: {line}");
        Ok(event)
    };
    text.lines().map(event).collect()
}

/// Whether a run has recorded that step.
pub fn has_done(run: &Path, step: u64) -> bool {
    fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().contains(&format!("\"step\":{step},"))
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its type.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub bytes: Vec<u8>,
}

impl Stored {
    /// Its values, all as float64.
    ///
    /// # Errors
    /// A type that checkpoints do not have.
    pub fn values(&self) -> Result<Vec<f64>> {
        fn each<const SIZE: usize>(bytes: &[u8], value: fn([u8; SIZE]) -> f64) -> Vec<f64> {
            bytes.as_chunks::<SIZE>().0.iter().map(|&bytes| value(bytes)).collect()
        }
        Ok(match self.dtype {
            Dtype::F32 => each(&self.bytes, |bytes| f32::from_le_bytes(bytes).into()),
            Dtype::F64 => each(&self.bytes, f64::from_le_bytes),
            Dtype::I64 => each(&self.bytes, |bytes| i64::from_le_bytes(bytes) as f64),
            dtype => bail!("a tensor of type {dtype:?}"),
        })
    }
}

/// The tensors of a checkpoint by name.
///
/// # Errors
/// A file that is missing or not safetensors.
pub fn tensors(path: &Path) -> Result<BTreeMap<String, Stored>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let file = SafeTensors::deserialize(&bytes).with_context(|| path.display().to_string())?;
    let stored = |(name, view): (String, safetensors::tensor::TensorView)| {
        (name, Stored { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() })
    };
    Ok(file.tensors().into_iter().map(stored).collect())
}

/// The student's tensors of a checkpoint: parameters and running statistics.
///
/// # Errors
/// A file that is missing, not safetensors, or without a student.
pub fn student(path: &Path) -> Result<BTreeMap<String, Stored>> {
    let mut tensors = tensors(path)?;
    tensors.retain(|name, _| name.starts_with("student/"));
    ensure!(!tensors.is_empty(), "{} holds no student", path.display());
    Ok(tensors)
}

/// The header of a checkpoint.
///
/// # Errors
/// A file that is missing or not a checkpoint.
pub fn header(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
    let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get("iad")).context("no header")?;
    Ok(serde_json::from_str(text)?)
}

/// The largest relative difference (L2) of tensors of the same name, and that name.
///
/// # Errors
/// Names or shapes that differ; a value that is not finite.
pub fn largest_difference(one: &BTreeMap<String, Stored>, other: &BTreeMap<String, Stored>) -> Result<(f64, String)> {
    ensure!(one.keys().eq(other.keys()), "other tensors: {:?} and {:?}", one.keys(), other.keys());
    let mut largest = (0.0, "none".to_string());
    for (name, stored) in one {
        ensure!(stored.shape == other[name].shape, "{name} has another shape");
        let (one, other) = (stored.values()?, other[name].values()?);
        ensure!(one.iter().chain(&other).all(|value| value.is_finite()), "{name} is not finite");
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        let distance = norm(&mut one.iter().zip(&other).map(|(one, other)| one - other));
        let relative = if distance == 0.0 { 0.0 } else { distance / norm(&mut one.into_iter()) };
        if relative > largest.0 {
            largest = (relative, name.clone());
        }
    }
    Ok(largest)
}

/// Asserts that two finished runs are the same to the bit: metrics without clocks, and final weights.
///
/// # Errors
/// A file that is missing or damaged.
///
/// # Panics
/// The runs differ.
#[track_caller]
pub fn assert_same_run(one: &Path, other: &Path, what: &str) -> Result<()> {
    let (first, second) = (metrics(one)?, metrics(other)?);
    for (line, (one, other)) in first.iter().zip(&second).enumerate() {
        assert_eq!(one, other, "{what}: event {line} of {} and {} events", first.len(), second.len());
    }
    assert_eq!(first.len(), second.len(), "{what}: number of events");
    let last = |run: &Path| tensors(&run.join("checkpoints/final.safetensors"));
    let (one, other) = (last(one)?, last(other)?);
    let different: Vec<&String> = one.keys().filter(|&name| other.get(name) != one.get(name)).collect();
    assert!(different.is_empty() && one.len() == other.len(), "{what}: final weights differ in {different:?}");
    Ok(())
}
