//! Teachers for tests: each is trained once in a test binary, and its weights are kept in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::{Program, World};

/// The weights by the bytes of the data set that they were trained on.
static TRAINED: Mutex<BTreeMap<Vec<u8>, Arc<[u8]>>> = Mutex::new(BTreeMap::new());

/// The weights of a resnet8 after one adversarial epoch on `data`.
///
/// # Errors
/// It cannot be trained.
pub(crate) fn weights(data: &Path) -> Result<Arc<[u8]>> {
    let images = fs::read(data).with_context(|| data.display().to_string())?;
    // A test that failed while it held the lock has added nothing. Others that need a teacher wait for its training.
    let mut trained = TRAINED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(weights) = trained.get(&images) {
        return Ok(Arc::clone(weights));
    }
    let world = World::new()?;
    let network = ("student.architecture", "\"resnet8\"");
    let (config, run) = (world.config("teacher", data, &[network, ("evaluation.suite", "[]")])?, world.run("teacher"));
    Program::alone().train(&config, &run).run()?.expect(0);
    let weights: Arc<[u8]> = fs::read(run.join("checkpoints/final.safetensors"))?.into();
    trained.insert(images, Arc::clone(&weights));
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Images;

    #[test]
    fn a_teacher_is_trained_once_for_equal_images() -> Result<()> {
        let (one, other) = (World::new()?, World::new()?);
        let first = weights(&one.images("data", Images::colour(32))?)?;
        let again = weights(&other.images("data", Images::colour(32))?)?;
        assert!(Arc::ptr_eq(&first, &again), "trained anew");
        let changed = weights(&other.images("others", Images::colour(40))?)?;
        assert!(first != changed);
        Ok(())
    }

    #[test]
    fn a_test_that_damages_its_teacher_leaves_that_of_others() -> Result<()> {
        let world = World::new()?;
        let data = world.images("data", Images::colour(32))?;
        let path = world.teacher(&data)?;
        let whole = fs::read(&path)?;
        fs::write(&path, "damaged")?;
        assert_eq!(fs::read(World::new()?.teacher(&data)?)?, whole);
        Ok(())
    }
}
