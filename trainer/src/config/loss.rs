//! `[loss]`: the terms of the objective, as data.

use serde::{Deserialize, Serialize};

use super::remembered::{Balance, ClassMeans, ClassWeights, Rectify};
use super::{Divergence, Images, Target};

/// `[loss]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// The summands. A preset (`preset = "iad-1"`) is replaced by its terms when the file is read.
    pub terms: Vec<Term>,
    /// A factor of every sample's loss by its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// The mean prediction of each class, for terms with `divergence = "logit_gaps"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_means: Option<ClassMeans>,
    /// A mixture in place of the label of every term towards `"label"`, in the loss and in the attack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rectify: Option<Rectify>,
    /// Weights of two terms that follow their values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
}

impl LossConfig {
    /// Whether a step needs numbers of the global batch before its backward pass.
    pub fn exchanges(&self) -> bool {
        let terms = || self.terms.iter().filter(|term| term.weight != 0.0);
        let gaps = terms().any(|term| term.divergence == Divergence::LogitGaps);
        let normalized = self.class_means.is_some_and(|means| means.normalized) && gaps;
        let counted = |term: &Term| term.only.as_ref().is_some_and(|only| only.normalized);
        let whole = |term: &Term| term.uncertainty.is_some() || term.divergence == Divergence::Nuclear || counted(term);
        self.couples() || normalized || terms().any(whole)
    }

    /// Whether the values of terms weigh other terms.
    pub fn couples(&self) -> bool {
        self.balance.is_some() || self.terms.iter().any(|term| term.times.is_some() || term.follows())
    }

    /// Whether the attack raises terms of the loss too, in every second step if no network leads it.
    pub fn raises_terms(&self) -> bool {
        self.terms.iter().any(|term| term.in_attack && term.weight > 0.0)
    }

    /// The teacher of the diagnostics: the one that a term's trust names, else the first teacher among the targets.
    pub fn observed_teacher(&self) -> Option<&str> {
        let terms = &self.terms;
        let trusted = terms.iter().find_map(|term| term.trust.as_ref().map(|trust| trust.teacher.as_str()));
        let mut guides = terms.iter().filter_map(|term| match &term.towards {
            Target::Prediction(prediction) => Some(prediction.network.as_str()),
            Target::Label | Target::BoostedLabel => None,
        });
        let learns = |network: &str| terms.iter().any(|term| term.network == network);
        trusted.or_else(|| guides.find(|network| ![STUDENT, EMA].contains(network) && !learns(network)))
    }
}

/// The name of the network being trained.
pub const STUDENT: &str = "student";
/// The name of the moving average of the student's weights (`averages.ema`) as a network.
pub const EMA: &str = "ema";

/// One summand of the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Its name in metrics and messages.
    pub name: String,
    /// The network whose prediction the term is about: the student or a learner. The gradient trains it.
    #[serde(default = "student", skip_serializing_if = "is_student")]
    pub network: String,
    /// The images of that prediction.
    pub of: Images,
    /// Images whose logits are subtracted on both sides of the divergence, the network's and the target's (IGDM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minus: Option<Images>,
    /// The target of that prediction.
    pub towards: Target,
    /// The share of a label's probability that is spread evenly over all classes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub smoothing: f64,
    /// What of each sample's divergence counts for nothing: the term takes max(divergence - slack, 0) (SCORE).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slack: f64,
    /// The weight of the term. One with `magnitude_of` may be subtracted, by a negative weight.
    #[serde(default = "one")]
    pub weight: f64,
    /// The names of terms whose order of magnitude this one takes: it is multiplied by the power of ten, without gradient, that
    /// brings floor(lg |value|) to the least of theirs, by values over the global batch (CIARD).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub magnitude_of: Vec<String>,
    /// The temperature of both predictions; the divergence is multiplied by its square (Hinton et al. 2015).
    #[serde(default = "one")]
    pub temperature: f64,
    /// The temperature of the target alone; without it, that of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_temperature: Option<f64>,
    /// How far the prediction is from the target's.
    #[serde(default, skip_serializing_if = "Divergence::is_default")]
    pub divergence: Divergence,
    /// Whether the target's most probable class stands for its prediction, as a label (HAT).
    #[serde(default, skip_serializing_if = "is_false")]
    pub hard: bool,
    /// Whether the target's largest logit and that of the label change places where they are of two classes (DGAD).
    #[serde(default, skip_serializing_if = "is_false")]
    pub swap_label: bool,
    /// The samples that count; without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Only>,
    /// A factor of each sample: the uncertainty of a teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertainty: Option<Uncertainty>,
    /// A factor of each sample: the trust in a teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Another factor of each sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_weight: Option<SampleWeight>,
    /// Another term that multiplies this one: with A and D the values of that term and of this one, and r the share of the samples
    /// that this one counts, both together are D (1 + A / r) instead of D + A (DGAD's code for MobileNetV2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<String>,
    /// How the weight grows over the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// Whether the attack raises this term beside its own objective, in every second step of an epoch, from the second on (NuAT);
    /// where a network leads the attack, in its first step alone (NuAT2-WA).
    #[serde(default, skip_serializing_if = "is_false")]
    pub in_attack: bool,
    /// Whether a target that is the prediction of the student or of a learner is detached; otherwise the gradient flows into it
    /// too.
    #[serde(default)]
    pub stop_gradient: bool,
    /// The first epoch (from 0) of the term.
    #[serde(default)]
    pub from_epoch: u64,
    /// Whether the target is the teacher's natural prediction whose logit of the label follows the candidate to first order:
    /// the objective of an attack with `attack.first_order`.
    #[serde(skip)]
    pub first_order: bool,
}

fn one() -> f64 {
    1.0
}

fn student() -> String {
    STUDENT.into()
}

fn is_student(network: &str) -> bool {
    network == STUDENT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The samples on which a teacher is right, or those on which it is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Only {
    /// The name of the teacher.
    pub teacher: String,
    /// The images that it judges.
    pub images: Images,
    /// Whether the samples count on which it is right.
    pub right: bool,
    /// Whether the term is the mean over the samples that count, on all ranks, instead of that over all samples.
    #[serde(default, skip_serializing_if = "is_false")]
    pub normalized: bool,
}

/// The uncertainty of a teacher: w = scale (H - the least H of the global batch), with H the entropy of its prediction on the
/// adversarial image (SAAD).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uncertainty {
    /// The name of the teacher.
    pub teacher: String,
    /// The order of Renyi's entropy; 1 is Shannon's.
    #[serde(default = "one")]
    pub order: f64,
    /// The factor of the entropy.
    #[serde(default = "five")]
    pub scale: f64,
    /// Whether the factor is 1 - w / (the greatest w of the global batch + 1e-8) instead of w.
    #[serde(default)]
    pub complement: bool,
}

fn five() -> f64 {
    5.0
}

/// A factor of each sample that the student decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleWeight {
    /// 1.0000001 - P_student(label | natural image), with its gradient (MART).
    Misclassification,
}

/// How a weight grows over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ramp {
    /// By the same amount with each epoch, up to the whole weight in the last one.
    Linear,
    /// By the same amount with each epoch, from 0 in the first one up to the whole weight in the last so many epochs (NuAT).
    Hold(u64),
}

impl Ramp {
    /// The share of the weight in `epoch` of `epochs`.
    pub fn share(self, epoch: u64, epochs: u64) -> f64 {
        match self {
            Ramp::Linear => (epoch + 1) as f64 / epochs as f64,
            Ramp::Hold(hold) => {
                let whole = epochs.saturating_sub(hold).max(1);
                epoch.min(whole) as f64 / whole as f64
            }
        }
    }
}

impl Term {
    /// A term of weight 1 without temperature or trust.
    pub fn plain(name: &str, of: Images, towards: Target) -> Self {
        Self {
            name: name.to_string(),
            network: STUDENT.into(),
            of,
            minus: None,
            towards,
            smoothing: 0.0,
            slack: 0.0,
            weight: 1.0,
            magnitude_of: vec![],
            temperature: 1.0,
            target_temperature: None,
            divergence: Divergence::Kl,
            hard: false,
            swap_label: false,
            only: None,
            uncertainty: None,
            trust: None,
            sample_weight: None,
            times: None,
            ramp: None,
            in_attack: false,
            stop_gradient: false,
            from_epoch: 0,
            first_order: false,
        }
    }

    /// The same about another network in the student's place, its target's too.
    pub fn of_network(&self, network: &str) -> Self {
        let mut term = Self { network: network.to_string(), ..self.clone() };
        if let Target::Prediction(target) = &mut term.towards
            && target.network == self.network
        {
            target.network = network.to_string();
        }
        term
    }

    /// Whether its value is scaled to those of other terms.
    pub fn follows(&self) -> bool {
        !self.magnitude_of.is_empty()
    }

    /// Whether a label may be a mixture of two classes.
    pub fn takes_mixed_labels(&self) -> bool {
        let weighs_by_label = self.trust.is_some() || self.sample_weight.is_some() || self.only.is_some();
        self.towards != Target::BoostedLabel && !weighs_by_label && !self.swap_label
    }

    /// The predictions that the term needs besides that of its network on the images it is `of`.
    pub fn asks(&self) -> impl Iterator<Item = (&str, Images)> {
        let network = match &self.towards {
            Target::Label | Target::BoostedLabel => None,
            Target::Prediction(prediction) => Some((prediction.network.as_str(), prediction.images)),
        };
        let subtracted = network.and_then(|(network, _)| Some((network, self.minus?)));
        let trusted = self.trust.as_ref().map(|trust| (trust.teacher.as_str(), Images::Adversarial));
        let uncertain = self.uncertainty.as_ref().map(|one| (one.teacher.as_str(), Images::Adversarial));
        let only = self.only.as_ref().map(|only| (only.teacher.as_str(), only.images));
        network.into_iter().chain(subtracted).chain(trusted).chain(uncertain).chain(only)
    }
}

/// The trust in a teacher, sample by sample: alpha = P_teacher(label | adversarial image)^exponent (paper, equation 4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// The name of the teacher.
    pub teacher: String,
    /// The paper's beta.
    pub exponent: f64,
    /// Whether the factor is 1 - alpha instead of alpha.
    #[serde(default)]
    pub inverted: bool,
    /// The first epoch (from 0) of the trust. Before it, alpha is 1.
    #[serde(default)]
    pub from_epoch: u64,
}
