//! The numbers of an evaluation together with the protocol they were measured by: evaluation.json and its table.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::config::{AutoAttack, Dtype, Norm};
use crate::evaluate::{Accuracy, NetworkSpec};
use crate::system::files::{file_sha256, write_atomically};

/// What differs from machine to machine.
#[derive(Debug, Clone, Serialize)]
pub struct Seconds {
    /// Seconds over all sessions.
    pub seconds: f64,
    /// What the leader's last session computed in and the instructions that it did so with, as in `float32; AVX512`.
    pub precision: String,
    /// The numbers of rows that the leader's last session used besides the protocol's, for they gave the same bits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<usize>,
}

/// The contents of evaluation.json.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// The name of the run folder, or of the file of weights.
    pub run: String,
    /// Which weights: `best`, `final`, or another name.
    pub weights: String,
    /// SHA-256 of their file.
    pub weights_sha256: String,
    /// The network.
    pub network: NetworkSpec,
    /// For each class the output that stands for it; not written where they are in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<usize>>,
    /// Steps of training behind the weights.
    pub step: u64,
    /// The split evaluated.
    pub split: &'static str,
    /// The file name of its container.
    pub data: String,
    /// SHA-256 of the images evaluated and their labels, one after the other.
    pub data_sha256: String,
    /// Their number.
    pub images: u64,
    /// The norm of every attack's ball; not written for L-infinity, as in earlier versions.
    #[serde(skip_serializing_if = "Norm::is_default")]
    pub norm: Norm,
    /// Its radius.
    pub eps: f64,
    /// Step length of the attacks with several steps.
    pub attack_step: f64,
    /// The number format of the forward passes; not written for float32, as in earlier versions.
    #[serde(skip_serializing_if = "Dtype::is_default")]
    pub precision: Dtype,
    /// The lengths of AutoAttack's searches.
    pub autoattack: AutoAttack,
    /// Whether those are the "standard" version's, towards nine classes; `None` without any attack of AutoAttack.
    pub autoattack_standard: Option<bool>,
    /// The rounds, one for each attack and target class, in their order.
    pub rounds: Vec<String>,
    /// Rows of a batch.
    pub batch: usize,
    /// The seed of everything random.
    pub seed: u64,
    /// How the weights were selected.
    pub selection: &'static str,
    /// The number of ranks of the last session; the results do not depend on it.
    pub ranks: usize,
    /// The results.
    pub attacks: Vec<Accuracy>,
    /// For each attack made of several components, the accuracies after each of them.
    pub components: BTreeMap<String, Vec<Accuracy>>,
    /// The images that withstand every attack.
    pub worst_case: Accuracy,
    /// Reasons to distrust the numbers.
    pub warnings: Vec<String>,
    /// Seconds spent on each attack, and on each component of one that has several, as `autoattack/fab_t`.
    pub seconds: BTreeMap<String, f64>,
    /// Clocks, over all sessions, and what computed.
    pub timing: Seconds,
}

impl Evaluation {
    /// A table with one line for each accuracy.
    pub fn csv(&self) -> String {
        let mut text = "attack,component,correct,of,accuracy,standard_error,seconds\n".to_string();
        let mut line =
            |attack: &str, component: &str, Accuracy { correct, of, .. }: &Accuracy, seconds: Option<&f64>| {
                let share = *correct as f64 / (*of).max(1) as f64;
                let error = (share * (1.0 - share) / (*of).max(1) as f64).sqrt();
                let seconds = seconds.map(|seconds| format!("{seconds:.3}")).unwrap_or_default();
                text += &format!("{attack},{component},{correct},{of},{share:.6},{error:.6},{seconds}\n");
            };
        for attack in &self.attacks {
            for part in self.components.get(&attack.name).into_iter().flatten() {
                line(&attack.name, &part.name, part, self.seconds.get(&format!("{}/{}", attack.name, part.name)));
            }
            line(&attack.name, "", attack, self.seconds.get(&attack.name));
        }
        line(&self.worst_case.name, "", &self.worst_case, None);
        text
    }

    /// Writes the numbers of the evaluation in `from` to `to`, for `weights` of equal values under another name.
    ///
    /// # Errors
    /// Anything the file system says.
    pub fn write_for(&self, name: &str, weights: &Path, from: &Path, to: &Path) -> Result<()> {
        let (table, copy) = (samples_of(from), samples_of(to));
        fs::copy(&table, &copy).with_context(|| format!("copying {} to {}", table.display(), copy.display()))?;
        Self { weights: name.to_string(), weights_sha256: file_sha256(weights)?, ..self.clone() }.write(to)
    }

    /// Writes evaluation.json to `path`.
    ///
    /// # Errors
    /// Anything the file system says.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, (serde_json::to_string_pretty(self)? + "\n").as_bytes())
    }
}

/// The table of samples beside the numbers in `file`.
pub(super) fn samples_of(file: &Path) -> PathBuf {
    file.with_extension("samples.csv")
}
