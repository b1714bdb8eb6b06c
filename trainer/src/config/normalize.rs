//! `student.normalize`: the mean and standard deviation by which a network normalises its images.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The normalisation of images in [0, 1] inside a network: (x - mean) / std for each channel. In TOML a name or `{ mean
/// = [...], std = [...] }` with one value for all channels or three. Grey images use the average of three values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Normalize {
    /// `none`: images are not normalised.
    None,
    /// `cifar10`.
    Cifar10,
    /// `cifar100`.
    Cifar100,
    /// `imagenet`.
    Imagenet,
    /// Explicit numbers.
    Values {
        /// The mean of each channel.
        mean: [f64; 3],
        /// The standard deviation of each channel.
        std: [f64; 3],
    },
}

/// The form in a file.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"none\", \"cifar10\", \"cifar100\", \"imagenet\" or { mean = [...], std = [...] }"
)]
enum Written {
    Name(String),
    Values { mean: Vec<f64>, std: Vec<f64> },
}

impl Normalize {
    /// The spellings, for messages.
    pub const NAMES: &'static str = "none, cifar10, cifar100, imagenet or MEAN,MEAN,MEAN/STD,STD,STD";
    /// The numbers of Tiny-ImageNet, the default of `preact-resnet18`.
    pub const TINY_IMAGENET: Self = Self::Values { mean: [0.4802, 0.4481, 0.3975], std: [0.2302, 0.2265, 0.2262] };
    /// The named normalisations.
    const NAMED: [(Self, &'static str); 4] =
        [(Self::None, "none"), (Self::Cifar10, "cifar10"), (Self::Cifar100, "cifar100"), (Self::Imagenet, "imagenet")];

    /// Mean and standard deviation of three channels; `None` for `none`.
    pub fn values(self) -> Option<([f64; 3], [f64; 3])> {
        match self {
            Self::None => None,
            Self::Cifar10 => Some(([0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616])),
            Self::Cifar100 => Some(([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762])),
            Self::Imagenet => Some(([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])),
            Self::Values { mean, std } => Some((mean, std)),
        }
    }

    /// Mean and standard deviation of each of `channels` channels.
    pub fn of_channels(self, channels: usize) -> Option<(Vec<f64>, Vec<f64>)> {
        let spread = |colours: [f64; 3]| {
            if channels == 3 { colours.to_vec() } else { vec![colours.iter().sum::<f64>() / 3.0; channels] }
        };
        self.values().map(|(mean, std)| (spread(mean), spread(std)))
    }

    /// The normalisation by these numbers, one for all channels or three. Known numbers become a name.
    ///
    /// # Errors
    /// Another count; a mean or a standard deviation that is not finite; a standard deviation that is not positive.
    pub fn by(mean: &[f64], std: &[f64]) -> Result<Self, String> {
        let three = |values: &[f64]| match *values {
            [one] => Some([one; 3]),
            [red, green, blue] => Some([red, green, blue]),
            _ => None,
        };
        let (Some(mean), Some(std)) = (three(mean), three(std)) else {
            return Err(format!("{} means and {} deviations; expected one or three of each", mean.len(), std.len()));
        };
        if !mean.iter().chain(&std).all(|value| value.is_finite()) || std.iter().any(|&value| value <= 0.0) {
            return Err(format!("mean {mean:?} and std {std:?}; expected finite numbers, and deviations above 0"));
        }
        let given = Self::Values { mean, std };
        Ok(Self::NAMED
            .map(|(named, _)| named)
            .into_iter()
            .find(|named| named.equals_in_float32(given))
            .unwrap_or(given))
    }

    /// Whether both have the same numbers in float32.
    pub fn equals_in_float32(self, other: Self) -> bool {
        match (self.values(), other.values()) {
            (None, None) => true,
            (Some((mean, std)), Some((other_mean, other_std))) => {
                let pairs = mean.iter().chain(&std).zip(other_mean.iter().chain(&other_std));
                pairs.into_iter().all(|(one, other)| *one as f32 == *other as f32)
            }
            _ => false,
        }
    }
}

impl TryFrom<Written> for Normalize {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Values { mean, std } => Self::by(&mean, &std),
            Written::Name(name) => {
                let known = Self::NAMED.into_iter().find(|(_, known)| *known == name);
                known.map(|(normalize, _)| normalize).ok_or_else(|| {
                    format!("unknown normalisation {name:?}; expected none, cifar10, cifar100 or imagenet")
                })
            }
        }
    }
}

impl From<Normalize> for Written {
    fn from(normalize: Normalize) -> Self {
        let plain = |values: [f64; 3]| {
            if values == [values[0]; 3] { vec![values[0]] } else { values.to_vec() }
        };
        match normalize {
            Normalize::Values { mean, std } => Written::Values { mean: plain(mean), std: plain(std) },
            named => Written::Name(named.to_string()),
        }
    }
}

impl FromStr for Normalize {
    type Err = String;

    /// A name, or numbers as in `0.49,0.48,0.45/0.25,0.24,0.26`.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((mean, std)) = text.split_once('/') else { return Written::Name(text.into()).try_into() };
        let numbers =
            |text: &str| text.split(',').map(|number| number.trim().parse().ok()).collect::<Option<Vec<f64>>>();
        let numbers = numbers(mean).zip(numbers(std)).ok_or_else(|| format!("{text:?}; expected {}", Self::NAMES))?;
        Self::by(&numbers.0, &numbers.1)
    }
}

impl fmt::Display for Normalize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, Self::NAMED.into_iter().find(|(named, _)| named == self)) {
            (_, Some((_, name))) => out.write_str(name),
            (Self::Values { mean, std }, _) => write!(out, "mean {mean:?} and std {std:?}"),
            _ => unreachable!("every other one has a name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Holder {
        normalize: Normalize,
    }

    #[test]
    fn names_and_numbers_are_read_and_written_back() {
        let numbers = Normalize::Values { mean: [0.1, 0.2, 0.3], std: [0.5; 3] };
        for (text, expected) in [
            ("normalize = \"none\"", Normalize::None),
            ("normalize = \"imagenet\"", Normalize::Imagenet),
            ("normalize = { mean = [0.1, 0.2, 0.3], std = [0.5] }", numbers),
            // Known numbers become a name.
            ("normalize = { mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }", Normalize::Imagenet),
        ] {
            let found: Holder = toml::from_str(text).unwrap();
            assert_eq!(found.normalize, expected, "{text}");
            let again: Holder = toml::from_str(&toml::to_string(&found).unwrap()).unwrap();
            assert_eq!(again.normalize, expected, "{text}");
        }
        assert_eq!("0.1,0.2,0.3/0.5".parse(), Ok(numbers));
        assert_eq!("cifar100".parse(), Ok(Normalize::Cifar100));
    }

    #[test]
    fn wrong_ones_are_refused() {
        for text in [
            "normalize = \"svhn\"",
            "normalize = 3",
            "normalize = { mean = [0.1, 0.2], std = [0.5, 0.5] }",
            "normalize = { mean = [0.1], std = [0.0] }",
            "normalize = { mean = [nan], std = [1.0] }",
        ] {
            assert!(toml::from_str::<Holder>(text).is_err(), "{text}");
        }
        assert!("0.5/x".parse::<Normalize>().is_err());
    }

    #[test]
    fn grey_images_take_the_average() {
        let (mean, std) = Normalize::Values { mean: [0.1, 0.2, 0.6], std: [0.5; 3] }.of_channels(1).unwrap();
        assert!((mean[0] - 0.3).abs() < 1e-12 && std == [0.5]);
        assert_eq!(Normalize::None.of_channels(3), None);
    }
}
