//! Every objective as weighted terms: ordinary training, adversarial training, distillation, introspection.
//!
//! The loss of a step is the sum over terms of `weight * mean over the global batch of (trust * divergence)`. All
//! divergences take log-softmax of the logits; the guide's prediction is the first argument of the textbook
//! Kullback-Leibler divergence, as in the reference code (IAD-I.py, trades.py), not as the paper prints it.

mod nuclear;

use tch::{Kind, Tensor, no_grad};

use super::views::Views;
use crate::config::{Divergence, Images, Only, Prediction, STUDENT, SampleWeight, Target, Term, Trust, Uncertainty};

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
        let student = self.side(views, &self.network, self.of) / self.temperature;
        let trusted = self.fused(views, &student, labels);
        let trusted = trusted.unwrap_or_else(|| self.trusted(views, &student, labels, global_count));
        let trusted = match self.sample_weight {
            Some(weight) => trusted * weight.factor(views, labels),
            None => trusted,
        };
        let trusted = match &self.uncertainty {
            Some(uncertainty) => trusted * uncertainty.factor(views),
            None => trusted,
        };
        let trusted = match &self.only {
            Some(only) => trusted * only.factor(views, labels),
            None => trusted,
        };
        let trusted = match views.class_weights(labels, trusted.kind()) {
            Some(weights) => trusted * weights,
            None => trusted,
        };
        trusted.sum(trusted.kind()) * (self.weight * self.temperature * self.temperature / global_count)
    }
}

impl Term {
    /// The divergence of each sample, `[N]`, times its trust.
    fn trusted(&self, views: &Views, student: &Tensor, labels: &Tensor, global_count: f64) -> Tensor {
        let divergence = match &self.towards {
            Target::Label => {
                let mixed = views.rectified(labels);
                cross_entropy(student, mixed.as_ref().unwrap_or(labels), self.smoothing)
            }
            Target::BoostedLabel => boosted_cross_entropy(student, labels),
            Target::Prediction(prediction) => {
                let guide = self.guide(views, prediction, labels);
                match self.divergence {
                    Divergence::Kl if self.hard => cross_entropy(student, &guide.argmax(1, false), 0.0),
                    Divergence::Kl => divergence(&guide, student),
                    Divergence::MeanSquare => mean_square(&guide, student),
                    Divergence::LogitSquare => (guide - student).square().mean_dim(1i64, false, None),
                    Divergence::Nuclear => nuclear::shares(&(guide - student), &|values| views.sum_over_ranks(values)),
                    Divergence::LogitGaps => self.logit_gaps(views, &(guide - student), labels, global_count),
                }
            }
        };
        match &self.trust {
            Some(trust) => divergence * trust.factor(views, labels),
            None => divergence,
        }
    }

    /// The same by a fused kernel, if there are some and one fits.
    fn fused(&self, views: &Views, student: &Tensor, labels: &Tensor) -> Option<Tensor> {
        let kernels = views.kernels()?;
        let Target::Prediction(prediction) = &self.towards else { return None };
        if self.divergence != Divergence::Kl || self.hard {
            return None;
        }
        let guide = self.guide(views, prediction, labels);
        let Some(trust) = &self.trust else { return kernels.divergence(&guide, student, None) };
        let Trust { exponent, inverted, .. } = *trust;
        let teacher = no_grad(|| views.logits(&trust.teacher, Images::Adversarial));
        kernels.divergence(&guide, student, Some(&torch_ext::Trust { teacher: &teacher, labels, exponent, inverted }))
    }

    /// The logits on one side of the divergence: a network's on some images, less those on the images of `minus`.
    fn side(&self, views: &Views, network: &str, images: Images) -> Tensor {
        let logits = views.logits(network, images);
        match self.minus {
            Some(minus) => logits - views.logits(network, minus),
            None => logits,
        }
    }

    /// The logits of the target, over its temperature.
    fn guide(&self, views: &Views, target: &Prediction, labels: &Tensor) -> Tensor {
        let guide = match self.first_order {
            true => views.first_order(&target.network, labels),
            false => self.side(views, &target.network, target.images),
        };
        let guide = if self.stop_gradient { guide.detach() } else { guide };
        let guide = if self.swap_label { swap_label(&guide, labels) } else { guide };
        let balance = views.memory().balance.as_ref().filter(|balance| balance.tempers());
        match balance.and_then(|balance| Some(balance.temperature(balance.place(&self.name)?))) {
            Some(temperature) => guide / temperature,
            None => guide / self.target_temperature.unwrap_or(self.temperature),
        }
    }

    /// What a balance of terms goes by: the `value` of this one as the authors' code takes it, with 1e-5 in the logarithm of
    /// the target, and the target's negative entropy likewise. Both are sums over this rank's samples, float64 scalars.
    pub fn for_balance(&self, views: &Views, value: &Tensor, labels: &Tensor, global_count: f64) -> [Tensor; 2] {
        no_grad(|| {
            let value = value.to_kind(Kind::Double);
            let Target::Prediction(prediction) = &self.towards else { return [value.zeros_like(), value] };
            let logarithms = log_softmax(&self.guide(views, prediction, labels)).to_kind(Kind::Double);
            let probabilities = logarithms.exp();
            let entropy = (&probabilities * (&probabilities + 1e-5).log()).sum(Kind::Double);
            let raised = &entropy - (probabilities * logarithms).sum(Kind::Double);
            [value + raised * (self.weight * self.temperature * self.temperature / global_count), entropy]
        })
    }

    /// DKL's divergence of each sample, `[N]`, of logits that differ by `gaps [N, classes]`.
    fn logit_gaps(&self, views: &Views, gaps: &Tensor, labels: &Tensor, global_count: f64) -> Tensor {
        let means = views.memory().means.as_ref().expect("a configuration with logit_gaps has class means");
        let weights = means.of(labels, gaps.kind());
        let sum = |values: &Tensor| values.sum_dim_intlist(1i64, false, None);
        let whole = sum(&weights);
        let squares = sum(&(&weights * gaps * gaps));
        let spread = (&whole * squares - sum(&(&weights * gaps)).square()) * 0.5;
        if !means.normalized() {
            return spread;
        }
        let divisor = views.sum_over_ranks(&whole.square().sum(Kind::Double)).to_kind(gaps.kind());
        spread * global_count / divisor
    }
}

impl Only {
    /// 1 for the samples that count and 0 for the others, `[N]`.
    fn factor(&self, views: &Views, labels: &Tensor) -> Tensor {
        let logits = views.logits(&self.teacher, self.images);
        let right = logits.argmax(1, false).eq_tensor(labels);
        (if self.right { right } else { right.logical_not() }).to_kind(logits.kind())
    }
}

impl Uncertainty {
    /// The factor of each sample, `[N]`, without gradient.
    fn factor(&self, views: &Views) -> Tensor {
        no_grad(|| {
            let logits = views.logits(&self.teacher, Images::Adversarial);
            let entropy = entropy(&logits, self.order);
            let name = format!("entropy {} {}", self.teacher, self.order);
            let extremes = views.extremes(&name, || entropy.shallow_clone()).to_kind(entropy.kind());
            let above = (&entropy - extremes.get(0)) * self.scale;
            if !self.complement {
                return above;
            }
            let greatest = (extremes.get(1) - extremes.get(0)) * self.scale;
            1.0 - above / (greatest + 1e-8)
        })
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

/// Renyi's entropy of each sample's prediction, `[N]`, in natural units; of order 1 Shannon's. The 1e-12 in the logarithms
/// is that of the authors' code (SAAD).
fn entropy(logits: &Tensor, order: f64) -> Tensor {
    let probabilities = log_softmax(logits).exp();
    let sum = |values: Tensor| values.sum_dim_intlist(1i64, false, None);
    if (order - 1.0).abs() < 1e-6 {
        return -sum(&probabilities * (&probabilities + 1e-12).log());
    }
    (sum(probabilities.pow_tensor_scalar(order)) + 1e-12).log() / (1.0 - order)
}

/// The logits with the label's and the largest exchanged.
fn swap_label(logits: &Tensor, labels: &Tensor) -> Tensor {
    let (label, top) = (labels.unsqueeze(1), logits.argmax(1, true));
    let (of_label, largest) = (logits.gather(1, &label, false), logits.gather(1, &top, false));
    logits.scatter(1, &top, &of_label).scatter(1, &label, &largest)
}

/// The mean over the classes of the squared differences of the probabilities, of each sample, `[N]`.
fn mean_square(guide: &Tensor, student: &Tensor) -> Tensor {
    let apart = log_softmax(guide).exp() - log_softmax(student).exp();
    apart.square().mean_dim(1i64, false, None)
}

/// KL(softmax(guide) || softmax(student)) of each sample, `[N]`. A guide's probability of 0 contributes 0.
fn divergence(guide: &Tensor, student: &Tensor) -> Tensor {
    let guide = log_softmax(guide);
    let student = log_softmax(student);
    (guide.exp() * (&guide - student)).sum_dim_intlist(1i64, false, None)
}

/// At least single precision, whatever type the networks compute in.
fn log_softmax(logits: &Tensor) -> Tensor {
    let kind = if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    logits.log_softmax(1, kind)
}

#[cfg(test)]
mod tests;
