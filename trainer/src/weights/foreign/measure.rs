//! Measures imported weights on images, against the accuracy that their file claims.

use std::path::Path;

use anyhow::Result;
use datasets::{Container, Source, Split};
use tch::{Device, Kind, Tensor, no_grad};

use crate::config::ClassMatching;
use crate::model::{Mode, Model, ModelSpec};
use crate::weights::checkpoint::Tensors;
use crate::weights::classes::{NetworkClasses, match_classes, select_outputs};
use crate::weights::student::load_student;

/// Images of one forward pass.
const BATCH: usize = 50;
/// The most images, and the most multiply-adds for all of them.
const MOST: usize = 1000;
const MULTIPLY_ADDS: u64 = 2_000_000_000_000;

/// An accuracy that a file claims.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Its source: a key of the file, or an id.
    pub by: String,
    /// In percent.
    pub percent: f64,
}

/// The result of measuring a network.
pub struct Measured {
    /// Notes for the user.
    pub notes: Vec<String>,
    /// The classes of the images.
    pub class_names: Vec<String>,
    /// Whether the accuracy speaks against the import.
    pub doubtful: bool,
}

/// Measures the network, whose classes are called `names` if that is known, on the first images of `data`: those of the test
/// split if there is one.
///
/// # Errors
/// Images that cannot be read, or of other classes.
pub fn measure(
    form: ModelSpec,
    tensors: &Tensors,
    names: &[String],
    data: &Path,
    claim: Option<&Claim>,
) -> Result<Measured> {
    let summary = datasets::summarise(data)?;
    let split = summary.splits.iter().map(|part| part.split).max_by_key(|split| *split == Split::Test);
    let split = split.unwrap_or(Split::Test);
    let source = Container::open(data, split)?;
    let network = NetworkClasses { outputs: form.classes, names };
    let matched = match_classes(network, source.class_names(), ClassMatching::Name)
        .map_err(|error| error.file(data).key("--data"))?;
    let (mut form, mut tensors) =
        (form, tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect());
    if let Some(outputs) = matched.outputs() {
        select_outputs(&mut form, &mut tensors, outputs);
    }
    let model = Model::build(form, 0, Kind::Float, Device::Cpu, None);
    load_student(&model, &tensors)?;
    model.freeze();
    let (mut right, mut seen, mut most) = (0, 0, source.len().min(MOST));
    while seen < most {
        let count = BATCH.min(most - seen);
        right += no_grad(|| right_answers(&model, &source, seen..seen + count))?;
        seen += count;
        let affordable = MULTIPLY_ADDS / (model.multiply_adds() / seen as u64).max(1);
        most = most.min(affordable as usize).max(seen);
    }
    let mut notes = vec![format!("right on {right} of the first {seen} images of its {} split", split.name())];
    let doubt = doubt(right, seen, summary.class_names.len(), claim);
    let doubtful = doubt.is_some();
    // Without names of its own, the network takes those of the images, which is said elsewhere.
    notes.extend(
        matched.note().filter(|_| !names.is_empty() || form.classes > summary.class_names.len()).map(str::to_string),
    );
    notes.extend(doubt);
    Ok(Measured { notes, class_names: summary.class_names, doubtful })
}

/// A warning for an accuracy near chance, or far below the claimed one.
fn doubt(right: usize, seen: usize, classes: usize, claim: Option<&Claim>) -> Option<String> {
    let percent = 100.0 * right as f64 / seen.max(1) as f64;
    let chance = 100.0 / classes.max(1) as f64;
    // Three standard errors of a share of `seen` images.
    let error = 300.0 * (0.25 / seen.max(1) as f64).sqrt();
    let near_chance = percent < chance + 0.15 * (100.0 - chance);
    let far_below = claim.filter(|claim| percent + error.max(5.0) < claim.percent);
    let found = match far_below {
        Some(claim) => format!("{percent:.1} % is far below the {:.1} % that {} claims", claim.percent, claim.by),
        None if near_chance => format!("{percent:.1} % is near chance, {chance:.1} %"),
        None => return None,
    };
    Some(format!(
        "warning: {found}. The normalisation of its images may be missing (--normalize), the classes may stand in another \
         order, or it may be another variation of the network (--architecture): docs/weights.md"
    ))
}

fn right_answers(model: &Model, source: &Container, samples: std::ops::Range<usize>) -> Result<usize> {
    let [channels, height, width] = source.shape();
    let size = channels * height * width;
    let mut pixels = vec![0; samples.len() * size];
    for (sample, image) in samples.clone().zip(pixels.chunks_exact_mut(size)) {
        source.read(sample, image)?;
    }
    let shape = [samples.len(), channels, height, width].map(|size| size as i64);
    let images = Tensor::from_slice(&pixels).view(shape).to_kind(Kind::Float) / 255.0;
    let labels: Vec<i64> = samples.map(|sample| source.label(sample)).collect();
    let answers = model.logits(&images, Mode::Eval).argmax(1, false);
    let right = answers.eq_tensor(&Tensor::from_slice(&labels)).sum(Kind::Int64);
    Ok(i64::try_from(right)? as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accuracy_near_chance_or_far_below_a_claim_is_doubted() {
        assert!(doubt(168, 1000, 10, None).unwrap().contains("16.8 % is near chance"));
        assert_eq!(doubt(638, 1000, 10, None), None);
        assert_eq!(doubt(250, 1000, 100, None), None);
        let claim = |percent| Claim { by: "test_acc".into(), percent };
        assert!(doubt(638, 1000, 10, Some(&claim(83.2))).unwrap().contains("83.2 % that test_acc claims"));
        assert_eq!(doubt(638, 1000, 10, Some(&claim(64.5))), None);
        // Of few images little can be said.
        assert_eq!(doubt(10, 16, 10, Some(&claim(83.2))), None);
    }
}
