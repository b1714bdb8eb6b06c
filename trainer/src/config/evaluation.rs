//! What is measured on images that are not trained on.

use serde::{Deserialize, Serialize};

use super::Pixels;

/// `[evaluation]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluation {
    /// The attacks of the final evaluation on the test set.
    pub suite: Vec<String>,
    /// Epochs between measurements of natural and PGD-10 accuracy during training; 0 for none.
    pub every: u64,
    /// The images that choose the best checkpoint.
    pub selection: Selection,
    /// The share of the training set that `selection = "held_out"` sets aside.
    pub held_out: f64,
    /// Whether that share is taken of every class.
    pub stratified: bool,
    /// Whether the weights of the last epoch are evaluated too, where others are the best.
    #[serde(rename = "final")]
    pub last: bool,
    /// Radius of every attack's ball.
    pub eps: Pixels,
    /// Length of a step of the attacks with several steps.
    pub step: Pixels,
    /// Rows of an evaluation batch on each rank; a multiple of 16, filled up where images run out.
    pub batch: usize,
    /// The lengths of AutoAttack's searches; the resolved copy of a configuration shows others than the standard ones.
    #[serde(skip_serializing_if = "AutoAttack::is_default")]
    pub autoattack: AutoAttack,
}

/// How long the attacks of AutoAttack search: `apgd_ce`, `apgd_t`, `fab_t` and `square`, together or by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoAttack {
    /// Steps of Auto-PGD and FAB.
    pub iterations: u32,
    /// Squares tried by Square.
    pub queries: u32,
    /// Classes that targeted attacks draw towards, one after another; all others where there are fewer.
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
            every: 1,
            selection: Selection::HeldOut,
            held_out: 0.02,
            stratified: false,
            last: false,
            eps: Pixels(8.0 / 255.0),
            step: Pixels(2.0 / 255.0),
            batch: 128,
            autoattack: AutoAttack::default(),
        }
    }
}

/// Which images choose the best checkpoint.
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
