//! Every objective as weighted terms: ordinary training, adversarial training, distillation, introspection.
//!
//! The loss of a step is the sum over terms of `weight * mean over the global batch of (trust * divergence)`. All
//! divergences take log-softmax of the logits; the guide's prediction is the first argument of the textbook
//! Kullback-Leibler divergence, as in the reference code (IAD-I.py, trades.py), not as the paper prints it.

use tch::{Kind, Tensor, no_grad};

use super::views::Views;
use crate::config::{Images, STUDENT, SampleWeight, Target, Term, Trust};

impl Trust {
    /// alpha of each sample `[N]`, without gradient; computed from log-probabilities, so that it never underflows.
    pub fn alpha(&self, views: &Views, labels: &Tensor) -> Tensor {
        no_grad(|| {
            let logits = views.logits(&self.teacher, Images::Adversarial);
            (log_probability_of(&logits, labels) * self.exponent).exp()
        })
    }

    fn factor(&self, views: &Views, labels: &Tensor) -> Tensor {
        let alpha = self.alpha(views, labels);
        if self.inverted { 1.0 - alpha } else { alpha }
    }
}

impl Term {
    /// The term's part of the loss for the samples of this rank: their sum (a scalar) divided by `global_count`, the
    /// number of samples on all ranks. `labels [N]` are int64, or `[N, classes]` the probabilities of mixed labels, for
    /// terms that [can take them](Self::takes_mixed_labels).
    pub fn evaluate(&self, views: &Views, labels: &Tensor, global_count: f64) -> Tensor {
        let student = self.side(views, STUDENT, self.of);
        let divergence = match &self.towards {
            Target::Label => cross_entropy(&(student / self.temperature), labels, self.smoothing),
            Target::BoostedLabel => boosted_cross_entropy(&(student / self.temperature), labels),
            Target::Prediction(prediction) => {
                let guide = self.side(views, &prediction.network, prediction.images);
                let guide = if self.stop_gradient { guide.detach() } else { guide };
                divergence(&guide, &student, self.temperature)
            }
        };
        let trusted = match &self.trust {
            Some(trust) => divergence * trust.factor(views, labels),
            None => divergence,
        };
        let trusted = match self.sample_weight {
            Some(weight) => trusted * weight.factor(views, labels),
            None => trusted,
        };
        trusted.sum(trusted.kind()) * (self.weight * self.temperature * self.temperature / global_count)
    }
}

impl Term {
    /// The logits on one side of the divergence: a network's on some images, less those on the images of `minus`.
    fn side(&self, views: &Views, network: &str, images: Images) -> Tensor {
        let logits = views.logits(network, images);
        match self.minus {
            Some(minus) => logits - views.logits(network, minus),
            None => logits,
        }
    }
}

impl SampleWeight {
    /// The factor of each sample, `[N]`, with its gradient.
    fn factor(self, views: &Views, labels: &Tensor) -> Tensor {
        match self {
            // The constant is that of the authors' code.
            Self::Misclassification => {
                1.000_000_1 - log_probability_of(&views.logits(STUDENT, Images::Natural), labels).exp()
            }
        }
    }
}

/// The cross-entropy of each sample, `[N]`, towards a label of which the share `smoothing` is spread over all classes.
fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Tensor {
    let of_label = -log_probability_of(logits, labels);
    if smoothing == 0.0 {
        return of_label;
    }
    of_label * (1.0 - smoothing) - log_softmax(logits).mean_dim(1i64, false, None) * smoothing
}

/// MART's cross-entropy of each sample, `[N]`: -log q_y - log(1.0001 - q_j + 1e-12), with j the most probable class
/// other than the label y.
fn boosted_cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    let log_probabilities = log_softmax(logits);
    let others = log_probabilities.scatter_value(1, &labels.unsqueeze(1), f64::NEG_INFINITY);
    let runner_up = log_probabilities.gather(1, &others.argmax(1, true), false).squeeze_dim(1).exp();
    -log_probability_of(logits, labels) - (-runner_up + (1.000_1 + 1e-12)).log()
}

/// The logarithm of the softmax probability of each sample's label, `[N]`. Of a mixed label, `[N, classes]` probabilities, it
/// is the mean over its classes.
pub fn log_probability_of(logits: &Tensor, labels: &Tensor) -> Tensor {
    if labels.dim() == 2 {
        return (log_softmax(logits) * labels).sum_dim_intlist(1i64, false, None);
    }
    log_softmax(logits).gather(1, &labels.unsqueeze(1), false).squeeze_dim(1)
}

/// KL(softmax(guide / t) || softmax(student / t)) of each sample, `[N]`. A guide's probability of 0 contributes 0.
fn divergence(guide: &Tensor, student: &Tensor, temperature: f64) -> Tensor {
    let guide = log_softmax(&(guide / temperature));
    let student = log_softmax(&(student / temperature));
    (guide.exp() * (&guide - student)).sum_dim_intlist(1i64, false, None)
}

/// At least single precision, whatever type the networks compute in.
fn log_softmax(logits: &Tensor) -> Tensor {
    let kind = if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    logits.log_softmax(1, kind)
}

#[cfg(test)]
mod tests;
