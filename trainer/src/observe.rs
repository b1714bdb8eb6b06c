//! What a step lets us see: term values and counts, summed over the ranks on the device, read by the host a step later.

use std::collections::BTreeMap;

use anyhow::Result;
use tch::{Kind, Tensor, no_grad};

use crate::loss::{Term, Trust};
use crate::views::{Images, STUDENT, Views};

/// The numbers of one step, still on the device.
pub struct Observed {
    /// The names of the numbers.
    pub names: Vec<String>,
    /// The numbers `[K]`, float64, this rank's until they are summed over the ranks.
    pub values: Tensor,
    /// Whether every value of the gradient was finite (bool scalar).
    pub finite: Tensor,
    /// Where the first value stands that was not (int64 scalar).
    pub place: Tensor,
}

/// The numbers of one step on the host: sums over the samples of the global batch, by name.
///
/// `loss/TERM` is a term's mean times the number of samples; `right/WHO` and `of/WHO` count correct predictions and
/// predictions, where WHO is `student_natural`, `teacher_adversarial` and so on; `case_a` to `case_d` count the teacher's
/// cases (right on both; on natural only; wrong on natural; wrong on natural but right on adversarial, which
/// is a part of the third); `alpha` is the sum of the trust.
pub type Sums = BTreeMap<String, f64>;

/// What the host learns of a step.
pub struct Seen {
    /// The sums.
    pub sums: Sums,
    /// Where the first gradient value stands that is not finite, if there is one. The step then moved nothing.
    pub not_finite: Option<usize>,
}

impl Observed {
    /// Brings the numbers to the host: the only wait for the device in training.
    ///
    /// # Errors
    /// libtorch's error of the device.
    pub fn read(self) -> Result<Seen> {
        let values = Vec::<f64>::try_from(self.values)?;
        let mut sums: Sums = self.names.into_iter().zip(values).collect();
        let samples = sums["samples"];
        // On the device a term is the mean over the global batch.
        sums.iter_mut().filter(|(name, _)| name.starts_with("loss/")).for_each(|(_, mean)| *mean *= samples);
        let not_finite = if bool::try_from(self.finite)? { None } else { Some(i64::try_from(self.place)? as usize) };
        Ok(Seen { sums, not_finite })
    }
}

/// Collects this rank's numbers of a step from predictions that the loss has asked for anyway. Which numbers there are
/// depends on the configuration and the epoch alone, so all ranks have the same list.
pub(crate) fn observe(
    views: &Views,
    labels: &Tensor,
    terms: &[Term],
    values: &[Tensor],
    trust: Option<&Trust>,
) -> (Vec<String>, Tensor) {
    no_grad(|| {
        let mut numbers = Numbers { labels, all: vec![] };
        let samples = numbers.sum("samples", &labels.ones_like());
        for (term, value) in terms.iter().zip(values) {
            numbers.all.push((format!("loss/{}", term.name), value.to_kind(Kind::Double)));
        }
        numbers.right("student_natural", views.known(STUDENT, Images::Natural));
        numbers.right("student_adversarial", views.known(STUDENT, Images::Adversarial));
        if let Some(trust) = trust {
            let natural = numbers.right("teacher_natural", views.known(&trust.teacher, Images::Natural));
            let adversarial = numbers.right("teacher_adversarial", views.known(&trust.teacher, Images::Adversarial));
            if let Some((natural, adversarial)) = natural.as_ref().zip(adversarial.as_ref()) {
                let _ = numbers.sum("case_a", &natural.logical_and(adversarial));
                let _ = numbers.sum("case_b", &natural.logical_and(&adversarial.logical_not()));
                let _ = numbers.sum("case_c", &natural.logical_not());
                let _ = numbers.sum("case_d", &natural.logical_not().logical_and(adversarial));
                numbers.all.push(("of/cases".into(), samples.shallow_clone()));
            }
            if adversarial.is_some() {
                let _ = numbers.sum("alpha", &trust.alpha(views, labels));
                numbers.all.push(("of/alpha".into(), samples));
            }
        }
        let (names, values): (Vec<String>, Vec<Tensor>) = numbers.all.into_iter().unzip();
        (names, Tensor::stack(&values, 0))
    })
}

struct Numbers<'a> {
    labels: &'a Tensor,
    all: Vec<(String, Tensor)>,
}

impl Numbers<'_> {
    /// Adds the sum of `values [N]`.
    fn sum(&mut self, name: &str, values: &Tensor) -> Tensor {
        let sum = values.sum(Kind::Double);
        self.all.push((name.to_string(), sum.shallow_clone()));
        sum
    }

    /// Counts the right predictions among `logits`, if there are any, and returns which are right.
    fn right(&mut self, who: &str, logits: Option<Tensor>) -> Option<Tensor> {
        let right = logits?.argmax(1, false).eq_tensor(self.labels);
        let _ = self.sum(&format!("right/{who}"), &right);
        let _ = self.sum(&format!("of/{who}"), &right.ones_like());
        Some(right)
    }
}
