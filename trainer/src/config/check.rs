//! The values a configuration may hold; what the data decide is checked in `prepare`.

use datasets::{Choice, UserError};

use super::{AttackKind, AutoAttack, Compat, RunConfig, Selection};
use crate::evaluate::Suite;
use crate::loss::{Target, Term};
use crate::schedule::Policy;
use crate::views::{Images, STUDENT};

/// A value outside its range.
pub(super) fn must(
    holds: bool,
    key: impl Into<String>,
    value: impl std::fmt::Display,
    expected: &str,
) -> Result<(), UserError> {
    if holds { Ok(()) } else { Err(UserError::expected(expected).key(key).value(value)) }
}

impl RunConfig {
    /// Checks every value that can be judged without the data.
    pub(super) fn check(&self) -> Result<(), UserError> {
        must((1..=1_000_000).contains(&self.epochs), "epochs", self.epochs, "1 to 1,000,000")?;
        must((1..=1 << 20).contains(&self.batch.size), "batch.size", self.batch.size, "1 to 1,048,576")?;
        let parts = self.batch.accumulate;
        let most = format!("1 to batch.size, here {}", self.batch.size);
        must((1..=self.batch.size).contains(&parts), "batch.accumulate", parts, &most)?;
        must((1..=1024).contains(&self.data.prefetch), "data.prefetch", self.data.prefetch, "1 to 1,024 batches")?;
        must((1..=256).contains(&self.data.threads), "data.threads", self.data.threads, "1 to 256 threads")?;
        let window = self.data.window_mib;
        must((1..=1 << 20).contains(&window), "data.window_mib", window, "1 to 1,048,576 MiB")?;
        self.data.subset.as_ref().map_or(Ok(()), Choice::check)?;
        must(self.checkpoint.every >= 1, "checkpoint.every", self.checkpoint.every, "at least 1 epoch")?;
        let minutes = self.checkpoint.minutes;
        must(minutes.is_finite() && minutes >= 0.0, "checkpoint.minutes", minutes, "0 (never) or more minutes")?;
        must(self.checkpoint.keep_last >= 1, "checkpoint.keep_last", self.checkpoint.keep_last, "at least 1")?;
        must(self.metrics.every >= 1, "metrics.every", self.metrics.every, "at least 1 step")?;
        if let Some(peak) = self.metrics.peak_tflops {
            must(
                peak.is_finite() && peak > 0.0,
                "metrics.peak_tflops",
                peak,
                "a positive number of 10^12 operations a second",
            )?;
        }
        if let Some(augment) = &self.data.augment {
            must(augment.crop <= 64, "data.augment.crop", augment.crop, "a padding of 0 to 64 pixels")?;
        }
        self.comm.check()?;
        self.check_optimizer()?;
        self.check_averages()?;
        self.check_attack()?;
        self.check_evaluation()?;
        self.check_loss()
    }

    fn check_optimizer(&self) -> Result<(), UserError> {
        let optimizer = &self.optimizer;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        must(positive(optimizer.lr), "optimizer.lr", optimizer.lr, "a positive number")?;
        let (base, warm_up) = (optimizer.lr_base_batch, optimizer.lr_warmup_epochs);
        must((1..=1 << 20).contains(&base), "optimizer.lr_base_batch", base, "1 to 1,048,576 images")?;
        let epochs = format!("0 (none) to epochs, here {}", self.epochs);
        must(warm_up <= self.epochs, "optimizer.lr_warmup_epochs", warm_up, &epochs)?;
        must((0.0..1.0).contains(&optimizer.momentum), "optimizer.momentum", optimizer.momentum, "0 or more, below 1")?;
        let decay = optimizer.weight_decay;
        must((0.0..=1.0).contains(&decay), "optimizer.weight_decay", decay, "0 to 1")?;
        match &optimizer.lr_policy {
            Policy::Step { at, factor } => {
                let key = "optimizer.lr_policy.step";
                must(positive(*factor), format!("{key}.factor"), factor, "a positive number")?;
                let ascending = at.windows(2).all(|pair| pair[0] < pair[1]);
                must(ascending, format!("{key}.at"), format!("{at:?}"), "ascending epochs")
            }
            Policy::OneCycle { start, peak, end } => {
                let key = "optimizer.lr_policy.one_cycle";
                must(positive(*start), format!("{key}.start"), start, "a positive factor")?;
                must(positive(*end), format!("{key}.end"), end, "a positive factor")?;
                must(*peak > 0.0 && *peak < 1.0, format!("{key}.peak"), peak, "a fraction of the run between 0 and 1")
            }
            Policy::Constant | Policy::Reference | Policy::Paper => Ok(()),
        }
    }

    fn check_averages(&self) -> Result<(), UserError> {
        let begins = |name: &str, epoch: u64| {
            let expected = format!("an epoch of the run, 0 to {}", self.epochs - 1);
            must(epoch < self.epochs, format!("averages.{name}.from_epoch"), epoch, &expected)
        };
        if let Some(ema) = &self.averages.ema {
            must((0.0..1.0).contains(&ema.decay), "averages.ema.decay", ema.decay, "0 or more, below 1")?;
            begins("ema", ema.from_epoch)?;
        }
        self.averages.swa.as_ref().map_or(Ok(()), |swa| begins("swa", swa.from_epoch))
    }

    fn check_attack(&self) -> Result<(), UserError> {
        let attack = &self.attack;
        let length = |value: f64| value > 0.0 && value <= 1.0;
        let lengths = "a length above 0 and up to 1, as in \"8/255\"";
        must(length(attack.eps.0), "attack.eps", attack.eps, lengths)?;
        must(length(attack.step.0), "attack.step", attack.step, lengths)?;
        must(
            (1..=10_000).contains(&attack.steps),
            "attack.steps",
            attack.steps,
            "1 to 10,000; use kind = \"none\" for none",
        )?;
        if let Target::Prediction(prediction) = &attack.towards {
            self.check_network("attack.towards.network", &prediction.network)?;
        }
        Ok(())
    }

    fn check_evaluation(&self) -> Result<(), UserError> {
        let evaluation = &self.evaluation;
        for (index, name) in evaluation.suite.iter().enumerate() {
            let key = format!("evaluation.suite[{index}]");
            must(Suite::named([name.as_str()]).is_ok(), &key, format!("{name:?}"), Suite::NAMES)?;
            must(!evaluation.suite[..index].contains(name), &key, format!("{name:?}"), "each attack once")?;
        }
        let AutoAttack { iterations, queries, targets } = evaluation.autoattack;
        let lengths = [("iterations", iterations, 10_000), ("queries", queries, 1_000_000), ("targets", targets, 9)];
        for (name, value, most) in lengths {
            let key = format!("evaluation.autoattack.{name}");
            must((1..=most).contains(&value), &key, value, &format!("1 to {most}"))?;
        }
        let length = |value: f64| value > 0.0 && value <= 1.0;
        must(
            length(evaluation.eps.0),
            "evaluation.eps",
            evaluation.eps,
            "a length above 0 and up to 1, as in \"8/255\"",
        )?;
        must(length(evaluation.step.0), "evaluation.step", evaluation.step, "a length above 0 and up to 1")?;
        let batch = evaluation.batch;
        must(
            (16..=65_536).contains(&batch) && batch.is_multiple_of(16),
            "evaluation.batch",
            batch,
            "a multiple of 16 up to 65,536",
        )?;
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
            if let Target::Prediction(prediction) = &term.towards {
                self.check_network(&key("towards.network"), &prediction.network)?;
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

    fn check_network(&self, key: &str, network: &str) -> Result<(), UserError> {
        let known: Vec<&str> = std::iter::once(STUDENT).chain(self.teachers.keys().map(String::as_str)).collect();
        must(
            known.contains(&network),
            key,
            format!("{network:?}"),
            &format!("a network of this run: {}", known.join(", ")),
        )
        .map_err(|error| error.hint(format!("add [teachers.{network}] with its checkpoint")))
    }

    /// The terms that count in `epoch`: those begun, of some weight; or of none, where their passes count for batch norm. Where
    /// a teacher is trusted fully (an exponent of 0, or an epoch before the trust begins), alpha is 1: that removes the trust
    /// factor, or the whole term where it is inverted.
    pub fn active_terms(&self, epoch: u64) -> impl Iterator<Item = Term> {
        let lightest = if self.batch_norm.compat == Compat::Reference { 0.0 } else { f64::MIN_POSITIVE };
        let counts = move |term: &&Term| term.from_epoch <= epoch && term.weight >= lightest;
        let begun = self.loss.terms.iter().filter(counts);
        begun.filter_map(move |term| match &term.trust {
            Some(trust) if trust.exponent == 0.0 || trust.from_epoch > epoch => {
                (!trust.inverted).then(|| Term { trust: None, ..term.clone() })
            }
            _ => Some(term.clone()),
        })
    }
}

fn needs_attack(term: &Term) -> bool {
    let target = matches!(&term.towards, Target::Prediction(prediction) if prediction.images == Images::Adversarial);
    term.of == Images::Adversarial || term.trust.is_some() || target
}
