//! Names of data sets, methods and networks, as this program or as papers spell them.

use std::path::{Path, PathBuf};

use datasets::{DATASETS, UserError};
use trainer::config::{Architecture, preset_names};

/// Kinds of files among the data sets that can be imported; a configuration names the container they become.
const KINDS: [&str; 2] = ["image-folder", "npz"];

/// Methods whose other names differ by more than case and separators.
const METHODS: [(&str, &str); 11] = [
    ("standard", "st"),
    ("standardtraining", "st"),
    ("natural", "st"),
    ("erm", "st"),
    ("pgdat", "at"),
    ("madry", "at"),
    ("adversarialtraining", "at"),
    ("iadi", "iad-1"),
    ("iadii", "iad-2"),
    ("iadidown", "iad-1-down"),
    ("akd", "akd2"),
];

/// Data sets whose other names differ by more than case and separators.
const DATA: [(&str, &str); 3] =
    [("tinyimagenet200", "tiny-imagenet"), ("tin", "tiny-imagenet"), ("fmnist", "fashion-mnist")];

/// Letters before the numbers of a network's name, in the spelling of papers and in ours.
const NETWORKS: [(&str, &str); 10] = [
    ("wrn", "wrn-"),
    ("wideresnet", "wrn-"),
    ("wresnet", "wrn-"),
    ("rn", "resnet"),
    ("resnet", "resnet"),
    ("prn", "preact-resnet"),
    ("preactresnet", "preact-resnet"),
    ("preresnet", "preact-resnet"),
    ("mobilenetv", "mobilenet-v"),
    ("mnv", "mobilenet-v"),
];

/// A data set: its name and the container with its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DataSet {
    pub(super) name: String,
    pub(super) file: PathBuf,
}

/// Letters and digits alone, in lower case.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// The known name that `name` spells in another way.
fn spelled<'a>(name: &str, known: &[&'a str], others: &[(&str, &'a str)]) -> Option<&'a str> {
    let name = plain(name);
    let other = others.iter().find(|(other, _)| *other == name).map(|(_, ours)| *ours);
    known.iter().copied().find(|known| plain(known) == name).or(other)
}

/// The data set of a name or of a container's path.
///
/// # Errors
/// A [`UserError`] with the nearest name.
pub(super) fn dataset(name: &str) -> Result<DataSet, UserError> {
    let path = Path::new(name);
    if path.extension().is_some_and(|ending| ending == "h5" || ending == "hdf5") {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(DataSet { name: stem, file: path.to_path_buf() });
    }
    let known: Vec<&str> = DATASETS.into_iter().filter(|known| !KINDS.contains(known)).collect();
    match spelled(name, &known, &DATA) {
        Some(known) => Ok(DataSet { name: known.into(), file: PathBuf::from(format!("data/{known}.h5")) }),
        None => Err(UserError::expected(format!("{}, or the path of a container (FILE.h5)", known.join(", ")))
            .key("the data set")
            .value(name)
            .hint("`iad-launch data import image-folder --from PATH --to data/mine.h5` makes a container of your own images")
            .did_you_mean(name, known)),
    }
}

/// The preset of a method's name.
///
/// # Errors
/// A [`UserError`] with the nearest name.
pub(super) fn method(name: &str) -> Result<&'static str, UserError> {
    let known: Vec<&'static str> = preset_names().collect();
    spelled(name, &known, &METHODS).ok_or_else(|| {
        UserError::expected(known.join(", "))
            .key("--method")
            .value(name)
            .hint("docs/methods.md says what each does")
            .did_you_mean(name, known)
    })
}

/// The network of a name given by `option`.
///
/// # Errors
/// A [`UserError`] with the nearest name.
pub(super) fn model(option: &str, name: &str) -> Result<Architecture, UserError> {
    let ours = name.to_ascii_lowercase().replace('_', "-");
    let found = ours.parse().ok().or_else(|| as_in_papers(&ours)?.parse().ok());
    found.ok_or_else(|| {
        UserError::expected(Architecture::NAMES)
            .key(option)
            .value(name)
            .hint("docs/configuration.md says what each is")
            .did_you_mean(name, Architecture::EXAMPLES)
    })
}

/// `wideresnet34-10` as `wrn-34-10`: the letters, then the numbers.
fn as_in_papers(name: &str) -> Option<String> {
    let digits = name.find(|letter: char| letter.is_ascii_digit())?;
    let letters = plain(&name[..digits]);
    let (deepmind, letters) = match letters.strip_prefix("dm") {
        Some(rest) => ("dm-", rest),
        None => ("", letters.as_str()),
    };
    let (_, ours) = NETWORKS.iter().find(|(papers, _)| *papers == letters)?;
    let numbers: Vec<&str> = name[digits..].split(['-', 'x', '.']).filter(|part| !part.is_empty()).collect();
    Some(format!("{deepmind}{ours}{}", numbers.join("-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_papers_are_understood() {
        for (papers, ours) in [
            ("ResNet-18", "resnet18"),
            ("resnet_50", "resnet50"),
            ("RN18", "resnet18"),
            ("WRN-34-10", "wrn-34-10"),
            ("WRN34-10", "wrn-34-10"),
            ("WideResNet-28-10", "wrn-28-10"),
            ("wide_resnet_34_10", "wrn-34-10"),
            ("WideResNet34x10", "wrn-34-10"),
            ("DM-WRN-28-10", "dm-wrn-28-10"),
            ("PreActResNet-18", "preact-resnet18"),
            ("PRN-18", "preact-resnet18"),
            ("MobileNetV2", "mobilenet-v2"),
            ("MobileNet-V2", "mobilenet-v2"),
            ("ResNet8", "resnet8"),
            ("ConvNet", "convnet"),
        ] {
            assert_eq!(model("--model", papers).unwrap().to_string(), ours, "{papers}");
        }
        for (papers, ours) in [
            ("IAD-I", "iad-1"),
            ("iad_ii", "iad-2"),
            ("IAD-1", "iad-1"),
            ("TRADES", "trades"),
            ("PGD-AT", "at"),
            ("AKD^2", "akd2"),
        ] {
            assert_eq!(method(papers).unwrap(), ours, "{papers}");
        }
        for (papers, ours) in [
            ("CIFAR-10", "cifar10"),
            ("cifar_100", "cifar100"),
            ("TinyImageNet", "tiny-imagenet"),
            ("FashionMNIST", "fashion-mnist"),
        ] {
            let found = dataset(papers).unwrap();
            assert_eq!((found.name.as_str(), found.file), (ours, PathBuf::from(format!("data/{ours}.h5"))), "{papers}");
        }
        let own = dataset("images/my_set.h5").unwrap();
        assert_eq!(own, DataSet { name: "my_set".into(), file: "images/my_set.h5".into() });
    }

    #[test]
    fn unknown_names_get_the_nearest() {
        for (message, meant) in [
            (dataset("cifra10").unwrap_err().to_string(), "did you mean cifar10?"),
            (method("iad3").unwrap_err().to_string(), "did you mean iad-1?"),
            (model("--model", "resent18").unwrap_err().to_string(), "did you mean resnet18?"),
            (model("--teacher-model", "wrn-34-1o").unwrap_err().to_string(), "did you mean wrn-34-10?"),
            (model("--model", "resnet51").unwrap_err().to_string(), "--model is resnet51"),
            (dataset("imagenet21k").unwrap_err().to_string(), "data import image-folder"),
        ] {
            assert!(message.contains(meant), "{message}");
        }
    }
}
