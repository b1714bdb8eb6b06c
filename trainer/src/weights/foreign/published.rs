//! Published robust networks by their ids in RobustBench's model zoo: the parts of a network that its tensors do not tell.
//!
//! One id may name networks of several data sets; the number of classes decides between them.

use crate::config::{Architecture, Normalize};

/// A published network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// The kind of network.
    pub architecture: Architecture,
    /// The normalisation of its images.
    pub normalize: Normalize,
    /// The key of its weights in the file, if not a usual one.
    pub key: Option<&'static str>,
    /// The published accuracy on CIFAR-10's test set without an attack, in percent.
    pub clean: Option<f64>,
}

/// Whose numbers normalise the images.
#[derive(Clone, Copy)]
enum Constants {
    None,
    /// Rounded to four digits, of the data set itself.
    DataSet,
    /// The same for CIFAR-10, with all digits for CIFAR-100.
    Exact100,
    Chen,
    Augustin,
    Rony,
    Engstrom,
    /// Images in [-1, 1].
    Signed,
}
use Constants::{Augustin, Chen, DataSet, Engstrom, Exact100, None as Plain, Rony, Signed};

impl Constants {
    fn of(self, classes: usize) -> Normalize {
        let (mean, std) = match (self, classes) {
            (Plain, _) => return Normalize::None,
            (DataSet, 100) => return Normalize::Cifar100,
            (Exact100, 100) => (
                [0.5070751592371323, 0.48654887331495095, 0.4409178433670343],
                [0.2673342858792401, 0.2564384629170883, 0.27615047132568404],
            ),
            (Chen, 100) => ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
            (DataSet | Exact100 | Chen, _) => return Normalize::Cifar10,
            (Augustin, _) => (
                [0.4913997551666284, 0.48215855929893703, 0.4465309133731618],
                [0.24703225141799082, 0.24348516474564, 0.2615878392604963],
            ),
            (Rony, _) => ([0.491, 0.482, 0.447], [0.247, 0.243, 0.262]),
            (Engstrom, _) => ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
            (Signed, _) => ([0.5; 3], [0.5; 3]),
        };
        Normalize::Values { mean, std }
    }
}

/// A network, its normalisation, and the ids that share both, each with its accuracy on CIFAR-10 (0 where it is not known here).
type Family = (&'static str, Constants, &'static [(&'static str, f64)]);

/// All published networks that are known.
const PUBLISHED: &[Family] = &[
    (
        "dm-wrn-28-10",
        DataSet,
        &[
            ("Gowal2020Uncovering_28_10_extra", 0.0),
            ("Rebuffi2021Fixing_28_10_cutmix_ddpm", 0.0),
            ("Rade2021Helper_ddpm", 0.0),
            ("Gowal2021Improving_28_10_ddpm_100m", 0.0),
            ("Pang2022Robustness_WRN28_10", 0.0),
            ("Wang2023Better_WRN-28-10", 92.44),
            ("Xu2023Exploring_WRN-28-10", 0.0),
            ("Cui2023Decoupled_WRN-28-10", 92.16),
        ],
    ),
    ("dm-wrn-34-10", DataSet, &[("Rade2021Helper_extra", 0.0)]),
    ("dm-wrn-34-20", DataSet, &[("Gowal2020Uncovering_34_20", 0.0)]),
    (
        "dm-wrn-70-16",
        DataSet,
        &[
            ("Gowal2020Uncovering", 0.0),
            ("Gowal2020Uncovering_extra", 0.0),
            ("Gowal2020Uncovering_70_16", 0.0),
            ("Gowal2020Uncovering_70_16_extra", 0.0),
            ("Rebuffi2021Fixing_70_16_cutmix_ddpm", 0.0),
            ("Rebuffi2021Fixing_70_16_cutmix_extra", 0.0),
            ("Gowal2021Improving_70_16_ddpm_100m", 0.0),
            ("Pang2022Robustness_WRN70_16", 0.0),
            ("Wang2023Better_WRN-70-16", 93.25),
        ],
    ),
    ("dm-wrn-82-8", DataSet, &[("Bartoldson2024Adversarial_WRN-82-8", 93.11)]),
    ("dm-wrn-94-16", DataSet, &[("Bartoldson2024Adversarial_WRN-94-16", 93.68)]),
    ("dm-wrn-106-16", DataSet, &[("Rebuffi2021Fixing_106_16_cutmix_ddpm", 0.0)]),
    (
        "dm-preact-resnet18",
        DataSet,
        &[
            ("Rebuffi2021Fixing_R18_ddpm", 83.53),
            ("Rebuffi2021Fixing_R18_cutmix_ddpm", 0.0),
            ("Rade2021Helper_R18_extra", 89.02),
            ("Rade2021Helper_R18_ddpm", 86.86),
            ("Gowal2021Improving_R18_ddpm_100m", 87.35),
        ],
    ),
    (
        "wrn-28-10",
        Plain,
        &[
            ("Carmon2019Unlabeled", 0.0),
            ("Sehwag2020Hydra", 0.0),
            ("Wang2020Improving", 0.0),
            ("Wu2020Adversarial_extra", 0.0),
            ("Zhang2020Geometry", 0.0),
            ("Sridhar2021Robust", 0.0),
            ("Standard", 0.0),
        ],
    ),
    ("wrn-28-10", Signed, &[("Hendrycks2019Using", 0.0)]),
    ("wrn-28-10", Rony, &[("Rony2019Decoupling", 0.0)]),
    (
        "wrn-34-10",
        Plain,
        &[
            ("Zhang2019Theoretically", 0.0),
            ("Huang2020Self", 0.0),
            ("Zhang2019You", 0.0),
            ("Zhang2020Attacks", 0.0),
            ("Sitawarin2020Improving", 0.0),
            ("Cui2020Learnable_34_10", 0.0),
            ("Cui2020Learnable_34_10_LBGAT0", 0.0),
            ("Cui2020Learnable_34_10_LBGAT6", 0.0),
            ("Cui2020Learnable_34_10_LBGAT9_eps_8_255", 0.0),
            ("Addepalli2021Towards_WRN34", 0.0),
            ("Sehwag2021Proxy", 0.0),
            ("Chen2021LTD_WRN34_10", 0.0),
            ("Jia2022LAS-AT_34_10", 0.0),
            ("Addepalli2022Efficient_WRN_34_10", 0.0),
            ("Cui2023Decoupled_WRN-34-10", 0.0),
            ("Cui2023Decoupled_WRN-34-10_autoaug", 0.0),
            ("Chen2024Data_WRN_34_10", 0.0),
        ],
    ),
    ("wrn-34-10", Chen, &[("Chen2020Efficient", 0.0)]),
    ("wrn-34-10", Augustin, &[("Augustin2020Adversarial_34_10", 0.0), ("Augustin2020Adversarial_34_10_extra", 0.0)]),
    // Of CIFAR-10 it takes images as they are: see `published`.
    ("wrn-34-10", Exact100, &[("Wu2020Adversarial", 85.36)]),
    ("wrn-34-15", Plain, &[("Sridhar2021Robust_34_15", 0.0)]),
    (
        "wrn-34-20",
        Plain,
        &[
            ("Cui2020Learnable_34_20", 0.0),
            ("Cui2020Learnable_34_20_LBGAT6", 0.0),
            ("Chen2021LTD_WRN34_20", 0.0),
            ("Chen2024Data_WRN_34_20", 0.0),
            ("Jia2022LAS-AT_34_20", 0.0),
        ],
    ),
    // Of CIFAR-100 it is a PreActResNet-18: see `published`.
    ("wrn-34-20", DataSet, &[("Rice2020Overfitting", 85.34)]),
    ("wrn-70-16", Plain, &[("Jia2022LAS-AT_70_16", 0.0)]),
    (
        "resnet18",
        Plain,
        &[("Sehwag2021Proxy_R18", 84.59), ("Addepalli2021Towards_RN18", 0.0), ("Addepalli2022Efficient_RN18", 85.71)],
    ),
    ("resnet50", Engstrom, &[("Engstrom2019Robustness", 0.0)]),
    ("preact-resnet18-raw-no-last-norm", Plain, &[("Andriushchenko2020Understanding", 79.84)]),
    ("preact-resnet18-raw-no-last-norm", DataSet, &[("Wong2020Fast", 83.34)]),
    ("preact-resnet18", Plain, &[("Addepalli2021Towards_PARN18", 0.0)]),
];

/// The published network called `id`, with this number of classes.
///
/// # Errors
/// In words, an id that is not known, with those that begin alike.
pub fn published(id: &str, classes: usize) -> Result<Published, String> {
    let found = PUBLISHED.iter().find_map(|(name, constants, ids)| {
        let (_, clean) = ids.iter().find(|(known, _)| *known == id)?;
        Some((*name, *constants, *clean))
    });
    let (name, constants, clean) = found.ok_or_else(|| {
        let alike =
            |known: &&str| id.len() >= 3 && known.to_lowercase().starts_with(&id.to_lowercase()[..id.len().min(4)]);
        let ids = PUBLISHED.iter().flat_map(|(_, _, ids)| *ids).map(|(known, _)| *known);
        let alike: Vec<&str> = ids.filter(alike).collect();
        let alike = if alike.is_empty() { String::new() } else { format!("; known are {}", alike.join(", ")) };
        format!("no published network of this program is called {id:?}{alike}")
    })?;
    let (name, constants) = match (id, classes) {
        ("Rice2020Overfitting", 100) => ("preact-resnet18", Exact100),
        ("Wu2020Adversarial", 10) => (name, Plain),
        _ => (name, constants),
    };
    Ok(Published {
        architecture: name.parse()?,
        normalize: constants.of(classes),
        key: (id == "Andriushchenko2020Understanding").then_some("last"),
        clean: Some(clean).filter(|&clean| clean > 0.0 && classes == 10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_stands_once_and_names_a_network() {
        let ids: Vec<&str> = PUBLISHED.iter().flat_map(|(_, _, ids)| *ids).map(|(id, _)| *id).collect();
        for id in &ids {
            assert_eq!(ids.iter().filter(|other| *other == id).count(), 1, "{id}");
            for classes in [10, 100] {
                published(id, classes).unwrap();
            }
        }
    }

    #[test]
    fn the_classes_choose_between_networks_of_one_id() {
        let wang = |classes| published("Wang2023Better_WRN-28-10", classes).unwrap();
        assert_eq!((wang(10).normalize, wang(10).clean), (Normalize::Cifar10, Some(92.44)));
        assert_eq!((wang(100).normalize, wang(100).clean), (Normalize::Cifar100, None));
        assert_eq!(wang(10).architecture.to_string(), "dm-wrn-28-10");
        let name = |id, classes| published(id, classes).unwrap().architecture.to_string();
        assert_eq!(name("Rice2020Overfitting", 10), "wrn-34-20");
        assert_eq!(name("Rice2020Overfitting", 100), "preact-resnet18");
        assert_eq!(published("Wu2020Adversarial", 10).unwrap().normalize, Normalize::None);
        assert!(matches!(published("Wu2020Adversarial", 100).unwrap().normalize, Normalize::Values { .. }));
        let message = published("Wang2023", 10).unwrap_err();
        assert!(message.contains("Wang2023Better_WRN-70-16"), "{message}");
    }
}
