//! What a prediction is compared with: `towards` of a term and of an attack.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
    /// The natural images moved by twice the adversarial perturbation: 2 adversarial - natural. Not clamped to the range of
    /// pixels (HAT).
    Helper,
}

/// A network's prediction on some images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// `student`, or the name of a teacher or of a learner.
    pub network: String,
    /// The images.
    pub images: Images,
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
