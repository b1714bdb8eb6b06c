//! Parts of a source: chosen classes, a number of samples, held-out samples.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::ground::error::UserError;
use crate::ground::random::{Draws, Purpose};
use crate::ground::source::{Source, per_class};

/// Chosen samples of another source: its sample `i` is sample `samples[i]` of the inner one.
pub struct Subset {
    inner: Arc<dyn Source>,
    samples: Vec<usize>,
    /// The class names, and the new number of each old class, where classes were chosen.
    classes: Option<(Vec<String>, Vec<i64>)>,
}

impl Subset {
    /// The `samples` of `inner`, in the order given.
    ///
    /// # Panics
    /// When a sample is not below `inner.len()`.
    pub fn new(inner: Arc<dyn Source>, samples: Vec<usize>) -> Self {
        let count = inner.len();
        assert!(
            samples.iter().all(|&sample| sample < count),
            "a subset names a sample beyond the {count} of its source"
        );
        Self { inner, samples, classes: None }
    }

    /// All samples of the classes `names`, renumbered in that order.
    ///
    /// Fails with a [`UserError`] for a name that is no class of `inner`, is there twice, or has no sample.
    pub fn of_classes(inner: Arc<dyn Source>, names: &[String]) -> Result<Self, UserError> {
        let known = inner.class_names();
        let wrong = |name: &str, expected: String| {
            UserError::expected(expected).key("data.subset.classes").value(format!("{name:?}"))
        };
        let mut numbers = vec![-1; known.len()];
        for (number, name) in names.iter().enumerate() {
            let Some(class) = known.iter().position(|class| class == name) else {
                let some: Vec<&str> = known.iter().take(20).map(String::as_str).collect();
                let more = if known.len() > some.len() { ", ..." } else { "" };
                return Err(wrong(name, format!("a class of the data set: {}{more}", some.join(", "))));
            };
            if numbers[class] >= 0 {
                return Err(wrong(name, "each class once".into()));
            }
            numbers[class] = number as i64;
        }
        let subset = Self::renumbered(inner, names.to_vec(), numbers);
        match per_class(&subset).iter().position(|&count| count == 0) {
            Some(empty) => Err(wrong(&names[empty], "a class with samples".into())),
            None => Ok(subset),
        }
    }

    /// All samples of the classes of `inner` that have a number of 0 or more in `numbers`, under the classes `names` that
    /// these numbers mean.
    pub fn renumbered(inner: Arc<dyn Source>, names: Vec<String>, numbers: Vec<i64>) -> Self {
        let samples: Vec<usize> =
            (0..inner.len()).filter(|&sample| numbers[inner.label(sample) as usize] >= 0).collect();
        Self { inner, samples, classes: Some((names, numbers)) }
    }

    fn inner_sample(&self, sample: usize) -> Result<usize> {
        let count = self.samples.len();
        self.samples.get(sample).copied().ok_or_else(|| anyhow!("sample {sample} of {count}"))
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.inner.shape()
    }

    fn class_names(&self) -> &[String] {
        self.classes.as_ref().map_or(self.inner.class_names(), |(names, _)| names)
    }

    fn label(&self, sample: usize) -> i64 {
        let label = self.inner.label(self.samples[sample]);
        self.classes.as_ref().map_or(label, |(_, numbers)| numbers[label as usize])
    }

    fn read(&self, sample: usize, image: &mut [u8]) -> Result<()> {
        self.inner.read(self.inner_sample(sample)?, image)
    }

    fn read_all(&self, wanted: &mut [(usize, &mut [u8])]) -> Result<()> {
        let translated = wanted.iter_mut().map(|(sample, image)| Ok((self.inner_sample(*sample)?, &mut **image)));
        self.inner.read_all(&mut translated.collect::<Result<Vec<_>>>()?)
    }
}

/// `[data.subset]`: a part of the training images, the same for the same seed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The names of the classes to keep, of test images too; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// How many training images to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// How many training images of each class to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_class: Option<usize>,
    /// Whether `count` keeps the shares of the classes.
    #[serde(default)]
    pub stratified: bool,
}

impl Choice {
    /// Refuses a choice that contradicts itself.
    pub fn check(&self) -> Result<(), UserError> {
        let error = |key: &str, value: String, expected: &str| {
            Err(UserError::expected(expected).key(format!("data.subset.{key}")).value(value))
        };
        match self {
            Self { count: Some(count), per_class: Some(_), .. } => {
                error("count", count.to_string(), "count or per_class, not both")
            }
            Self { count: Some(0), .. } => error("count", "0".into(), "at least 1 image"),
            Self { per_class: Some(0), .. } => error("per_class", "0".into(), "at least 1 image of each class"),
            Self { count: None, stratified: true, .. } => {
                error("stratified", "true".into(), "count, the number of images to divide among the classes")
            }
            Self { classes: Some(names), .. } if names.is_empty() => {
                error("classes", "[]".into(), "at least one class, or no such key for all")
            }
            _ => Ok(()),
        }
    }

    /// The part of the training images `train`: classes first, then as many samples, drawn by `seed`.
    ///
    /// Fails with a [`UserError`] for an unknown class, and for more samples than the source has.
    pub fn of(&self, mut train: Arc<dyn Source>, seed: u64) -> Result<Arc<dyn Source>, UserError> {
        if let Some(names) = &self.classes {
            train = Arc::new(Subset::of_classes(train, names)?);
        }
        let there = per_class(train.as_ref());
        let too_many = |key: &str, wanted: usize, expected: String| {
            Err(UserError::expected(expected).key(format!("data.subset.{key}")).value(wanted))
        };
        let chosen = match (self.count, self.per_class) {
            (Some(count), _) if count > train.len() => {
                return too_many("count", count, format!("at most the {} training images there are", train.len()));
            }
            (Some(count), _) if self.stratified => draw(train.as_ref(), &shares(&there, count), seed, Purpose::Subset),
            (Some(count), _) => {
                let mut order = Draws::new(seed, Purpose::Subset, 0).permutation(train.len());
                order.truncate(count);
                order.sort_unstable();
                order
            }
            (None, Some(each)) => {
                if let Some(class) = there.iter().position(|&count| count < each) {
                    let name = &train.class_names()[class];
                    return too_many(
                        "per_class",
                        each,
                        format!("at most the {} images of class {name:?}", there[class]),
                    );
                }
                draw(train.as_ref(), &vec![each; there.len()], seed, Purpose::Subset)
            }
            (None, None) => return Ok(train),
        };
        Ok(Arc::new(Subset::new(train, chosen)))
    }
}

/// Splits the samples of `source` at random into samples kept and samples held out, both ascending.
///
/// The same `seed` gives the same split. `len * fraction` samples, rounded, are held out, and at least one; with
/// fewer than two samples to divide, the kept part can be empty. `stratified` keeps the shares of the classes.
pub fn hold_out(source: &dyn Source, fraction: f64, stratified: bool, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let len = source.len();
    let count = ((len as f64 * fraction).round() as usize).clamp(len.min(1), len);
    let mut held_out = if stratified {
        draw(source, &shares(&per_class(source), count), seed, Purpose::HoldOut)
    } else {
        Draws::new(seed, Purpose::HoldOut, 0).permutation(len).into_iter().take(count).collect()
    };
    held_out.sort_unstable();
    let kept = (0..len).filter(|sample| held_out.binary_search(sample).is_err()).collect();
    (kept, held_out)
}

/// `count` divided in proportion to `sizes`: each share rounded down, the rest to the largest remainders.
fn shares(sizes: &[usize], count: usize) -> Vec<usize> {
    let all = sizes.iter().sum::<usize>().max(1) as u128;
    let exact = |size: usize| size as u128 * count as u128;
    let mut shares: Vec<usize> = sizes.iter().map(|&size| (exact(size) / all) as usize).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&class| (all - exact(sizes[class]) % all, class));
    let left = count - shares.iter().sum::<usize>();
    order.into_iter().take(left).for_each(|class| shares[class] += 1);
    shares
}

/// `wanted[class]` samples of each class, ascending: the first of that class in one random order.
fn draw(source: &dyn Source, wanted: &[usize], seed: u64, purpose: Purpose) -> Vec<usize> {
    let mut left = wanted.to_vec();
    let order = Draws::new(seed, purpose, 0).permutation(source.len()).into_iter();
    let mut chosen: Vec<usize> = order
        .filter(|&sample| {
            let left = &mut left[source.label(sample) as usize];
            *left > 0 && {
                *left -= 1;
                true
            }
        })
        .collect();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests;
