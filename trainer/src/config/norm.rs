//! The norm of a perturbation, and its default lengths.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::Pixels;

/// The norm that bounds a perturbation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// The largest change of a pixel.
    #[default]
    Linf,
    /// The Euclidean length of the change, over all channels and pixels of an image.
    L2,
}

impl Norm {
    /// The names in a configuration, for messages.
    pub const NAMES: &'static str = "linf or l2";

    /// Whether it is the default, which a configuration does not write.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The largest radius or step of a configuration. In L2, lengths grow with the root of the number of pixels.
    pub fn largest(self) -> f64 {
        match self {
            Norm::Linf => 1.0,
            Norm::L2 => 1000.0,
        }
    }

    /// The allowed lengths, for messages.
    pub fn lengths(self) -> &'static str {
        match self {
            Norm::Linf => "a length above 0 and up to 1, as in \"8/255\"",
            Norm::L2 => "a length above 0 and up to 1,000, as in 0.5 or \"128/255\"",
        }
    }

    /// Whether `length` is an allowed radius or step.
    pub fn allows(self, length: Pixels) -> bool {
        length.0 > 0.0 && length.0 <= self.largest()
    }

    /// The default radius and step of an evaluation; in L2 the radius of RobustBench.
    pub fn of_evaluation(self) -> (Pixels, Pixels) {
        match self {
            Norm::Linf => (Pixels(8.0 / 255.0), Pixels(2.0 / 255.0)),
            Norm::L2 => (Pixels(0.5), Pixels(15.0 / 255.0)),
        }
    }

    /// The default radius and step of a training attack; in L2 those of Rice, Wong and Kolter (2020).
    pub fn of_training(self) -> (Pixels, Pixels) {
        match self {
            Norm::Linf => (Pixels(8.0 / 255.0), Pixels(2.0 / 255.0)),
            Norm::L2 => (Pixels(128.0 / 255.0), Pixels(15.0 / 255.0)),
        }
    }
}

impl fmt::Display for Norm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Norm::Linf => "linf",
            Norm::L2 => "l2",
        })
    }
}

impl std::str::FromStr for Norm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "linf" => Ok(Norm::Linf),
            "l2" => Ok(Norm::L2),
            _ => Err(format!("expected {}; found {text:?}", Self::NAMES)),
        }
    }
}

/// Sets radius and step of `[attack]` and `[evaluation]` if the table states the L2 norm but not the length.
pub(super) fn insert_lengths(table: &mut Table) {
    for (section, (eps, step)) in [("attack", Norm::L2.of_training()), ("evaluation", Norm::L2.of_evaluation())] {
        let Some(section) = table.get_mut(section).and_then(Value::as_table_mut) else { continue };
        if section.get("norm").and_then(Value::as_str) == Some("l2") {
            section.entry("eps").or_insert(Value::String(eps.to_string()));
            section.entry("step").or_insert(Value::String(step.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inserted(text: &str) -> Table {
        let mut table = text.parse().unwrap();
        insert_lengths(&mut table);
        table
    }

    #[test]
    fn lengths_follow_the_norm_where_they_are_not_stated() {
        let table = inserted("attack = { norm = \"l2\" }\nevaluation = { norm = \"l2\", eps = 1 }");
        assert_eq!(table["attack"]["eps"].as_str(), Some("128/255"));
        assert_eq!(table["attack"]["step"].as_str(), Some("15/255"));
        assert_eq!((&table["evaluation"]["eps"], table["evaluation"]["step"].as_str()), (&1.into(), Some("15/255")));
        for unchanged in ["attack = { norm = \"linf\" }", "attack = { steps = 3 }", "evaluation = 5", ""] {
            assert_eq!(inserted(unchanged), unchanged.parse().unwrap());
        }
    }

    #[test]
    fn names_are_read_back() {
        for norm in [Norm::Linf, Norm::L2] {
            assert_eq!(norm.to_string().parse(), Ok(norm));
            assert_eq!(serde_json::to_string(&norm).unwrap(), format!("\"{norm}\""));
        }
        assert!("l1".parse::<Norm>().unwrap_err().contains("linf or l2"));
    }
}
