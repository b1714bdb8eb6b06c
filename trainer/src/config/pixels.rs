//! Lengths in pixel space, in the notation of papers: `"8/255"`.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length in units of the pixel range [0, 1]. In TOML a number (`0.03`) or a fraction (`"8/255"`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pixels(pub f64);

impl fmt::Display for Pixels {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels = (self.0 * 255.0).round();
        if levels / 255.0 == self.0 && (1.0..=255.0).contains(&levels) {
            write!(out, "{levels}/255")
        } else {
            write!(out, "{}", self.0)
        }
    }
}

impl std::str::FromStr for Pixels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
        let value = match text.split_once('/') {
            Some((above, below)) => number(above).zip(number(below)).map(|(above, below)| above / below),
            None => number(text),
        };
        let expected = || format!("expected a number (0.03) or a fraction (8/255); found {text:?}");
        value.filter(|value| value.is_finite()).map(Pixels).ok_or_else(expected)
    }
}

impl Serialize for Pixels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.to_string();
        if text.contains('/') { serializer.serialize_str(&text) } else { serializer.serialize_f64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Pixels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PixelsVisitor;

        impl Visitor<'_> for PixelsVisitor {
            type Value = Pixels;

            fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
                write!(out, "a number (0.03) or a fraction (\"8/255\")")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Pixels, E> {
                Ok(Pixels(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Pixels, E> {
                Ok(Pixels(value as f64))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Pixels, E> {
                Ok(Pixels(value as f64))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Pixels, E> {
                let number = |part: &str| part.trim().parse::<f64>().ok().filter(|value| value.is_finite());
                let value = match text.split_once('/') {
                    Some((above, below)) => number(above).zip(number(below)).map(|(above, below)| above / below),
                    None => number(text),
                };
                let value = value.filter(|value| value.is_finite());
                value.map(Pixels).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(PixelsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Holder {
        eps: Pixels,
    }

    #[test]
    fn fractions_and_numbers_are_read_and_written_back() {
        for (text, value, written) in [
            ("eps = \"8/255\"", 8.0 / 255.0, "eps = \"8/255\""),
            ("eps = 0.031", 0.031, "eps = 0.031"),
            ("eps = \"0.031\"", 0.031, "eps = 0.031"),
            ("eps = 1", 1.0, "eps = \"255/255\""),
        ] {
            let holder: Holder = toml::from_str(text).unwrap();
            assert_eq!(holder.eps.0, value);
            assert_eq!(toml::to_string(&holder).unwrap().trim(), written);
        }
        for text in ["eps = \"8/0\"", "eps = \"x/255\"", "eps = true", "eps = \"\"", "eps = \"nan\""] {
            assert!(toml::from_str::<Holder>(text).is_err(), "{text}");
        }
    }
}
