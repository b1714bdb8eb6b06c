//! The diagnostics of a step: term values and counts. They are summed over the ranks on the device, copied to the host
//! behind the step that computes them, and read one step later.

use anyhow::{Context, Result};
use tch::{Kind, Tensor, no_grad};

use crate::config::{Images, RunConfig, STUDENT, Term, Trust};
use crate::method::loss::log_probability_of;
use crate::method::pass_plan::Diagnosed;
use crate::method::views::Views;
use crate::step::sums::{ALPHA_BINS, CASES, PROBABILITY_BINS, Sums};
use crate::system::transfer;

/// The numbers of a part of a step: the names of the first ones, and all values, float64 `[K]`.
pub type Values = (Vec<String>, Tensor);

/// The numbers of one step, on the device.
pub struct Computed {
    names: Vec<String>,
    numbers: Tensor,
}

impl Computed {
    /// The numbers `values [K]`, float64, summed over the ranks. Before them: whether every value of the gradient was finite
    /// (bool scalar); the place of one that was not (int64 scalar), arbitrary if all were; the norm of the gradient.
    pub(crate) fn new(names: Vec<String>, values: &Tensor, judged: [&Tensor; 3]) -> Self {
        let [finite, place, norm] = judged.map(|tensor| tensor.to_kind(Kind::Double).view([1]));
        Self { names, numbers: Tensor::cat(&[&finite, &place, &norm, values], 0) }
    }

    /// These numbers of the last update of a step, with what was wrong in the updates `before` it: the place of the first value
    /// that was not finite, and the largest norm.
    pub(crate) fn behind(&self, before: &Self) -> Self {
        let [(finite, place, norm), (finite_before, place_before, norm_before)] =
            [self, before].map(|one| (one.numbers.get(0), one.numbers.get(1), one.numbers.get(2)));
        let place = place.where_self(&finite_before.ne(0.0), &place_before);
        let judged = [finite * finite_before, place, norm.maximum(&norm_before)].map(|number| number.view([1]));
        let values = self.numbers.narrow(0, 3, self.numbers.size()[0] - 3);
        let numbers = Tensor::cat(&judged.into_iter().chain([values]).collect::<Vec<_>>(), 0);
        Self { names: self.names.clone(), numbers }
    }
}

/// The numbers of one step, on their way to the host.
pub struct Observed {
    /// The names of the first numbers; histograms of [`PROBABILITY_BINS`] and [`ALPHA_BINS`] for each case may follow.
    names: Vec<String>,
    /// Whether every value of the gradient was finite, the place of one that was not, the norm, and the numbers.
    reading: transfer::Reading,
}

/// The numbers of a step on the host.
pub struct Seen {
    /// The sums.
    pub sums: Sums,
    /// The place of a gradient value that is not finite, if there is one: the first NaN, or else an infinite value.
    /// Such a step changes no parameter.
    pub not_finite: Option<usize>,
    /// The norm of the gradient; 0 where it is not measured.
    pub norm: f64,
}

impl Observed {
    /// Queues a copy of the step's numbers to the host.
    ///
    /// # Errors
    /// libtorch's error of the device.
    pub(crate) fn send(computed: &Computed) -> Result<Self> {
        Ok(Self { names: computed.names.clone(), reading: transfer::send(&computed.numbers)? })
    }

    /// Waits for the numbers. This is the only wait for the device in training.
    ///
    /// # Errors
    /// libtorch's error of the device.
    pub fn read(self) -> Result<Seen> {
        let all = self.reading.take()?;
        let (finite, place, norm, values) = (all[0] != 0.0, all[1] as usize, all[2], &all[3..]);
        let (numbers, bins) = values.split_at(self.names.len());
        let mut sums = Sums::default();
        for (name, number) in self.names.iter().zip(numbers) {
            *sums.field(name).with_context(|| format!("a step computes an unknown number, {name}"))? = *number;
        }
        // On the device a term is the mean over the global batch.
        sums.losses.values_mut().for_each(|mean| *mean *= sums.samples);
        // The two histograms are stored one after the other.
        let (probability, alpha) = bins.split_at(bins.len().min(CASES.len() * PROBABILITY_BINS));
        (sums.probability_bins, sums.alpha_bins) = (probability.to_vec(), alpha.to_vec());
        Ok(Seen { sums, not_finite: (!finite).then_some(place), norm })
    }
}

/// Counts the diagnostics of a step, besides its loss.
pub struct Observer {
    /// The observed teacher, and the predictions that are made only for diagnostics.
    pub(crate) diagnosed: Diagnosed,
    /// The trust in the teacher, if a term uses one.
    trust: Option<Trust>,
}

impl Observer {
    /// An observer as `config` asks for it.
    pub fn new(config: &RunConfig) -> Self {
        let trust = config.loss.terms.iter().find_map(|term| term.trust.clone());
        Self { diagnosed: Diagnosed::new(config), trust }
    }

    /// Collects this rank's numbers of a step. Their names depend only on the configuration and the epoch, so all ranks
    /// have the same list.
    pub(crate) fn observe(&self, views: &Views, labels: &Tensor, summands: &[(&Term, Tensor)]) -> Values {
        no_grad(|| {
            let mut numbers = Numbers { labels, all: vec![] };
            let samples = numbers.sum("samples", &labels.ones_like());
            for (term, value) in summands {
                numbers.all.push((format!("loss/{}", term.name), value.to_kind(Kind::Double)));
            }
            let student = numbers.right("student_natural", self.logits(views, STUDENT, Images::Natural));
            let _ = numbers.right("student_adversarial", self.logits(views, STUDENT, Images::Adversarial));
            let mut histograms = None;
            if let Some(teacher) = &self.diagnosed.teacher {
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

    /// Logits that the loss has already computed, or a new pass for diagnostics only.
    fn logits(&self, views: &Views, network: &str, images: Images) -> Option<Tensor> {
        if self.diagnosed.images.contains(&images) {
            Some(views.logits_detached(network, images))
        } else {
            views.cached(network, images)
        }
    }

    /// The mixture that guides the student: alpha T(adversarial) + (1 - alpha) S(natural), as probabilities.
    fn guidance(&self, views: &Views, alpha: &Tensor, teacher: &str) -> Option<Tensor> {
        let teacher = self.logits(views, teacher, Images::Adversarial)?;
        let student = self.logits(views, STUDENT, Images::Natural)?;
        let (alpha, kind) = (alpha.unsqueeze(1), alpha.kind());
        Some(&alpha * teacher.softmax(1, kind) + (1.0 - &alpha) * student.softmax(1, kind))
    }
}

/// Histograms of `values [N]` in [0, 1] with equal bins, one for each case: `[cases * bins]`, float64.
fn histogram(values: &Tensor, case: &Tensor, bins: usize) -> Tensor {
    let last = bins as i64 - 1;
    // NaN must not index outside the bins; the step itself reports it.
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

    /// Counts the correct predictions among `logits`, if there are any, and returns which ones are correct.
    fn right(&mut self, who: &str, logits: Option<Tensor>) -> Option<Tensor> {
        let right = logits?.argmax(1, false).eq_tensor(self.labels);
        let _ = self.sum(&format!("right/{who}"), &right);
        let _ = self.sum(&format!("of/{who}"), &right.ones_like());
        Some(right)
    }
}
