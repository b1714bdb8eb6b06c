//! `[evaluation]`: the attacks and images that measure a network.

use serde::{Deserialize, Deserializer, Serialize};

use crate::config::{Dtype, Norm, Pixels};

/// `[evaluation]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluation {
    /// The attacks of the final evaluation on the test set.
    #[serde(deserialize_with = "names")]
    pub suite: Vec<String>,
    /// The number of test images of the final evaluation, the first ones; all of them without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
    /// Epochs between measurements of natural and PGD-10 accuracy during training; 0 for none.
    pub every: u64,
    /// The images that select the best checkpoint.
    pub selection: Selection,
    /// The share of the training set that `selection = "held_out"` keeps out of training.
    pub held_out: f64,
    /// Whether that share is taken from each class separately.
    pub stratified: bool,
    /// Whether the weights of the last epoch are evaluated too, if others are the best.
    #[serde(rename = "final")]
    pub last: bool,
    /// The norm of every attack. The resolved configuration writes it only for L2.
    #[serde(skip_serializing_if = "Norm::is_default")]
    pub norm: Norm,
    /// Radius of every attack's ball.
    pub eps: Pixels,
    /// Step size of the attacks with several steps.
    pub step: Pixels,
    /// Rows of an evaluation batch on each rank, a multiple of 16. The last batch is filled up with copies.
    pub batch: usize,
    /// The number format of the final evaluation. The resolved configuration writes it only if it is not float32.
    #[serde(skip_serializing_if = "Dtype::is_default")]
    pub precision: Dtype,
    /// The lengths of AutoAttack's searches. The resolved configuration writes them only if they are not the standard
    /// ones.
    #[serde(skip_serializing_if = "AutoAttack::is_default")]
    pub autoattack: AutoAttack,
}

/// A list of names, or one text with commas, as `eval --suite` takes it.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of attacks, as in [\"natural\", \"pgd20\"], or natural,pgd20")]
    enum Names {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::List(names) => names,
        Names::Text(text) => {
            text.split(',').map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect()
        }
    })
}

/// The lengths of AutoAttack's searches, in `autoattack` and in `apgd_ce`, `apgd_t`, `fab_t` and `square`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoAttack {
    /// Steps of Auto-PGD and FAB.
    pub iterations: u32,
    /// Squares tried by Square.
    pub queries: u32,
    /// The number of target classes of targeted attacks; all other classes if there are fewer.
    pub targets: u32,
}

impl AutoAttack {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for AutoAttack {
    fn default() -> Self {
        Self { iterations: 100, queries: 5000, targets: 9 }
    }
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            suite: ["natural", "fgsm", "fgsm_rs", "pgd20"].map(String::from).to_vec(),
            images: None,
            every: 1,
            selection: Selection::HeldOut,
            held_out: 0.02,
            stratified: false,
            last: false,
            norm: Norm::Linf,
            eps: Pixels(8.0 / 255.0),
            step: Pixels(2.0 / 255.0),
            batch: 128,
            precision: Dtype::Float32,
            autoattack: AutoAttack::default(),
        }
    }
}

/// The images that choose the best checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// A part of the training set that is not trained on.
    HeldOut,
    /// The test set, as the reference does; its accuracy is then an optimistic estimate.
    Test,
    /// None: only the final weights are kept.
    None,
}

impl Selection {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Selection::HeldOut => "held_out",
            Selection::Test => "test",
            Selection::None => "none",
        }
    }
}
