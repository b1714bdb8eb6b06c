//! The values of a new configuration: what is usual for its method, its data set and its network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use toml::Value;
use trainer::config::{Architecture, RunConfig, Teacher, Term};

use super::names::DataSet;

/// The epochs that the presets' warm-ups are meant for.
const USUAL_EPOCHS: u64 = 200;
/// Those that the milestones of MTARD, B-MTARD and CIARD, and CIARD's epochs, are meant for.
const EPOCHS_OF_BALANCE: u64 = 300;

/// A configuration to make.
pub(super) struct Recipe<'a> {
    pub(super) dataset: &'a DataSet,
    /// A preset.
    pub(super) method: &'a str,
    pub(super) model: Architecture,
    /// The configurations of the teachers and the folders they are trained into, by the names in the method's loss.
    pub(super) teachers: &'a BTreeMap<String, (PathBuf, PathBuf)>,
}

/// The teachers that a preset names, each with the preset that trains it.
///
/// # Errors
/// There is none for a known preset.
pub(super) fn teachers_of(method: &str) -> Result<Vec<(&'static str, &'static str)>> {
    let dataset = DataSet { name: String::new(), file: PathBuf::new() };
    let both = [("robust", "at"), ("standard", "st")];
    let teachers: BTreeMap<_, _> =
        both.iter().map(|(name, _)| ((*name).to_string(), (PathBuf::from("a.toml"), PathBuf::from("a")))).collect();
    let config = Recipe { dataset: &dataset, method, model: Architecture::ResNet8, teachers: &teachers }.config()?;
    let mut asked = config.asked(&config.loss.terms);
    asked.extend(config.learners.values().filter_map(|learner| learner.teacher.as_deref()));
    Ok(both.into_iter().filter(|(name, _)| asked.contains(name)).collect())
}

impl Recipe<'_> {
    /// Whether the network is one for CPUs and minutes.
    pub(super) fn is_small(&self) -> bool {
        matches!(self.model, Architecture::ResNet8 | Architecture::ConvNet)
    }

    /// The configuration.
    ///
    /// # Errors
    /// A value that is not allowed; there is none.
    pub(super) fn config(&self) -> Result<RunConfig> {
        // Presets are meant for long runs: one of their epochs may lie behind the end of this one until it is scaled.
        let text = format!("epochs = {EPOCHS_OF_BALANCE}\n{}", self.toml());
        let mut config = RunConfig::parse(&text, Path::new("the new configuration"), &[])?;
        config.epochs = self.epochs();
        let usual = if self.method == "ciard" { EPOCHS_OF_BALANCE } else { USUAL_EPOCHS };
        let epochs = config.epochs;
        let scaled = |epoch: u64| if epoch == 0 { 0 } else { (epoch * epochs / usual).max(1) };
        config.learners.values_mut().for_each(|learner| learner.from_epoch = scaled(learner.from_epoch));
        for term in &mut config.loss.terms {
            term.from_epoch = scaled(term.from_epoch);
            if let Some(trust) = &mut term.trust {
                trust.from_epoch = scaled(trust.from_epoch);
            }
            if let ("score", Some(classes)) = (self.method, self.classes())
                && term.smoothing > 0.0
            {
                term.smoothing = 0.1 * classes / (classes - 1.0);
            }
            // The divergence is averaged over the classes there, too. MTARD counts it ten times on CIFAR-100.
            let averaged = match (self.method, self.dataset.name.as_str()) {
                ("mtard" | "b-mtard", "cifar100") => 10.0,
                ("mtard" | "b-mtard" | "fair-mtard", _) => 1.0,
                // A balance of rate 0 halves two terms, and a temperature of 5 multiplies the third by its square.
                ("ciard", _) if term.name == "push" => -1.0 / 25.0,
                ("ciard", _) if term.name != "tutor-label" => 2.0,
                ("ard-orig" | "fair-ard", _) if term.name == "teach" => 1.0,
                ("peeraid", dataset) => match peeraid(dataset, term) {
                    Some(averaged) => averaged,
                    None => continue,
                },
                _ => continue,
            };
            if let Some(classes) = self.classes() {
                term.weight = averaged / classes;
            }
        }
        // A guide for CPUs and minutes is like the student.
        config.learners.values_mut().filter(|_| self.is_small()).for_each(|learner| learner.architecture = None);
        for milestone in config.loss.balance.iter_mut().flat_map(|balance| &mut balance.milestones) {
            *milestone = (*milestone * config.epochs / EPOCHS_OF_BALANCE).max(1);
        }
        for (name, (file, folder)) in self.teachers {
            let own: Value =
                toml::Table::from_iter([("checkpoint".to_string(), path(folder)), ("config".to_string(), path(file))])
                    .into();
            config.teachers.insert(name.clone(), own.try_into::<Teacher>()?);
        }
        Ok(config)
    }

    /// The number of classes of a published data set.
    fn classes(&self) -> Option<f64> {
        match self.dataset.name.as_str() {
            "cifar10" | "fashion-mnist" | "mnist" => Some(10.0),
            "cifar100" => Some(100.0),
            "tiny-imagenet" => Some(200.0),
            _ => None,
        }
    }

    fn epochs(&self) -> u64 {
        match self.dataset.name.as_str() {
            _ if self.is_small() => 6,
            "tiny-imagenet" => USUAL_EPOCHS / 2,
            _ => USUAL_EPOCHS,
        }
    }

    /// The values that are not the program's defaults, but for the epochs.
    fn toml(&self) -> String {
        let Self { dataset, method, .. } = self;
        let name = dataset.name.as_str();
        let small = self.is_small();
        let images = path(&dataset.file);
        // Mirrored and shifted pictures are pictures of the same thing. Digits are not, and clothes are centred.
        let augment = match name {
            "cifar10" | "cifar100" | "tiny-imagenet" if !small => "augment = { crop = 4, flip = true }",
            _ => "",
        };
        let (eps, step, steps) = match (name, small) {
            ("mnist", true) => ("0.3", "0.225", 2),
            ("mnist", false) => ("0.3", "0.01", 40),
            (_, true) => ("\"8/255\"", "\"6/255\"", 2),
            (_, false) => ("\"8/255\"", "\"2/255\"", 10),
        };
        // Methods whose steps are as long as the radius.
        let (step, steps) = match *method {
            "nuat" => (eps, 1),
            "nuat2-wa" => (eps, 2),
            _ => (step, steps),
        };
        let (measured_step, pgd) = if name == "mnist" { ("0.01", "pgd40") } else { ("\"2/255\"", "pgd20") };
        let epochs = self.epochs();
        let lr = if small { 0.2 } else { 0.1 };
        let decay = if small || name == "tiny-imagenet" { "5e-4" } else { "2e-4" };
        let policy = if small {
            "{ one_cycle = { start = 0.1, peak = 0.25, end = 0.005 } }".to_string()
        } else {
            format!("{{ step = {{ at = [{}, {}], factor = 0.1 }} }}", epochs / 2, 3 * epochs / 4)
        };
        let teachers: String = self
            .teachers
            .keys()
            .map(|teacher| format!("[teachers.{teacher}]\ncheckpoint = \"runs/{teacher}\"\n"))
            .collect();
        format!(
            r#"
seed = 1
[batch]
size = 128
[data]
train = {images}
test = {images}
{augment}
[student]
architecture = "{model}"
{teachers}
[attack]
eps = {eps}
step = {step}
steps = {steps}
[loss]
preset = "{method}"
[optimizer]
lr = {lr}
lr_policy = {policy}
weight_decay = {decay}
[evaluation]
suite = ["natural", "fgsm", "fgsm_rs", "{pgd}"]
eps = {eps}
step = {measured_step}
"#,
            model = self.model
        )
    }
}

/// The weight of a term of PeerAiD before it is divided by the number of classes, as its authors have it for the data set. On
/// Tiny-ImageNet temperatures are 1, and the student learns the label.
fn peeraid(dataset: &str, term: &mut Term) -> Option<f64> {
    let tiny = dataset == "tiny-imagenet";
    if tiny {
        term.temperature = 1.0;
    }
    match (term.name.as_str(), dataset) {
        ("peer-teach", "cifar100") => Some(1.0),
        ("peer-teach", _) => Some(if tiny { 100.0 } else { 0.1 }),
        ("teach", _) => Some(if tiny { 35.0 } else { 1.0 }),
        ("smooth", _) => Some(if tiny { 20.0 } else { 1.0 }),
        ("label", _) => {
            term.weight = if tiny { 0.035 } else { 0.0 };
            None
        }
        _ => None,
    }
}

/// A path as a value in TOML.
fn path(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use trainer::config::{LossConfig, preset_names};

    use super::*;

    #[test]
    fn a_method_has_the_teachers_it_names() {
        for (method, teachers) in [
            ("at", &[][..]),
            ("iad-1", &["robust"]),
            ("igdm", &["robust"]),
            ("adaad", &["robust"]),
            ("akd2", &["robust", "standard"]),
        ] {
            let found: Vec<&str> = teachers_of(method).unwrap().iter().map(|(name, _)| *name).collect();
            assert_eq!(found, teachers, "{method}");
        }
        for method in preset_names() {
            let alone = [
                "st",
                "at",
                "trades",
                "trades-ls",
                "mart",
                "nuat",
                "nuat2-wa",
                "score",
                "dkl",
                "gkl",
                "adr",
                "adr-trades",
                "lbgat",
                "peeraid",
            ];
            let distils = !alone.contains(&method);
            assert_eq!(!teachers_of(method).unwrap().is_empty(), distils, "{method}");
        }
    }

    #[test]
    fn warm_ups_fit_into_short_runs_and_stay_as_published_in_long_ones() {
        let dataset = DataSet { name: "cifar100".into(), file: "data/cifar100.h5".into() };
        let of = |method, model: &str| {
            let place = |name: &str| (name.to_string(), (PathBuf::from("t.toml"), PathBuf::from("runs/t")));
            let teachers: BTreeMap<_, _> = teachers_of(method).unwrap().iter().map(|(name, _)| place(name)).collect();
            let recipe = Recipe { dataset: &dataset, method, model: model.parse().unwrap(), teachers: &teachers };
            recipe.config().unwrap()
        };
        let weight = |loss: &LossConfig, name: &str| {
            loss.terms.iter().find(|term| term.name == name).map_or(f64::NAN, |term| term.weight)
        };
        let (long, short) = (of("iad-1", "wrn-34-10"), of("iad-1", "resnet8"));
        assert_eq!((long.epochs, long.loss.terms[2].from_epoch), (200, 60));
        assert_eq!((short.epochs, short.loss.terms[2].from_epoch), (6, 1));
        assert_eq!(long.teachers["robust"].config.as_deref(), Some(Path::new("t.toml")));
        assert!((of("ard-orig", "resnet18").loss.terms[0].weight - 0.01).abs() < 1e-15);
        let balanced = of("mtard", "wrn-34-10").loss;
        assert!((balanced.terms[0].weight - 0.1).abs() < 1e-15);
        assert_eq!(balanced.balance.unwrap().milestones, [143, 173, 190]);
        let peer = of("peeraid", "resnet18").loss;
        assert_eq!(["peer-teach", "teach", "smooth"].map(|name| weight(&peer, name)), [0.01; 3]);
        assert_eq!(of("lbgat", "resnet18").learners["guide"].architecture, Some("resnet18".parse().unwrap()));
        assert_eq!(of("lbgat", "resnet8").learners["guide"].architecture, None);
        assert_eq!(of("b-mtard", "resnet8").loss.balance.unwrap().milestones, [4, 5, 5]);
        let (long, short) = (of("ciard", "resnet18"), of("ciard", "resnet8"));
        assert_eq!(["natural", "adversarial", "push"].map(|name| weight(&long.loss, name)), [0.02, 0.02, -0.0004]);
        assert_eq!([&long, &short].map(|config| config.learners["tutor"].from_epoch), [33, 1]);
        assert_eq!([&long, &short].map(|config| config.loss.terms[3].from_epoch), [33, 1]);
        for (method, steps) in [("nuat", 1), ("nuat2-wa", 2)] {
            for model in ["resnet18", "resnet8"] {
                let attack = of(method, model).attack;
                assert_eq!((attack.steps, attack.step.0), (steps, attack.eps.0), "{method}");
            }
        }
    }
}
