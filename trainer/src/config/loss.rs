//! `[loss]`: the terms of the objective, as data.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `[loss]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// The summands. A preset (`preset = "iad-1"`) is replaced by its terms when the file is read.
    pub terms: Vec<Term>,
}

impl LossConfig {
    /// The teacher of the diagnostics: the one that a term's trust names, else the first teacher among the targets.
    pub fn observed_teacher(&self) -> Option<&str> {
        let terms = &self.terms;
        let trusted = terms.iter().find_map(|term| term.trust.as_ref().map(|trust| trust.teacher.as_str()));
        let mut guides = terms.iter().filter_map(|term| match &term.towards {
            Target::Prediction(prediction) => Some(prediction.network.as_str()),
            Target::Label | Target::BoostedLabel => None,
        });
        trusted.or_else(|| guides.find(|network| *network != STUDENT))
    }
}

/// The name of the network being trained.
pub const STUDENT: &str = "student";

/// The images of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Images {
    /// The images of the data set.
    Natural,
    /// The student's adversarial images.
    Adversarial,
    /// The natural images moved by the opposite of the adversarial perturbation: 2 natural - adversarial. Not clamped to
    /// the range of pixels (IGDM).
    Mirrored,
}

/// One summand of the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Its name in metrics and messages.
    pub name: String,
    /// The images of the student's prediction in this term.
    pub of: Images,
    /// Images whose logits are subtracted on both sides of the divergence, the student's and the target's (IGDM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minus: Option<Images>,
    /// The target of that prediction.
    pub towards: Target,
    /// The share of a label's probability that is spread evenly over all classes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub smoothing: f64,
    /// The weight of the term.
    #[serde(default = "one")]
    pub weight: f64,
    /// The temperature of both predictions; the divergence is multiplied by its square (Hinton et al. 2015).
    #[serde(default = "one")]
    pub temperature: f64,
    /// A factor of each sample: the trust in a teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Another factor of each sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_weight: Option<SampleWeight>,
    /// How the weight grows over the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// Whether a target that is the student's own prediction is detached; the reference lets its gradient flow.
    #[serde(default)]
    pub stop_gradient: bool,
    /// The first epoch (from 0) of the term.
    #[serde(default)]
    pub from_epoch: u64,
}

fn one() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// A factor of each sample that the student decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleWeight {
    /// 1.0000001 - P_student(label | natural image), with its gradient (MART).
    Misclassification,
}

/// How a weight grows over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ramp {
    /// By the same amount with each epoch, up to the whole weight in the last one.
    Linear,
}

impl Term {
    /// A term of weight 1 without temperature or trust.
    pub fn plain(name: &str, of: Images, towards: Target) -> Self {
        Self {
            name: name.to_string(),
            of,
            minus: None,
            towards,
            smoothing: 0.0,
            weight: 1.0,
            temperature: 1.0,
            trust: None,
            sample_weight: None,
            ramp: None,
            stop_gradient: false,
            from_epoch: 0,
        }
    }

    /// Whether a label may be a mixture of two classes.
    pub fn takes_mixed_labels(&self) -> bool {
        self.towards != Target::BoostedLabel && self.trust.is_none() && self.sample_weight.is_none()
    }

    /// The predictions that the term needs besides the student's on the images it is `of`.
    pub fn asks(&self) -> impl Iterator<Item = (&str, Images)> {
        let network = match &self.towards {
            Target::Label | Target::BoostedLabel => None,
            Target::Prediction(prediction) => Some((prediction.network.as_str(), prediction.images)),
        };
        let subtracted = network.and_then(|(network, _)| Some((network, self.minus?)));
        let trusted = self.trust.as_ref().map(|trust| (trust.teacher.as_str(), Images::Adversarial));
        network.into_iter().chain(subtracted).chain(trusted)
    }
}

/// The target of a term.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The label, by cross-entropy. In TOML: `"label"`.
    Label,
    /// The label, by cross-entropy plus the margin -log(1.0001 - P(j)) with j the most probable other class (MART). In
    /// TOML: `"boosted_label"`.
    BoostedLabel,
    /// A network's prediction, by the Kullback-Leibler divergence. In TOML: `{ network = "...", images = "..." }`.
    Prediction(Prediction),
}

/// A network's prediction on some images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// `student` or the name of a teacher.
    pub network: String,
    /// The images.
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
    /// The first epoch (from 0) of the trust. Before it, alpha is 1.
    #[serde(default)]
    pub from_epoch: u64,
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Target::Label => serializer.serialize_str("label"),
            Target::BoostedLabel => serializer.serialize_str("boosted_label"),
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
                write!(
                    out,
                    "\"label\", \"boosted_label\" or {{ network = \"...\", images = \"natural\" or \"adversarial\" }}"
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Target, E> {
                match text {
                    "label" => Ok(Target::Label),
                    "boosted_label" => Ok(Target::BoostedLabel),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Target, A::Error> {
                Prediction::deserialize(MapAccessDeserializer::new(map)).map(Target::Prediction)
            }
        }
        deserializer.deserialize_any(TargetVisitor)
    }
}
