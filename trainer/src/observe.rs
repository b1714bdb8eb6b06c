//! What a step lets us see: term values and counts, summed over the ranks on the device, sent to the host behind the step
//! that computes them, and read a step later.

use std::collections::BTreeMap;

use anyhow::Result;
use tch::{Kind, Tensor, no_grad};

use crate::config::{AttackKind, Diagnostics, RunConfig};
use crate::host;
use crate::loss::{Target, Term, Trust, log_probability_of};
use crate::views::{Images, STUDENT, Views};

/// Bins of the teacher's probability of the label, over [0, 1].
pub const PROBABILITY_BINS: usize = 50;
/// Bins of alpha, over [0, 1], fine enough for quantiles.
pub const ALPHA_BINS: usize = 1000;
/// The cases that histograms are kept apart by: the teacher right on both images, on natural ones only, wrong on natural.
pub const CASES: [&str; 3] = ["case_a", "case_b", "case_c"];

/// The numbers of one step, on the device.
pub(crate) struct Computed {
    names: Vec<String>,
    numbers: Tensor,
}

impl Computed {
    /// The numbers `values [K]`, float64, summed over the ranks; whether every value of the gradient was `finite` (bool
    /// scalar); the `place` of one that was not (int64 scalar), anywhere if all were.
    pub(crate) fn new(names: Vec<String>, values: &Tensor, finite: &Tensor, place: &Tensor) -> Self {
        let [finite, place] = [finite, place].map(|tensor| tensor.to_kind(Kind::Double).view([1]));
        Self { names, numbers: Tensor::cat(&[&finite, &place, values], 0) }
    }
}

/// The numbers of one step, on their way to the host.
pub struct Observed {
    /// The names of the first numbers; histograms of [`PROBABILITY_BINS`] and [`ALPHA_BINS`] for each case may follow.
    names: Vec<String>,
    /// Whether every value of the gradient was finite, where one stands that was not, and the numbers.
    reading: host::Reading,
}

/// The numbers of one step on the host: sums over the samples of the global batch, by name.
///
/// `loss/TERM` is a term's mean times the number of samples; `right/WHO` and `of/WHO` count correct predictions and
/// predictions, where WHO is `student_natural`, `teacher_adversarial` and so on, or `guidance`: alpha times the teacher's
/// prediction on adversarial images and 1 - alpha times the student's on natural ones. `case_a` to `case_d` count the
/// teacher's cases (right on both; on natural only; wrong on natural; wrong on natural but right on adversarial, which is a
/// part of the third); `alpha` is the sum of the trust; `probability/CASE/BIN` and `alpha/CASE/BIN` count samples by the
/// teacher's probability of the label on adversarial images, and by alpha, in bins that are not empty.
pub type Sums = BTreeMap<String, f64>;

/// What the host learns of a step.
pub struct Seen {
    /// The sums.
    pub sums: Sums,
    /// Where a gradient value stands that is not finite, if there is one: the first that is not a number, else an infinite
    /// one. The step then moved nothing.
    pub not_finite: Option<usize>,
}

impl Observed {
    /// Sends what a step has computed to the host.
    ///
    /// # Errors
    /// libtorch's error of the device.
    pub(crate) fn send(computed: &Computed) -> Result<Self> {
        Ok(Self { names: computed.names.clone(), reading: host::send(&computed.numbers)? })
    }

    /// Takes the numbers when they are there: the only wait for the device in training.
    ///
    /// # Errors
    /// libtorch's error of the device.
    pub fn read(self) -> Result<Seen> {
        let all = self.reading.take()?;
        let (finite, place, values) = (all[0] != 0.0, all[1] as usize, &all[2..]);
        let (numbers, bins) = values.split_at(self.names.len());
        let mut sums: Sums = self.names.into_iter().zip(numbers.iter().copied()).collect();
        let samples = sums["samples"];
        // On the device a term is the mean over the global batch.
        sums.iter_mut().filter(|(name, _)| name.starts_with("loss/")).for_each(|(_, mean)| *mean *= samples);
        for (index, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0.0) {
            sums.insert(bin_name(index), *count);
        }
        Ok(Seen { sums, not_finite: (!finite).then_some(place) })
    }
}

/// The name of the `index`-th bin of both histograms, which lie one after the other, case by case.
fn bin_name(index: usize) -> String {
    let probabilities = CASES.len() * PROBABILITY_BINS;
    if index < probabilities {
        format!("probability/{}/{}", CASES[index / PROBABILITY_BINS], index % PROBABILITY_BINS)
    } else {
        let index = index - probabilities;
        format!("alpha/{}/{}", CASES[index / ALPHA_BINS], index % ALPHA_BINS)
    }
}

/// The teacher that diagnostics look at: the one that a term's trust names, else the first that a term is drawn towards.
pub fn observed_teacher(config: &RunConfig) -> Option<&str> {
    let terms = &config.loss.terms;
    let trusted = terms.iter().find_map(|term| term.trust.as_ref().map(|trust| trust.teacher.as_str()));
    let mut guides = terms.iter().filter_map(|term| match &term.towards {
        Target::Prediction(prediction) => Some(prediction.network.as_str()),
        Target::Label => None,
    });
    trusted.or_else(|| guides.find(|network| *network != STUDENT))
}

/// What a run watches besides its loss.
pub struct Observer {
    /// The teacher that cases and trust speak of.
    teacher: Option<String>,
    /// How far it is trusted, where a term says so.
    trust: Option<Trust>,
    /// Whether predictions are made for the sake of observing.
    full: bool,
    adversarial: bool,
}

impl Observer {
    /// Watches what `config` asks for.
    pub fn new(config: &RunConfig) -> Self {
        let terms = &config.loss.terms;
        let trust = terms.iter().find_map(|term| term.trust.clone());
        let teacher = observed_teacher(config).map(str::to_string);
        let full = config.metrics.diagnostics == Diagnostics::Full;
        Self { teacher, trust, full, adversarial: config.attack.kind != AttackKind::None }
    }

    /// The teachers' predictions that [`observe`](Self::observe) asks for, whatever the loss does.
    pub(crate) fn asks(&self) -> impl Iterator<Item = (&str, Images)> {
        let teacher = self.teacher.as_deref().filter(|_| self.full);
        let adversarial = teacher.filter(|_| self.adversarial).map(|teacher| (teacher, Images::Adversarial));
        teacher.map(|teacher| (teacher, Images::Natural)).into_iter().chain(adversarial)
    }

    /// Collects this rank's numbers of a step. Which numbers there are depends on the configuration and the epoch alone, so
    /// all ranks have the same list.
    pub(crate) fn observe(
        &self,
        views: &Views,
        labels: &Tensor,
        summands: &[(&Term, Tensor)],
    ) -> (Vec<String>, Tensor) {
        no_grad(|| {
            let mut numbers = Numbers { labels, all: vec![] };
            let samples = numbers.sum("samples", &labels.ones_like());
            for (term, value) in summands {
                numbers.all.push((format!("loss/{}", term.name), value.to_kind(Kind::Double)));
            }
            let student = numbers.right("student_natural", self.logits(views, STUDENT, Images::Natural));
            let _ = numbers.right("student_adversarial", self.logits(views, STUDENT, Images::Adversarial));
            let mut histograms = None;
            if let Some(teacher) = &self.teacher {
                let natural = numbers.right("teacher_natural", self.logits(views, teacher, Images::Natural));
                let adversarial =
                    numbers.right("teacher_adversarial", self.logits(views, teacher, Images::Adversarial));
                let alpha = adversarial.as_ref().and(self.trust.as_ref()).map(|trust| trust.alpha(views, labels));
                if let Some(alpha) = &alpha {
                    let _ = numbers.sum("alpha", alpha);
                    numbers.all.push(("of/alpha".into(), samples.shallow_clone()));
                }
                if let Some((alpha, _)) = alpha.as_ref().zip(student.as_ref()) {
                    let guidance = self.guidance(views, alpha, teacher);
                    let _ = numbers.right("guidance", guidance);
                }
                if let Some((natural, adversarial)) = natural.as_ref().zip(adversarial.as_ref()) {
                    let _ = numbers.sum("case_a", &natural.logical_and(adversarial));
                    let _ = numbers.sum("case_b", &natural.logical_and(&adversarial.logical_not()));
                    let _ = numbers.sum("case_c", &natural.logical_not());
                    let _ = numbers.sum("case_d", &natural.logical_not().logical_and(adversarial));
                    numbers.all.push(("of/cases".into(), samples));
                    let probability =
                        self.logits(views, teacher, Images::Adversarial).map(|z| log_probability_of(&z, labels).exp());
                    let case = natural.logical_not().to_kind(Kind::Int64) * 2
                        + natural.logical_and(&adversarial.logical_not()).to_kind(Kind::Int64);
                    let counted = [(probability, PROBABILITY_BINS), (alpha, ALPHA_BINS)];
                    let counted =
                        counted.into_iter().filter_map(|(values, bins)| Some(histogram(&values?, &case, bins)));
                    histograms = Some(Tensor::cat(&counted.collect::<Vec<_>>(), 0));
                }
            }
            let (names, values): (Vec<String>, Vec<Tensor>) = numbers.all.into_iter().unzip();
            let values = std::iter::once(Tensor::stack(&values, 0)).chain(histograms).collect::<Vec<_>>();
            (names, Tensor::cat(&values, 0))
        })
    }

    /// Logits that the loss has asked for, or that are made now for their own sake.
    fn logits(&self, views: &Views, network: &str, images: Images) -> Option<Tensor> {
        let shown = self.full && (self.adversarial || images == Images::Natural);
        if shown { Some(views.look(network, images)) } else { views.known(network, images) }
    }

    /// What guides the student as a whole: alpha T(adversarial) + (1 - alpha) S(natural), as probabilities.
    fn guidance(&self, views: &Views, alpha: &Tensor, teacher: &str) -> Option<Tensor> {
        let teacher = self.logits(views, teacher, Images::Adversarial)?;
        let student = self.logits(views, STUDENT, Images::Natural)?;
        let (alpha, kind) = (alpha.unsqueeze(1), alpha.kind());
        Some(&alpha * teacher.softmax(1, kind) + (1.0 - &alpha) * student.softmax(1, kind))
    }
}

/// Counts of `values [N]` in [0, 1] by equal bins, for each case apart: `[cases * bins]`, float64.
fn histogram(values: &Tensor, case: &Tensor, bins: usize) -> Tensor {
    let last = bins as i64 - 1;
    // What is not a number must not count outside the bins: the step itself will say what is wrong.
    let bin = (values.nan_to_num(0.0, 1.0, 0.0) * bins as f64).floor().to_kind(Kind::Int64).clamp(0, last);
    let zeros = Tensor::zeros([(CASES.len() * bins) as i64], (Kind::Double, values.device()));
    zeros.index_add(0, &(case * bins as i64 + bin), &values.ones_like().to_kind(Kind::Double))
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
