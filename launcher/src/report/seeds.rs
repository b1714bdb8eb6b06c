//! Runs that differ in their seed alone: which they are, and the mean and the spread of their results.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use trainer::config::{Norm, RunConfig};

use super::data::{Evaluation, RecordedRun};
use super::names::{collect, seed_of};
use super::spread::{Figure, Measurement};
use crate::draw::{Grid, NOTHING};

/// What the numbers over seeds are.
pub(crate) const OVER_SEEDS: &str = "Accuracy in %, mean ± sample standard deviation over the runs of several seeds.";

/// The results of the runs of several seeds under one protocol.
#[derive(Debug, PartialEq)]
pub(crate) struct OverSeeds {
    /// The folder around the runs, or their names.
    pub(crate) name: String,
    pub(crate) weights: String,
    pub(crate) split: Option<String>,
    pub(crate) norm: Norm,
    pub(crate) eps: Option<f64>,
    pub(crate) seeds: Vec<u64>,
    /// The accuracies by attack. An attack that a run lacks is left out.
    pub(crate) attacks: Vec<(String, Figure)>,
}

/// The run folders that these folders stand for: one with runs of several seeds stands for these, in order.
pub(crate) fn expanded(folders: &[PathBuf]) -> Vec<PathBuf> {
    let runs = |folder: &PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut found: Vec<(u64, PathBuf)> = entries
            .filter(|path| path.join("run.toml").is_file())
            .filter_map(|path| Some((seed_of(&path)?, path)))
            .collect();
        found.sort();
        if found.is_empty() || folder.join("run.toml").is_file() {
            return vec![folder.clone()];
        }
        found.into_iter().map(|(_, path)| path).collect()
    };
    folders.iter().flat_map(runs).collect()
}

/// What two runs have in common that differ in their seed alone, and their seed.
fn key(run: &RecordedRun) -> Option<(String, u64)> {
    let config = configuration(run)?;
    Some((config.of_seed(0).hash(), config.seed))
}

/// The run's configuration, if it has one that is whole.
pub(crate) fn configuration(run: &RecordedRun) -> Option<RunConfig> {
    RunConfig::parse(run.config.as_ref()?, Path::new("run.toml"), &[]).ok()
}

/// What must be equal for two evaluations to be averaged.
fn protocol(evaluation: &Evaluation) -> impl PartialEq + use<> {
    let Evaluation { weights, split, images, norm, precision, eps, attack_step, .. } = evaluation.clone();
    (weights, split, images, norm, precision, eps.map(f64::to_bits), attack_step.map(f64::to_bits))
}

/// The results of all runs of which there are several seeds.
pub(crate) fn over_seeds(runs: &[RecordedRun]) -> Vec<OverSeeds> {
    let keys: Vec<_> = runs.iter().map(key).collect();
    let mut found = vec![];
    for (first, same) in keys.iter().enumerate().filter_map(|(first, key)| Some((first, key.as_ref()?))) {
        let alike = |other: &usize| keys[*other].as_ref().is_some_and(|(hash, _)| *hash == same.0);
        if (0..first).any(|earlier| alike(&earlier)) {
            continue;
        }
        // Two copies of a run are one run.
        let mut group: Vec<(u64, &RecordedRun)> = vec![];
        for other in (first..runs.len()).filter(alike) {
            let seed = keys[other].as_ref().map_or(0, |(_, seed)| *seed);
            if !group.iter().any(|(known, _)| *known == seed) {
                group.push((seed, &runs[other]));
            }
        }
        found.extend(of_group(&group));
    }
    found
}

/// The results of a group, for each protocol by which at least two of its runs were evaluated.
fn of_group(group: &[(u64, &RecordedRun)]) -> Vec<OverSeeds> {
    let evaluations: Vec<(u64, &RecordedRun, &Evaluation)> = group
        .iter()
        .flat_map(|(seed, run)| run.evaluation.iter().chain(&run.others).map(move |found| (*seed, *run, found)))
        .collect();
    let mut found = vec![];
    for (first, (.., evaluation)) in evaluations.iter().enumerate() {
        let alike = |other: &&(u64, &RecordedRun, &Evaluation)| protocol(other.2) == protocol(evaluation);
        let same: Vec<_> = evaluations.iter().filter(alike).collect();
        if same.len() < 2 || evaluations[..first].iter().any(|other| alike(&other)) {
            continue;
        }
        let figure = |name: &str| {
            let accuracy =
                |found: &Evaluation| found.attacks.iter().find(|attack| attack.name == name).and_then(Measurement::of);
            let measured: Option<Vec<Measurement>> = same.iter().map(|(.., found)| accuracy(found)).collect();
            Figure::of(&measured?)
        };
        let attacks = evaluation.attacks.iter().filter_map(|attack| Some((attack.name.clone(), figure(&attack.name)?)));
        found.push(OverSeeds {
            name: name(&same.iter().map(|(_, run, _)| *run).collect::<Vec<_>>()),
            weights: evaluation.weights.clone().unwrap_or_else(|| "best".into()),
            split: evaluation.split.clone(),
            norm: evaluation.norm,
            eps: evaluation.eps,
            seeds: same.iter().map(|(seed, ..)| *seed).collect(),
            attacks: attacks.collect(),
        });
    }
    found
}

/// The folder around the runs of several seeds, or else the names of the runs.
fn name(runs: &[&RecordedRun]) -> String {
    let around: Vec<Option<&str>> = runs.iter().map(|run| Some(run.name.split_once("/seed-")?.0)).collect();
    match around[..] {
        [Some(first), ..] if around.iter().all(|other| *other == Some(first)) => first.to_string(),
        _ => runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// A row for each of these results.
pub(crate) fn grid_over_seeds(found: &[OverSeeds]) -> Grid {
    let mut attacks = vec![];
    for one in found {
        collect(&mut attacks, one.attacks.iter().map(|(name, _)| name.as_str()));
    }
    let columns = ["runs", "weights", "seeds"].into_iter().chain(attacks.iter().map(String::as_str));
    let columns = columns.map(str::to_string).collect();
    let row = |one: &OverSeeds| {
        let seeds: Vec<String> = one.seeds.iter().map(u64::to_string).collect();
        let mut cells = vec![one.name.clone(), one.weights.clone(), format!("{} ({})", seeds.len(), seeds.join(", "))];
        cells.extend(attacks.iter().map(|name| {
            let figure = one.attacks.iter().find(|(known, _)| known == name);
            figure.map_or_else(|| NOTHING.to_string(), |(_, figure)| figure.text())
        }));
        cells
    };
    Grid { columns, rows: found.iter().map(row).collect() }
}

impl OverSeeds {
    /// As data.
    pub(crate) fn json(&self) -> Value {
        let attack = |(name, figure): &(String, Figure)| {
            (name.clone(), json!({ "mean": figure.value, "standard_deviation": figure.spread, "runs": figure.runs }))
        };
        let attacks: serde_json::Map<String, Value> = self.attacks.iter().map(attack).collect();
        json!({
            "runs": self.name, "weights": self.weights, "split": self.split, "norm": self.norm, "eps": self.eps,
            "seeds": self.seeds, "attacks": attacks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, seed: u64, lr: f64, correct: u64) -> RecordedRun {
        let config = format!(
            r#"
seed = {seed}
epochs = 2
batch = {{ size = 8 }}
data = {{ train = "a.h5", test = "a.h5" }}
student = {{ architecture = "resnet8" }}
loss = {{ preset = "at" }}
optimizer = {{ lr = {lr}, lr_policy = "constant" }}
"#
        );
        let evaluation = format!(
            r#"{{"weights":"best","eps":0.5,"images":100,"attacks":[{{"name":"natural","correct":{correct},"of":100}}]}}"#
        );
        let evaluation = serde_json::from_str(&evaluation).ok();
        RecordedRun { name: name.into(), config: Some(config), evaluation, ..RecordedRun::default() }
    }

    #[test]
    fn runs_alike_but_for_their_seed_have_a_mean_and_a_deviation() {
        let runs = [
            run("a/seed-1", 1, 0.1, 80),
            run("b", 1, 0.2, 10),
            run("a/seed-2", 2, 0.1, 82),
            run("a/seed-7", 7, 0.1, 87),
            // A copy of the first, and a run of a group without an evaluation.
            run("copy", 1, 0.1, 80),
            RecordedRun { evaluation: None, ..run("a/seed-8", 8, 0.1, 0) },
        ];
        let found = over_seeds(&runs);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].name.as_str(), &found[0].seeds[..]), ("a", &[1, 2, 7][..]));
        // The sample standard deviation of 80, 82 and 87 is the root of 13.
        assert_eq!(grid_over_seeds(&found).rows, [["a", "best", "3 (1, 2, 7)", "83.00 ± 3.61"]]);
        assert_eq!(found[0].json()["attacks"]["natural"]["mean"], 83.0);
        assert!(over_seeds(&runs[..2]).is_empty());
    }

    #[test]
    fn evaluations_within_other_radii_are_not_averaged() {
        let mut runs = [run("x", 1, 0.1, 80), run("y", 2, 0.1, 82)];
        assert_eq!(over_seeds(&runs)[0].name, "x, y");
        runs[1].evaluation.as_mut().unwrap().eps = Some(0.25);
        assert!(over_seeds(&runs).is_empty());
    }

    #[test]
    fn a_folder_of_seeds_stands_for_its_runs_in_order() {
        let world = tempfile::tempdir().unwrap();
        let folder = world.path().join("mine");
        for name in ["seed-10", "seed-2", "seed-x", "other"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            std::fs::write(folder.join(name).join("run.toml"), "").unwrap();
        }
        std::fs::create_dir_all(folder.join("seed-3")).unwrap();
        assert_eq!(expanded(std::slice::from_ref(&folder)), [folder.join("seed-2"), folder.join("seed-10")]);
        std::fs::write(folder.join("run.toml"), "").unwrap();
        assert_eq!(expanded(&[folder.clone(), "none".into()]), [folder, "none".into()]);
    }
}
