//! The numbers of a step as sums over samples. The numbers of an epoch are the sums over its steps.

use std::collections::BTreeMap;

/// Bins of the teacher's probability of the label, over [0, 1].
pub const PROBABILITY_BINS: usize = 50;
/// Bins of alpha, over [0, 1], fine enough for quantiles.
pub const ALPHA_BINS: usize = 1000;
/// The cases of the separate histograms: the teacher right on both images, on the natural one only, wrong on the
/// natural one.
pub const CASES: [&str; 3] = ["case_a", "case_b", "case_c"];

/// Sums over the samples of one or several global batches. A field that no step has filled is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    /// The number of samples.
    pub samples: f64,
    /// For each loss term, its mean times the number of samples.
    pub losses: BTreeMap<String, f64>,
    /// Correct predictions of the student on natural images.
    pub student_natural: Option<Counted>,
    /// Correct predictions of the student on its adversarial images.
    pub student_adversarial: Option<Counted>,
    /// Correct predictions of the teacher on natural images.
    pub teacher_natural: Option<Counted>,
    /// Correct predictions of the teacher on the student's adversarial images.
    pub teacher_adversarial: Option<Counted>,
    /// Correct predictions of alpha times the teacher on adversarial images plus 1 - alpha times the student on natural ones.
    pub guidance: Option<Counted>,
    /// The sum of alpha, the trust in the teacher.
    pub alpha: Option<Counted>,
    /// The cases of the teacher.
    pub cases: Option<Cases>,
    /// Histograms of the teacher's probability of the label on adversarial images: [`PROBABILITY_BINS`] for each of [`CASES`].
    pub probability_bins: Vec<f64>,
    /// Histograms of alpha: [`ALPHA_BINS`] for each of [`CASES`].
    pub alpha_bins: Vec<f64>,
}

/// A sum over some of the samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counted {
    /// The sum.
    pub sum: f64,
    /// The number of samples in the sum.
    pub of: f64,
}

/// The number of samples in each case of the teacher.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cases {
    /// Right on both images.
    pub a: f64,
    /// Right on the natural image only.
    pub b: f64,
    /// Wrong on the natural image.
    pub c: f64,
    /// Wrong on the natural image, right on the adversarial one: a part of `c`.
    pub d: f64,
    /// The number of samples with a case.
    pub of: f64,
}

impl Sums {
    /// Adds the sums of other samples.
    pub fn add(&mut self, other: &Self) {
        // The pattern names every field, so that none is forgotten.
        let Self {
            samples,
            losses,
            student_natural,
            student_adversarial,
            teacher_natural,
            teacher_adversarial,
            guidance,
            alpha,
            cases,
            probability_bins,
            alpha_bins,
        } = other;
        self.samples += samples;
        for (term, sum) in losses {
            *self.losses.entry(term.clone()).or_default() += sum;
        }
        add_counted(&mut self.student_natural, *student_natural);
        add_counted(&mut self.student_adversarial, *student_adversarial);
        add_counted(&mut self.teacher_natural, *teacher_natural);
        add_counted(&mut self.teacher_adversarial, *teacher_adversarial);
        add_counted(&mut self.guidance, *guidance);
        add_counted(&mut self.alpha, *alpha);
        if let Some(Cases { a, b, c, d, of }) = cases {
            let sum = self.cases.get_or_insert_default();
            *sum = Cases { a: sum.a + a, b: sum.b + b, c: sum.c + c, d: sum.d + d, of: sum.of + of };
        }
        add_bins(&mut self.probability_bins, probability_bins);
        add_bins(&mut self.alpha_bins, alpha_bins);
    }

    /// The means of the loss terms over the samples.
    pub fn mean_losses(&self) -> BTreeMap<String, f64> {
        self.losses.iter().map(|(term, sum)| (term.clone(), sum / self.samples)).collect()
    }

    /// The counts of correct predictions, by network and images.
    pub fn predictions(&self) -> impl Iterator<Item = (&'static str, Counted)> {
        let all = [
            ("student_natural", self.student_natural),
            ("student_adversarial", self.student_adversarial),
            ("teacher_natural", self.teacher_natural),
            ("teacher_adversarial", self.teacher_adversarial),
            ("guidance", self.guidance),
        ];
        all.into_iter().filter_map(|(who, counted)| Some((who, counted?)))
    }

    /// Every number by its name in a checkpoint: `samples`, `loss/TERM`, `right/WHO` and `of/WHO`, `alpha` and
    /// `of/alpha`, `case_a` to `case_d` and `of/cases`, `probability/CASE/BIN` and `alpha/CASE/BIN`. Empty bins are
    /// left out.
    pub fn named(&self) -> BTreeMap<String, f64> {
        let mut named = BTreeMap::from([("samples".to_string(), self.samples)]);
        named.extend(self.losses.iter().map(|(term, sum)| (format!("loss/{term}"), *sum)));
        for (who, Counted { sum, of }) in self.predictions() {
            named.extend([(format!("right/{who}"), sum), (format!("of/{who}"), of)]);
        }
        if let Some(Counted { sum, of }) = self.alpha {
            named.extend([("alpha".into(), sum), ("of/alpha".into(), of)]);
        }
        if let Some(Cases { a, b, c, d, of }) = self.cases {
            let cases = [("case_a", a), ("case_b", b), ("case_c", c), ("case_d", d), ("of/cases", of)];
            named.extend(cases.map(|(name, sum)| (name.to_string(), sum)));
        }
        for (name, bins) in [("probability", &self.probability_bins), ("alpha", &self.alpha_bins)] {
            let each = bins.len() / CASES.len();
            let filled = bins.iter().enumerate().filter(|(_, count)| **count > 0.0);
            named.extend(
                filled.map(|(index, count)| (format!("{name}/{}/{}", CASES[index / each], index % each), *count)),
            );
        }
        named
    }

    /// The field with this name, out of those in [`named`](Self::named); an empty field is first set to 0.
    pub fn field(&mut self, name: &str) -> Option<&mut f64> {
        if let Some((kind, rest)) = name.split_once('/') {
            return match kind {
                "loss" => Some(self.losses.entry(rest.to_string()).or_default()),
                "right" => Some(&mut self.counted(rest)?.sum),
                "of" if rest == "cases" => Some(&mut self.cases.get_or_insert_default().of),
                "of" => Some(&mut self.counted(rest)?.of),
                "probability" => bin(&mut self.probability_bins, PROBABILITY_BINS, rest),
                "alpha" => bin(&mut self.alpha_bins, ALPHA_BINS, rest),
                _ => None,
            };
        }
        match name {
            "samples" => Some(&mut self.samples),
            "alpha" => Some(&mut self.counted("alpha")?.sum),
            "case_a" => Some(&mut self.cases.get_or_insert_default().a),
            "case_b" => Some(&mut self.cases.get_or_insert_default().b),
            "case_c" => Some(&mut self.cases.get_or_insert_default().c),
            "case_d" => Some(&mut self.cases.get_or_insert_default().d),
            _ => None,
        }
    }

    fn counted(&mut self, name: &str) -> Option<&mut Counted> {
        let field = match name {
            "student_natural" => &mut self.student_natural,
            "student_adversarial" => &mut self.student_adversarial,
            "teacher_natural" => &mut self.teacher_natural,
            "teacher_adversarial" => &mut self.teacher_adversarial,
            "guidance" => &mut self.guidance,
            "alpha" => &mut self.alpha,
            _ => return None,
        };
        Some(field.get_or_insert_default())
    }
}

fn add_counted(sum: &mut Option<Counted>, other: Option<Counted>) {
    if let Some(Counted { sum: more, of }) = other {
        let sum = sum.get_or_insert_default();
        *sum = Counted { sum: sum.sum + more, of: sum.of + of };
    }
}

fn add_bins(sum: &mut Vec<f64>, other: &[f64]) {
    sum.resize(sum.len().max(other.len()), 0.0);
    sum.iter_mut().zip(other).for_each(|(sum, count)| *sum += count);
}

/// The bin `CASE/BIN` of histograms with `each` bins.
fn bin<'a>(bins: &'a mut Vec<f64>, each: usize, name: &str) -> Option<&'a mut f64> {
    let (case, index) = name.split_once('/')?;
    let case = CASES.iter().position(|known| *known == case)?;
    let index = index.parse::<usize>().ok().filter(|index| *index < each)?;
    bins.resize(CASES.len() * each, 0.0);
    bins.get_mut(case * each + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_names(named: &BTreeMap<String, f64>) -> Sums {
        let mut sums = Sums::default();
        named.iter().for_each(|(name, value)| *sums.field(name).unwrap() = *value);
        sums
    }

    fn filled() -> Sums {
        let mut sums = Sums {
            samples: 7.0,
            losses: BTreeMap::from([("teach".into(), 1.5), ("a/b".into(), 0.0)]),
            cases: Some(Cases { a: 1.0, b: 2.0, c: 4.0, d: 3.0, of: 7.0 }),
            ..Sums::default()
        };
        for (index, name) in ["student_natural", "teacher_adversarial", "guidance", "alpha"].iter().enumerate() {
            *sums.counted(name).unwrap() = Counted { sum: index as f64 + 0.25, of: 7.0 };
        }
        *sums.field("probability/case_b/49").unwrap() = 2.0;
        *sums.field("alpha/case_c/999").unwrap() = 4.0;
        sums
    }

    #[test]
    fn every_number_is_found_under_its_name() {
        assert_eq!(of_names(&filled().named()), filled());
        assert_eq!(filled().named()["right/guidance"], 2.25);
    }

    #[test]
    fn sums_add_up_field_by_field() {
        let mut twice = Sums::default();
        twice.add(&filled());
        assert_eq!(twice, filled());
        twice.add(&filled());
        let expected: BTreeMap<String, f64> =
            filled().named().into_iter().map(|(name, sum)| (name, 2.0 * sum)).collect();
        assert_eq!(twice.named(), expected);
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in
            ["", "steps", "of/", "right/nobody", "case_e", "alpha/case_a/1000", "probability/case_d/1", "alpha/x"]
        {
            assert_eq!(Sums::default().field(name), None, "{name}");
        }
    }
}
