//! The allowed values of what methods after IAD add: targets, factors of samples, and what a method remembers.

use std::collections::BTreeSet;

use datasets::UserError;

use super::range::must;
use super::{AttackKind, Balance, Divergence, EMA, Images, Prediction, RunConfig, STUDENT, Target, Term};

impl RunConfig {
    /// The networks besides the student, learners among them, that `terms`, labels and the attack ask for predictions.
    pub fn asked<'a>(&'a self, terms: &'a [Term]) -> BTreeSet<&'a str> {
        let of_terms = terms.iter().flat_map(Term::asks).map(|(network, _)| network);
        let rectified = self.loss.rectify.iter().map(|rectify| rectify.network.as_str());
        let attacking = match &self.attack.towards {
            Target::Prediction(prediction) => Some(prediction.network.as_str()),
            Target::Label | Target::BoostedLabel => None,
        };
        let leading = self.attack.lead.as_deref();
        of_terms.chain(rectified).chain(attacking).chain(leading).filter(|network| *network != STUDENT).collect()
    }

    /// Whether the moving average of the student is a network of the loss or of the attack.
    pub fn averages_teach(&self) -> bool {
        self.averages.ema.is_some() && self.asked(&self.loss.terms).contains(EMA)
    }

    /// Checks the keys of `[loss]` beside its terms, and those of terms and of the attack that belong to them.
    pub(super) fn check_method(&self) -> Result<(), UserError> {
        self.loss.terms.iter().try_for_each(|term| self.check_method_of(term))?;
        self.loss.terms.iter().filter(|term| term.follows()).try_for_each(|term| self.check_magnitude(term))?;
        self.check_memory()?;
        let attack = &self.attack;
        let natural = |prediction: &Prediction| prediction.network != STUDENT && prediction.images == Images::Natural;
        let teacher = matches!(&attack.towards, Target::Prediction(prediction) if natural(prediction));
        let expected = "false, or attack.towards a teacher's prediction on natural images";
        must(!attack.first_order || teacher, "attack.first_order", attack.first_order, expected)?;
        // Parts of a batch are attacked and differentiated one after another.
        let parts = self.batch.accumulate;
        let expected = "1: a term of the loss needs the whole batch before its gradient";
        must(parts == 1 || !self.loss.exchanges(), "batch.accumulate", parts, expected)
    }

    /// What the attack raises beside its target: a divergence that each sample has for itself, and a network that leads.
    pub(super) fn check_objective(&self) -> Result<(), UserError> {
        let attack = &self.attack;
        let divergence = attack.divergence;
        let alone = !matches!(divergence, Divergence::LogitGaps | Divergence::Nuclear);
        let target = matches!(attack.towards, Target::Prediction(_)) || divergence.is_of_squares();
        let expected =
            "kl, mean_square or square; with towards a network's prediction jensen_shannon or logit_square too";
        must(divergence == Divergence::Kl || alone && target, "attack.divergence", divergence.name(), expected)?;
        let Some(lead) = &attack.lead else { return Ok(()) };
        self.check_network("attack.lead", lead)?;
        let other = lead != STUDENT && !self.learners.contains_key(lead);
        must(other, "attack.lead", lead, "ema or a teacher")?;
        must(attack.kind != AttackKind::None, "attack.lead", lead, "no key where attack.kind is \"none\"")
    }

    fn check_method_of(&self, term: &Term) -> Result<(), UserError> {
        self.check_learners_in(term)?;
        let key = |field: &str| format!("loss.terms.{}.{field}", term.name);
        let target = match &term.towards {
            Target::Prediction(prediction) => Some(prediction),
            Target::Label | Target::BoostedLabel => None,
        };
        let expected = "a target that is a network's prediction";
        if let Some(temperature) = term.target_temperature {
            let positive = temperature.is_finite() && temperature > 0.0;
            must(positive, key("target_temperature"), temperature, "a positive number")?;
            must(target.is_some(), key("target_temperature"), temperature, expected)?;
        }
        must(!term.hard || target.is_some(), key("hard"), term.hard, expected)?;
        must(!term.swap_label || target.is_some(), key("swap_label"), term.swap_label, expected)?;
        let plain = term.divergence == Divergence::Kl;
        let squares = term.divergence.is_of_squares() && term.towards == Target::Label;
        let fits = plain || squares || target.is_some() && !term.hard;
        must(fits, key("divergence"), term.divergence.name(), expected)?;
        let slack = term.slack;
        must(slack.is_finite() && slack >= 0.0, key("slack"), slack, "0 or more")?;
        let whole = term.divergence == Divergence::Nuclear;
        must(slack == 0.0 || !whole, key("slack"), slack, "0: the nuclear norm is one number of the whole batch")?;
        self.check_times(term)?;
        if term.divergence == Divergence::LogitGaps {
            let natural = target.is_some_and(|target| target.network == STUDENT && target.images == Images::Natural);
            let natural = natural && term.network == STUDENT;
            let expected = "kl or mean_square; logit_gaps is for the student towards = { network = \"student\", images = \"natural\" }";
            must(natural, key("divergence"), "logit_gaps", expected)?;
            must(self.loss.class_means.is_some(), "loss.class_means", "nothing", "a table for logit_gaps")?;
        }
        if term.divergence == Divergence::Nuclear {
            let weighed = term.trust.is_some() || term.sample_weight.is_some() || term.uncertainty.is_some();
            let weighed = weighed || term.only.is_some() || self.loss.class_weights.is_some();
            let expected =
                "kl or mean_square: the nuclear norm is one number of the whole batch, without factors of samples";
            must(!weighed, key("divergence"), "nuclear", expected)?;
        }
        let natural = target.is_some_and(|target| target.network == STUDENT && target.images == Images::Natural);
        let raised = natural && term.of == Images::Adversarial && self.attack.kind != AttackKind::None;
        let expected =
            "false, or an attack and adversarial images towards = { network = \"student\", images = \"natural\" }";
        must(raised || !term.in_attack, key("in_attack"), true, expected)?;
        for (field, teacher) in [
            ("only.teacher", term.only.as_ref().map(|only| &only.teacher)),
            ("uncertainty.teacher", term.uncertainty.as_ref().map(|one| &one.teacher)),
        ] {
            let Some(teacher) = teacher else { continue };
            must(teacher != STUDENT, key(field), STUDENT, "a teacher: the student is not its own judge")?;
            self.check_network(&key(field), teacher)?;
        }
        if let Some(one) = &term.uncertainty {
            let positive = |value: f64| value.is_finite() && value > 0.0;
            must(positive(one.order), key("uncertainty.order"), one.order, "a positive number")?;
            must(positive(one.scale), key("uncertainty.scale"), one.scale, "a positive number")?;
        }
        Ok(())
    }

    /// A product of two terms needs both in every epoch, and no other table that weighs them.
    fn check_times(&self, term: &Term) -> Result<(), UserError> {
        let Some(name) = &term.times else { return Ok(()) };
        let key = format!("loss.terms.{}.times", term.name);
        let begins = |term: &Term| term.from_epoch == 0 && term.ramp.is_none();
        let lasts = |term: &Term| term.weight > 0.0 && begins(term) && term.divergence != Divergence::Nuclear;
        let other = self.loss.terms.iter().find(|other| other.name == *name && *name != term.name);
        let fits = lasts(term) && other.is_some_and(|other| lasts(other) && other.times.is_none());
        let expected = "the name of another term without times, both with a weight and from epoch 0 on, without ramp and not nuclear";
        must(fits, &key, format!("{name:?}"), expected)?;
        let again = self.loss.terms.iter().any(|other| other.name != term.name && other.times.as_ref() == Some(name));
        must(!again, &key, format!("{name:?}"), "a term that no second one multiplies")?;
        let mean = term.only.as_ref().is_some_and(|only| only.normalized);
        must(!mean, &key, format!("{name:?}"), "no times beside only.normalized: the product has its own divisor")?;
        let alone = self.loss.balance.is_none() && !self.loss.terms.iter().any(Term::follows);
        must(alone, key, format!("{name:?}"), "no times beside [loss.balance] or magnitude_of, which weigh terms too")
    }

    /// Checks `magnitude_of` of a term that has it.
    fn check_magnitude(&self, term: &Term) -> Result<(), UserError> {
        let key = |field: &str| format!("loss.terms.{}.{field}", term.name);
        let plain = |term: &Term| {
            let weighed = term.trust.is_some() || term.sample_weight.is_some() || term.uncertainty.is_some();
            let divergence = term.divergence == Divergence::Kl && !term.hard;
            // A ramp may begin at 0, where a term has no value.
            divergence && !weighed && term.ramp.is_none() && matches!(term.towards, Target::Prediction(_))
        };
        let expected = "a term by KL towards a network's prediction, without ramp, trust and other factors of samples but only, \
                        that no attack raises";
        let list = format!("{:?}", term.magnitude_of);
        must(plain(term) && !term.in_attack, key("magnitude_of"), &list, expected)?;
        let balanced = self.loss.balance.as_ref().is_some_and(|balance| balance.terms.contains(&term.name));
        must(!balanced, key("magnitude_of"), &list, "a term that is not one of loss.balance")?;
        for name in &term.magnitude_of {
            let other = self.loss.terms.iter().find(|other| other.name == *name);
            let there = |other: &Term| {
                other.weight != 0.0 && !other.follows() && other.from_epoch <= term.from_epoch && plain(other)
            };
            let expected = "terms with a weight and without magnitude_of, which begin no later, by KL towards a network's prediction, \
                            without ramp, trust and other factors of samples but only";
            must(other.is_some_and(there), key("magnitude_of"), format!("{name:?}"), expected)?;
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), UserError> {
        let loss = &self.loss;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if let Some(weights) = loss.class_weights {
            let (exponent, least, most) = (weights.exponent, weights.least, weights.most);
            must(exponent.is_finite() && exponent >= 0.0, "loss.class_weights.exponent", exponent, "0 or more")?;
            must(positive(least), "loss.class_weights.least", least, "a positive number")?;
            must(most.is_finite() && most >= least, "loss.class_weights.most", most, "class_weights.least or more")?;
            let attacked = self.attack.kind != AttackKind::None;
            must(attacked, "attack.kind", "none", "an attack: loss.class_weights counts its steps")?;
        }
        if let Some(means) = loss.class_means {
            let (temperature, exponent) = (means.temperature, means.exponent);
            must(positive(temperature), "loss.class_means.temperature", temperature, "a positive number")?;
            must(exponent.is_finite() && exponent >= 0.0, "loss.class_means.exponent", exponent, "0 or more")?;
        }
        if let Some(rectify) = &loss.rectify {
            self.check_network("loss.rectify.network", &rectify.network)?;
            let teacher = rectify.network != STUDENT && !self.learners.contains_key(&rectify.network);
            must(teacher, "loss.rectify.network", &rectify.network, "ema or a teacher")?;
            let [temperature, weight] = [rectify.temperature, rectify.weight].map(|pair| format!("{pair:?}"));
            let numbers = rectify.temperature.into_iter().all(positive);
            must(numbers, "loss.rectify.temperature", temperature, "two positive numbers")?;
            let shares = rectify.weight.into_iter().all(|weight| (0.0..=1.0).contains(&weight));
            must(shares, "loss.rectify.weight", weight, "two numbers from 0 to 1")?;
            for term in &loss.terms {
                let key = format!("loss.terms.{}.smoothing", term.name);
                must(term.smoothing == 0.0, key, term.smoothing, "0 where loss.rectify softens the labels")?;
                let expected = "\"label\" or a prediction: loss.rectify mixes the labels of \"label\" alone";
                let boosted = term.towards == Target::BoostedLabel;
                must(!boosted, format!("loss.terms.{}.towards", term.name), "\"boosted_label\"", expected)?;
            }
        }
        loss.balance.as_ref().map_or(Ok(()), |balance| self.check_balance(balance))
    }

    fn check_balance(&self, balance: &Balance) -> Result<(), UserError> {
        let Balance { terms, rate, temperature_rate, .. } = balance;
        for name in terms {
            let term = self.loss.terms.iter().find(|term| term.name == *name);
            let fits = |term: &Term| {
                let tempered = term.temperature != 1.0 || term.target_temperature.is_some();
                let weighed = term.trust.is_some() || term.sample_weight.is_some() || term.uncertainty.is_some();
                let plain = term.divergence == Divergence::Kl && !term.hard && term.only.is_none();
                plain
                    && !tempered
                    && !weighed
                    && term.weight > 0.0
                    && term.from_epoch == 0
                    && matches!(term.towards, Target::Prediction(_))
            };
            let expected = "two terms with a weight, from epoch 0 on, by KL towards a network's prediction at temperature 1, without \
                            factors of samples";
            must(term.is_some_and(fits), "loss.balance.terms", format!("{name:?}"), expected)?;
        }
        must(terms[0] != terms[1], "loss.balance.terms", format!("{terms:?}"), "two different terms")?;
        must((0.0..=1.0).contains(rate), "loss.balance.rate", rate, "0 to 1")?;
        let key = "loss.balance.temperature_rate";
        must((0.0..=1.0).contains(temperature_rate), key, temperature_rate, "0 to 1")
    }
}

#[cfg(test)]
mod tests {
    use crate::fixtures;

    /// What is wrong with a preset after a change, if anything is.
    fn message(preset: &str, changes: &[&str]) -> String {
        let teachers = "teachers={ robust = { checkpoint = \"none\" }, standard = { checkpoint = \"none\" } }";
        let preset = format!("loss.preset={preset}");
        let begun: &[&str] = match preset.as_str() {
            "loss.preset=ciard" => &["learners.tutor.from_epoch=0", "loss.terms.tutor-label.from_epoch=0"],
            _ => &[],
        };
        fixtures::parse(&[&[teachers, &preset], begun, changes].concat())
            .map_or_else(|error| error.to_string(), |_| String::new())
    }

    /// A term that another one depends on has a value in every epoch.
    #[test]
    fn terms_that_depend_on_others_are_refused_by_their_key() {
        for (preset, change) in [("dgad", "loss.terms.teach.times=correct"), ("ciard", "loss.terms.push.weight=-0.1")] {
            assert_eq!(message(preset, &[change]), "");
        }
        for (preset, change, key) in [
            ("dgad", "loss.terms.teach.times=nobody", "loss.terms.teach.times"),
            ("dgad", "loss.terms.teach.times=teach", "loss.terms.teach.times"),
            ("ciard", "loss.terms.natural.times=adversarial", "loss.terms.natural.times"),
            ("ciard", "loss.terms.tutor-label.from_epoch=1", "loss.terms.tutor-label.from_epoch"),
            ("ciard", "loss.terms.push.magnitude_of=[\"nobody\"]", "loss.terms.push.magnitude_of"),
            ("ciard", "loss.terms.natural.ramp=linear", "loss.terms.push.magnitude_of"),
            ("ciard", "loss.terms.natural.ramp={ hold = 1 }", "loss.terms.push.magnitude_of"),
            ("trades", "loss.terms.smooth.weight=-1", "loss.terms.smooth.weight"),
        ] {
            let message = message(preset, &[change]);
            assert!(message.contains(key), "{change}: {message}");
        }
        let times = "loss.terms.teach.times=correct";
        for (other, words) in [
            ("loss.terms.teach.only.normalized=true", "only.normalized"),
            ("loss.terms.consistent.times=correct", "no second one"),
        ] {
            let message = message("dgad", &[times, other]);
            assert!(message.contains("loss.terms.") && message.contains(words), "{message}");
        }
    }
}
