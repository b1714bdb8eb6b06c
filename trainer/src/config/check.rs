//! The allowed values of a configuration. Checks that need the data are in `prepare`.

use datasets::{Choice, UserError};

use crate::config::{
    AttackKind, AutoAttack, Compat, Dtype, EMA, ExtraData, Images, Norm, Per, RunConfig, STUDENT, Selection, Start,
    Target, Term,
};

use super::range::must;

impl RunConfig {
    /// Checks every value that does not depend on the data.
    pub(super) fn check(&self) -> Result<(), UserError> {
        let different = self.seeds.iter().enumerate().all(|(index, seed)| !self.seeds[..index].contains(seed));
        must(different, "seeds", format!("{:?}", self.seeds), "different seeds")?;
        must((1..=1_000_000).contains(&self.epochs), "epochs", self.epochs, "1 to 1,000,000")?;
        must((1..=1 << 20).contains(&self.batch.size), "batch.size", self.batch.size, "1 to 1,048,576")?;
        let parts = self.batch.accumulate;
        let most = format!("1 to batch.size, here {}", self.batch.size);
        must((1..=self.batch.size).contains(&parts), "batch.accumulate", parts, &most)?;
        must((1..=1024).contains(&self.data.prefetch), "data.prefetch", self.data.prefetch, "1 to 1,024 batches")?;
        must((1..=256).contains(&self.data.threads), "data.threads", self.data.threads, "1 to 256 threads")?;
        let window = self.data.window_mib;
        must((1..=1 << 20).contains(&window), "data.window_mib", window, "1 to 1,048,576 MiB")?;
        if let Some(classes) = self.student.classes {
            must((1..=1 << 20).contains(&classes), "student.classes", classes, "1 to 1,048,576 classes")?;
        }
        self.data.subset.as_ref().map_or(Ok(()), Choice::check)?;
        self.data.extra.as_ref().map_or(Ok(()), ExtraData::check)?;
        if self.batch.per == Per::Global {
            self.check_extra_count(1)?;
        }
        must(self.checkpoint.every >= 1, "checkpoint.every", self.checkpoint.every, "at least 1 epoch")?;
        let minutes = self.checkpoint.minutes;
        must(minutes.is_finite() && minutes >= 0.0, "checkpoint.minutes", minutes, "0 (never) or more minutes")?;
        must(self.checkpoint.keep_last >= 1, "checkpoint.keep_last", self.checkpoint.keep_last, "at least 1")?;
        let (best, chooses) = (self.checkpoint.keep_best, self.evaluation.selection != Selection::None);
        let expected = "0 where nothing tells how good a checkpoint is (evaluation.selection = \"none\")";
        must(best == 0 || chooses, "checkpoint.keep_best", best, expected)?;
        must(self.metrics.every >= 1, "metrics.every", self.metrics.every, "at least 1 step")?;
        if let Some(peak) = self.metrics.peak_tflops {
            must(
                peak.is_finite() && peak > 0.0,
                "metrics.peak_tflops",
                peak,
                "a positive number of 10^12 operations a second",
            )?;
        }
        self.check_augment()?;
        self.comm.check()?;
        self.watchdog.check()?;
        self.guard.check()?;
        self.check_optimizer()?;
        self.check_averages()?;
        self.check_learners()?;
        self.check_awp()?;
        self.check_grad_align()?;
        self.check_attack()?;
        self.check_evaluation()?;
        self.check_loss()?;
        self.check_method()
    }

    fn check_attack(&self) -> Result<(), UserError> {
        let attack = &self.attack;
        let norm = attack.norm;
        must(norm.allows(attack.eps), "attack.eps", attack.eps, norm.lengths())?;
        must(norm.allows(attack.step), "attack.step", attack.step, norm.lengths())?;
        must(
            (1..=10_000).contains(&attack.steps),
            "attack.steps",
            attack.steps,
            "1 to 10,000; use kind = \"none\" for none",
        )?;
        if let Target::Prediction(prediction) = &attack.towards {
            self.check_network("attack.towards.network", &prediction.network)?;
            let (images, known) = (prediction.images, [Images::Natural, Images::Adversarial]);
            let images = format!("{images:?}").to_lowercase();
            must(known.contains(&prediction.images), "attack.towards.images", images, "natural or adversarial images")?;
        }
        let signs = attack.start != Start::Signs || norm == Norm::Linf;
        must(signs, "attack.start", "signs", "uniform, natural or gaussian in L2: signs is a start of L-infinity")?;
        attack.check_single_step()?;
        let boosted = attack.towards == Target::BoostedLabel;
        must(!boosted, "attack.towards", "boosted_label", "label, or the prediction of a network")
    }

    fn check_evaluation(&self) -> Result<(), UserError> {
        let evaluation = &self.evaluation;
        self.suite()?;
        let AutoAttack { iterations, queries, targets } = evaluation.autoattack;
        let lengths = [("iterations", iterations, 10_000), ("queries", queries, 1_000_000), ("targets", targets, 9)];
        for (name, value, most) in lengths {
            let key = format!("evaluation.autoattack.{name}");
            must((1..=most).contains(&value), &key, value, &format!("1 to {most}"))?;
        }
        let norm = evaluation.norm;
        must(norm.allows(evaluation.eps), "evaluation.eps", evaluation.eps, norm.lengths())?;
        must(norm.allows(evaluation.step), "evaluation.step", evaluation.step, norm.lengths())?;
        let batch = evaluation.batch;
        must(
            (16..=65_536).contains(&batch) && batch.is_multiple_of(16),
            "evaluation.batch",
            batch,
            "a multiple of 16 up to 65,536",
        )?;
        let (precision, trained) = (evaluation.precision, self.precision.dtype);
        let allowed = !matches!(precision, Dtype::Float64 | Dtype::Auto);
        must(allowed, "evaluation.precision", precision.name(), "float32, tf32 or bfloat16")?;
        must(
            precision.is_default() || trained != Dtype::Float64,
            "evaluation.precision",
            precision.name(),
            "float32 with precision.dtype = \"float64\", which is then evaluated in float64",
        )?;
        if let Some(images) = evaluation.images {
            must(images >= 1, "evaluation.images", images, "1 or more; without the key, all test images")?;
        }
        if evaluation.selection == Selection::HeldOut {
            let share = evaluation.held_out;
            must(share > 0.0 && share < 1.0, "evaluation.held_out", share, "a share between 0 and 1")?;
        }
        let chooses = evaluation.selection != Selection::None;
        must(
            !chooses || evaluation.every >= 1,
            "evaluation.every",
            evaluation.every,
            "at least 1 where a checkpoint is selected",
        )
    }

    fn check_loss(&self) -> Result<(), UserError> {
        must(
            !self.teachers.contains_key(STUDENT),
            "teachers.student",
            "the student's own name",
            "another name for a teacher",
        )?;
        let average = self.averages.ema.is_some() && self.teachers.contains_key(EMA);
        let expected = "another name for a teacher: averages.ema is the network of this name";
        must(!average, "teachers.ema", "a teacher", expected)?;
        let terms = &self.loss.terms;
        must(!terms.is_empty(), "loss.terms", "[]", "at least one term, or loss.preset")?;
        for (index, term) in terms.iter().enumerate() {
            let key = |field: &str| format!("loss.terms.{}.{field}", term.name);
            let unique = terms[..index].iter().all(|other| other.name != term.name);
            must(
                unique && !term.name.is_empty(),
                format!("loss.terms[{index}].name"),
                format!("{:?}", term.name),
                "a name of its own",
            )?;
            let weight = term.weight;
            must(weight.is_finite() && weight >= 0.0, key("weight"), weight, "a factor of 0 or more")?;
            let temperature = term.temperature;
            must(temperature.is_finite() && temperature > 0.0, key("temperature"), temperature, "a positive number")?;
            let smoothing = term.smoothing;
            must((0.0..1.0).contains(&smoothing), key("smoothing"), smoothing, "0 or more, below 1")?;
            let label = term.towards == Target::Label;
            must(label || smoothing == 0.0, key("smoothing"), smoothing, "0 unless towards = \"label\"")?;
            if let Target::Prediction(prediction) = &term.towards {
                self.check_network(&key("towards.network"), &prediction.network)?;
            } else {
                let expected = "a target that is a network's prediction: a label has nothing to subtract from";
                must(term.minus.is_none(), key("minus"), format!("{:?}", term.minus), expected)?;
            }
            if let Some(trust) = &term.trust {
                must(
                    trust.teacher != STUDENT,
                    key("trust.teacher"),
                    STUDENT,
                    "a teacher: the student is not its own judge",
                )?;
                self.check_network(&key("trust.teacher"), &trust.teacher)?;
                let exponent = trust.exponent;
                must(exponent.is_finite() && exponent >= 0.0, key("trust.exponent"), exponent, "0 or more")?;
            }
            let adversarial = self.attack.kind != AttackKind::None;
            must(
                adversarial || !needs_attack(term),
                key("of"),
                "adversarial",
                "natural images, or an attack: attack.kind is \"none\"",
            )?;
        }
        let first = self.active_terms(0).any(|term| term.weight > 0.0);
        must(first, "loss.terms", "no term in epoch 0", "a term with weight and from_epoch = 0 to begin with")
    }

    pub(super) fn check_network(&self, key: &str, network: &str) -> Result<(), UserError> {
        let average = self.averages.ema.is_some().then_some(EMA);
        let others = self.teachers.keys().chain(self.learners.keys()).map(String::as_str);
        let known: Vec<&str> = std::iter::once(STUDENT).chain(others).chain(average).collect();
        must(
            known.contains(&network),
            key,
            format!("{network:?}"),
            &format!("a network of this run: {}", known.join(", ")),
        )
        .map_err(|error| {
            let hint = match network {
                EMA => "add averages.ema: the moving average of the student is this network".to_string(),
                _ => format!("add [teachers.{network}] with its checkpoint"),
            };
            error.hint(hint).did_you_mean(network, known)
        })
    }

    /// The terms of `epoch`: those that have begun and have a weight, and those of weight 0 whose passes count for
    /// batch norm. If a teacher is trusted fully (an exponent of 0, or an epoch before the trust begins), alpha is 1:
    /// this removes the trust factor, or the whole term if the trust is inverted.
    pub fn active_terms(&self, epoch: u64) -> impl Iterator<Item = Term> {
        let lightest = if self.batch_norm.compat == Compat::Reference { 0.0 } else { f64::MIN_POSITIVE };
        let counts = move |term: &&Term| term.from_epoch <= epoch && term.weight >= lightest;
        let begun = self.loss.terms.iter().filter(counts);
        let epochs = self.epochs;
        let ramped = move |term: &Term| match term.ramp {
            Some(ramp) => Term { weight: term.weight * ramp.share(epoch, epochs), ramp: None, ..term.clone() },
            None => term.clone(),
        };
        begun.filter_map(move |term| match &term.trust {
            Some(trust) if trust.exponent == 0.0 || trust.from_epoch > epoch => {
                (!trust.inverted).then(|| Term { trust: None, ..ramped(term) })
            }
            _ => Some(ramped(term)),
        })
    }

    /// The terms of the step that has this `place` in `epoch`, from 0: those that the attack raises too do so at odd places.
    pub fn terms_of_step(&self, epoch: u64, place: u64) -> Vec<Term> {
        let odd = !place.is_multiple_of(2);
        self.active_terms(epoch).map(|term| Term { in_attack: term.in_attack && odd, ..term }).collect()
    }
}

fn needs_attack(term: &Term) -> bool {
    let target = matches!(&term.towards, Target::Prediction(prediction) if prediction.images != Images::Natural);
    let minus = term.minus.is_some_and(|images| images != Images::Natural);
    let only = term.only.as_ref().is_some_and(|only| only.images != Images::Natural);
    let judged = term.trust.is_some() || term.uncertainty.is_some();
    term.of != Images::Natural || judged || target || minus || only
}
