//! Every objective as weighted terms: ordinary training, adversarial training, distillation, introspection.
//!
//! The loss of a step is the sum over terms of `weight * mean over the global batch of (trust * divergence)`. All
//! divergences take log-softmax of the logits; the guide's prediction is the first argument of the textbook
//! Kullback-Leibler divergence, as in the reference code (IAD-I.py, trades.py), not as the paper prints it.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tch::{Kind, Tensor, no_grad};

use crate::views::{Images, STUDENT, Views};

/// One summand of the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Its name in metrics and messages.
    pub name: String,
    /// Which of the student's predictions it judges.
    pub of: Images,
    /// What that prediction is drawn towards.
    pub towards: Target,
    /// The factor of the term.
    #[serde(default = "one")]
    pub weight: f64,
    /// Both predictions are softened by this temperature and the divergence multiplied by its square (Hinton et al. 2015).
    #[serde(default = "one")]
    pub temperature: f64,
    /// A factor of each sample by how far a teacher is to be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Whether a target that is the student's own prediction is held fixed; the reference lets its gradient flow.
    #[serde(default)]
    pub stop_gradient: bool,
    /// The first epoch (from 0) in which the term counts.
    #[serde(default)]
    pub from_epoch: u64,
}

fn one() -> f64 {
    1.0
}

/// What a prediction is drawn towards.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The label, by cross-entropy. In TOML: `"label"`.
    Label,
    /// A network's prediction, by the Kullback-Leibler divergence. In TOML: `{ network = "...", images = "..." }`.
    Prediction(Prediction),
}

/// A network's prediction on the natural or the adversarial images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// `student` or the name of a teacher.
    pub network: String,
    /// What it looks at.
    pub images: Images,
}

/// The trust in a teacher, sample by sample: alpha = P_teacher(label | adversarial image)^exponent (paper, equation 4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// The name of the teacher.
    pub teacher: String,
    /// The paper's beta.
    pub exponent: f64,
    /// Whether the factor is 1 - alpha instead of alpha.
    #[serde(default)]
    pub inverted: bool,
    /// The first epoch (from 0) in which the trust counts; before it, the teacher is trusted fully (alpha = 1).
    #[serde(default)]
    pub from_epoch: u64,
}

impl Trust {
    /// alpha of each sample `[N]`, without gradient; computed from log-probabilities, so that it never underflows.
    pub fn alpha(&self, views: &Views, labels: &Tensor) -> Tensor {
        no_grad(|| {
            let logits = views.logits(&self.teacher, Images::Adversarial);
            (log_probability_of(&logits, labels) * self.exponent).exp()
        })
    }

    fn factor(&self, views: &Views, labels: &Tensor) -> Tensor {
        let alpha = self.alpha(views, labels);
        if self.inverted { 1.0 - alpha } else { alpha }
    }
}

impl Term {
    /// A term of weight 1 without temperature or trust.
    pub fn plain(name: &str, of: Images, towards: Target) -> Self {
        let name = name.to_string();
        Self { name, of, towards, weight: 1.0, temperature: 1.0, trust: None, stop_gradient: false, from_epoch: 0 }
    }

    /// The predictions besides that of the student on the images it is `of` that [`evaluate`](Self::evaluate) asks for.
    pub fn asks(&self) -> impl Iterator<Item = (&str, Images)> {
        let guide = match &self.towards {
            Target::Label => None,
            Target::Prediction(prediction) => Some((prediction.network.as_str(), prediction.images)),
        };
        let trusted = self.trust.as_ref().map(|trust| (trust.teacher.as_str(), Images::Adversarial));
        guide.into_iter().chain(trusted)
    }

    /// The term's part of the loss for the samples of this rank: their sum (a scalar) divided by `global_count`, the
    /// number of samples over all ranks. `labels [N]` are int64.
    pub fn evaluate(&self, views: &Views, labels: &Tensor, global_count: f64) -> Tensor {
        let student = views.logits(STUDENT, self.of);
        let divergence = match &self.towards {
            Target::Label => -log_probability_of(&(student / self.temperature), labels),
            Target::Prediction(prediction) => {
                let guide = views.logits(&prediction.network, prediction.images);
                let guide = if self.stop_gradient { guide.detach() } else { guide };
                divergence(&guide, &student, self.temperature)
            }
        };
        let trusted = match &self.trust {
            Some(trust) => divergence * trust.factor(views, labels),
            None => divergence,
        };
        trusted.sum(trusted.kind()) * (self.weight * self.temperature * self.temperature / global_count)
    }
}

/// The logarithm of the softmax probability of each sample's label, `[N]`.
pub fn log_probability_of(logits: &Tensor, labels: &Tensor) -> Tensor {
    log_softmax(logits).gather(1, &labels.unsqueeze(1), false).squeeze_dim(1)
}

/// KL(softmax(guide / t) || softmax(student / t)) of each sample `[N]`. A guide's probability of 0 contributes 0.
fn divergence(guide: &Tensor, student: &Tensor, temperature: f64) -> Tensor {
    let guide = log_softmax(&(guide / temperature));
    let student = log_softmax(&(student / temperature));
    (guide.exp() * (&guide - student)).sum_dim_intlist(1i64, false, None)
}

/// Always in at least single precision, whatever the networks compute in.
fn log_softmax(logits: &Tensor) -> Tensor {
    let kind = if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    logits.log_softmax(1, kind)
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Target::Label => serializer.serialize_str("label"),
            Target::Prediction(prediction) => prediction.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TargetVisitor;

        impl<'de> Visitor<'de> for TargetVisitor {
            type Value = Target;

            fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
                write!(out, "\"label\" or {{ network = \"...\", images = \"natural\" or \"adversarial\" }}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Target, E> {
                if text == "label" {
                    Ok(Target::Label)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Target, A::Error> {
                Prediction::deserialize(MapAccessDeserializer::new(map)).map(Target::Prediction)
            }
        }
        deserializer.deserialize_any(TargetVisitor)
    }
}

#[cfg(test)]
mod tests;
