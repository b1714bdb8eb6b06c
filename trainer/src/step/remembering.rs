//! What a step gives to and takes from the method's memory; nothing where the method remembers nothing.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use tch::{Kind, Tensor, no_grad};

use crate::config::{Images, STUDENT, Term};
use crate::method::networks::Networks;
use crate::method::views::Views;
use crate::step::diagnostics::Values;

/// Counts, sample by sample, before how many steps of the attack the student is right.
pub struct Survived<'a> {
    counts: Option<RefCell<Tensor>>,
    labels: &'a Tensor,
}

impl<'a> Survived<'a> {
    /// A count for these `labels [N]`, if the method wants one.
    pub fn new(networks: &Networks, labels: &'a Tensor) -> Self {
        let wants = networks.memory.survival.is_some();
        Self { counts: wants.then(|| RefCell::new(labels.zeros_like())), labels }
    }

    /// Counts the candidate of `views`, whose logits the objective has computed.
    pub fn see(&self, views: &Views) {
        let Some((counts, logits)) = self.counts.as_ref().zip(views.cached(STUDENT, Images::Adversarial)) else {
            return;
        };
        let right = no_grad(|| logits.argmax(1, false).eq_tensor(self.labels).to_kind(Kind::Int64));
        let _ = counts.replace_with(|before| &*before + right);
    }

    /// The counts, `[N]`.
    pub fn counts(self) -> Option<Tensor> {
        self.counts.map(RefCell::into_inner)
    }
}

/// Multiplies the values of terms that depend on those of others: two that are balanced by their weights in this step, and those
/// with `magnitude_of` by their powers of ten.
pub fn balance(views: &Views, labels: &Tensor, global_count: f64, summands: &mut [(&Term, Tensor)]) {
    let place = |name: &String| summands.iter().position(|(term, _)| term.name == *name);
    let balance = views.memory().balance.as_ref();
    let pair = balance.and_then(|balance| {
        let [first, second] = balance.terms().each_ref().map(place);
        Some((balance, [first?, second?]))
    });
    let following: Vec<(usize, Vec<usize>)> = (summands.iter().enumerate())
        .filter(|(_, (term, _))| term.follows())
        .map(|(own, (term, _))| (own, term.magnitude_of.iter().filter_map(place).collect()))
        .collect();
    let places: BTreeSet<usize> = (pair.iter().flat_map(|(_, pair)| *pair))
        .chain(following.iter().flat_map(|(own, others)| others.iter().chain([own]).copied()))
        .collect();
    if places.is_empty() {
        return;
    }
    let measured = places.iter().map(|place| {
        let (term, value) = &summands[*place];
        Tensor::stack(&term.for_balance(views, value, labels, global_count), 0)
    });
    // A row of values and one of entropies.
    let sums = views.sum_over_ranks(&Tensor::stack(&measured.collect::<Vec<_>>(), 1));
    let mut measured: BTreeMap<usize, Tensor> =
        (0..).zip(places).map(|(at, place)| (place, sums.select(1, at))).collect();
    if let Some((balance, pair)) = pair {
        let [values, entropies] = [0, 1].map(|row| Tensor::stack(&pair.map(|place| measured[&place].get(row)), 0));
        let weights = balance.weigh(&values, &entropies);
        for (at, place) in (0..).zip(pair) {
            let (weight, value) = (weights.get(at), &mut summands[place].1);
            *value = &*value * weight.to_kind(value.kind());
            measured.insert(place, &measured[&place] * weight);
        }
    }
    for (own, others) in following {
        let others: Vec<Tensor> = others.iter().map(|place| measured[place].get(0)).collect();
        let scale = power_of_ten(&measured[&own].get(0), &Tensor::stack(&others, 0));
        let value = &mut summands[own].1;
        *value = &*value * scale.to_kind(value.kind());
    }
}

/// The power of ten that brings `value`, a scalar, to the order of magnitude of the least of `others [K]`: 10 to the least floor of
/// their lg less its own. A value of 0 counts as 1e-7, as in the authors' code (CIARD).
fn power_of_ten(value: &Tensor, others: &Tensor) -> Tensor {
    no_grad(|| {
        let order = |values: &Tensor| values.abs().where_scalarother(&values.ne(0.0), 1e-7).log10().floor();
        Tensor::pow_scalar(10.0, &(order(others).min() - order(value)))
    })
}

/// Multiplies terms by each other where they say so (`times`). With A and D the values of the other term and of this one over the
/// global batch, and r the share of the samples that this one counts, the other term becomes A D / r, and this one keeps its value
/// and gets the gradient of the product too.
pub fn multiply(views: &Views, labels: &Tensor, global_count: f64, summands: &mut [(&Term, Tensor)]) {
    for place in 0..summands.len() {
        let of_term = |name: &String| summands.iter().position(|(term, _)| term.name == *name);
        let Some(other) = summands[place].0.times.as_ref().and_then(of_term) else { continue };
        let [(term, own), (_, factor)] = [place, other].map(|place| &summands[place]);
        let counted = no_grad(|| match &term.only {
            Some(only) => only.factor(views, labels, global_count).sum(Kind::Double),
            None => Tensor::full([], labels.size()[0], (Kind::Double, labels.device())),
        });
        let sums = [own, factor].map(|value| value.to_kind(Kind::Double));
        let sums = views.sum_over_ranks(&Tensor::stack(&[&sums[0], &sums[1], &(counted / global_count)], 0));
        // Where no sample counts, the product is 0 and so is its gradient, also in a lower precision.
        let share = sums.get(2).clamp_min(1.0 / global_count);
        let [of_factor, of_own] = [0, 1].map(|value| (sums.get(value) / &share).to_kind(own.kind()));
        let (factor, own) = (factor * of_factor, own + (own - own.detach()) * of_own);
        (summands[place].1, summands[other].1) = (own, factor);
    }
}

/// Adds what the memory wants to know of this part of the batch behind its `values`.
pub fn with_sums(
    networks: &Networks,
    views: &Views,
    labels: &Tensor,
    survived: Option<&Tensor>,
    (names, values): Values,
) -> Values {
    let natural = views.cached(STUDENT, Images::Natural);
    match no_grad(|| networks.memory.sums(labels, natural.as_ref(), survived)) {
        Some(sums) => (names, Tensor::cat(&[values, sums], 0)),
        None => (names, values),
    }
}

/// Gives the numbers behind `values`, which are summed over the ranks, to the memory, and returns the others.
pub fn keep(networks: &Networks, values: Tensor, moves: &Tensor) -> Tensor {
    if networks.memory.is_empty() {
        return values;
    }
    let count = networks.memory.count();
    let own = values.size()[0] - count;
    networks.memory.keep(&values.narrow(0, own, count), moves);
    values.narrow(0, 0, own)
}

#[cfg(test)]
mod tests;
