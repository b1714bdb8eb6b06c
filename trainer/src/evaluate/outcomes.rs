//! The outcomes so far: for every image, in which rounds it was decided and in which it fell.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::config::{Method, Suite};
use crate::evaluate::Round;

/// One rank's outcomes of a batch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// The images, by their numbers.
    pub samples: Vec<usize>,
    /// For each image `1` if the network got it wrong, else `0`.
    pub fallen: String,
    /// The predicted classes; the number of classes where the logits were not finite.
    pub predictions: Vec<i64>,
    /// Counts of the sanity checks.
    pub seen: SanityCounts,
}

/// The outcomes of all ranks from one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundStep {
    /// The number of the round.
    pub round: usize,
    /// Its duration.
    pub seconds: f64,
    /// The batches.
    pub batches: Vec<Decided>,
}

/// The images that the network still gets right under an attack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accuracy {
    /// The name of the attack.
    pub name: String,
    /// Images whose label is still the prediction.
    pub correct: u64,
    /// Images attacked.
    pub of: u64,
}

/// All outcomes so far, equal on all ranks.
#[derive(Debug, Clone)]
pub struct Outcomes {
    /// The suite.
    pub suite: Suite,
    /// Its rounds.
    pub rounds: Vec<Round>,
    /// One bit for each round: whether the image was decided in it.
    decided: Vec<u64>,
    /// One bit for each round: whether the image fell in it.
    fallen: Vec<u64>,
    /// The predictions of the natural round; -1 before it.
    pub predictions: Vec<i64>,
    /// Counts of the sanity checks so far.
    pub seen: SanityCounts,
    /// Seconds spent in each round.
    pub seconds: Vec<f64>,
}

impl Outcomes {
    /// The outcomes of `samples` images before the first step.
    pub fn new(suite: &Suite, rounds: Vec<Round>, samples: usize) -> Self {
        let seconds = vec![0.0; rounds.len()];
        let (decided, fallen, predictions) = (vec![0; samples], vec![0; samples], vec![-1; samples]);
        Self { suite: suite.clone(), rounds, decided, fallen, predictions, seen: SanityCounts::default(), seconds }
    }

    /// The number of images.
    pub fn samples(&self) -> usize {
        self.decided.len()
    }

    /// Adds a step.
    ///
    /// # Errors
    /// A step of other images or rounds, or of an image that was decided before.
    pub fn apply(&mut self, step: &RoundStep) -> Result<()> {
        ensure!(step.round < self.rounds.len(), "a step of round {} of {}", step.round, self.rounds.len());
        let bit = 1 << step.round;
        for batch in &step.batches {
            let whole = batch.samples.len() == batch.fallen.len() && batch.samples.len() == batch.predictions.len();
            ensure!(whole, "a batch of {} images with {} outcomes", batch.samples.len(), batch.fallen.len());
            for &sample in &batch.samples {
                let undecided = self.decided.get(sample).is_some_and(|decided| decided & bit == 0);
                ensure!(undecided, "image {sample} was decided twice in a round, or is not there");
            }
        }
        for batch in &step.batches {
            for ((&sample, fallen), &prediction) in
                batch.samples.iter().zip(batch.fallen.bytes()).zip(&batch.predictions)
            {
                self.decided[sample] |= bit;
                if fallen == b'1' {
                    self.fallen[sample] |= bit;
                }
                if self.rounds[step.round].method == Method::Natural {
                    self.predictions[sample] = prediction;
                }
            }
            self.seen.add(&batch.seen);
        }
        self.seconds[step.round] += step.seconds;
        Ok(())
    }

    /// Whether the image was decided in `round`.
    pub fn is_decided(&self, sample: usize, round: usize) -> bool {
        self.decided[sample] & 1 << round != 0
    }

    /// The images that `round` has yet to decide: those that no earlier round of its attack broke.
    pub fn pending(&self, round: usize) -> Vec<usize> {
        let (before, bit) = (self.before(round), 1 << round);
        let open = |sample: &usize| self.fallen[*sample] & before == 0 && self.decided[*sample] & bit == 0;
        (0..self.samples()).filter(open).collect()
    }

    /// The rounds that an image must have survived to be attacked in `round`.
    fn before(&self, round: usize) -> u64 {
        if self.rounds[round].method.on_every_image() {
            return 0;
        }
        self.mask(|other| {
            let earlier = other < round && self.rounds[other].attack == self.rounds[round].attack;
            earlier || self.rounds[other].method == Method::Natural
        })
    }

    fn mask(&self, holds: impl Fn(usize) -> bool) -> u64 {
        (0..self.rounds.len()).filter(|&round| holds(round)).fold(0, |mask, round| mask | 1 << round)
    }

    /// The number of images that fell in none of these rounds.
    fn standing(&self, rounds: u64) -> u64 {
        self.fallen.iter().filter(|&&fallen| fallen & rounds == 0).count() as u64
    }

    fn accuracy(&self, name: &str, rounds: u64) -> Accuracy {
        Accuracy { name: name.to_string(), correct: self.standing(rounds), of: self.samples() as u64 }
    }

    /// The rounds that decide the accuracy after the first components of an attack.
    fn rounds_of(&self, attack: usize, components: usize) -> u64 {
        let restricted = !self.suite.attacks[attack].components[0].1.on_every_image();
        self.mask(|round| {
            let Round { attack: of, component, method, .. } = self.rounds[round];
            of == attack && component < components || restricted && method == Method::Natural
        })
    }

    /// The accuracy under each attack of the suite.
    ///
    /// # Errors
    /// An image that was not decided in a round it belongs to, or in one it does not belong to.
    pub fn accuracies(&self) -> Result<Vec<Accuracy>> {
        for (number, round) in self.rounds.iter().enumerate() {
            let (before, bit) = (self.before(number), 1 << number);
            let right = |sample: &usize| (self.decided[*sample] & bit != 0) == (self.fallen[*sample] & before == 0);
            let counted = (0..self.samples()).filter(right).count();
            ensure!(counted == self.samples(), "{}: evaluated {counted} images of {}", round.name, self.samples());
        }
        let attacks = self.suite.attacks.iter().enumerate();
        Ok(attacks
            .map(|(attack, listed)| self.accuracy(&listed.name, self.rounds_of(attack, listed.components.len())))
            .collect())
    }

    /// The accuracies after each component of the attacks that have several, by the attacks' names.
    pub fn components(&self) -> BTreeMap<String, Vec<Accuracy>> {
        let several = self.suite.attacks.iter().enumerate().filter(|(_, listed)| listed.components.len() > 1);
        several
            .map(|(attack, listed)| {
                let after = listed.components.iter().enumerate();
                let after = after.map(|(place, (name, _))| self.accuracy(name, self.rounds_of(attack, place + 1)));
                (listed.name.clone(), after.collect())
            })
            .collect()
    }

    /// The images that withstand every attack; an upper bound while rounds remain.
    pub fn worst_case(&self) -> Accuracy {
        self.accuracy("worst case", u64::MAX)
    }

    /// Images that are right without an attack; those not decided yet count as right.
    pub fn naturally_right(&self) -> u64 {
        self.standing(self.mask(|round| self.rounds[round].method == Method::Natural))
    }

    /// Images that fell to a Square attack and to no attack by gradients, where the suite has both.
    pub fn fallen_to_square_alone(&self) -> Option<u64> {
        let gradients = self.mask(|round| self.rounds[round].method.sees_gradients());
        let square = self.mask(|round| self.rounds[round].method == Method::Square);
        let alone = |fallen: &&u64| *fallen & square != 0 && *fallen & gradients == 0;
        (gradients != 0 && square != 0).then(|| self.fallen.iter().filter(alone).count() as u64)
    }

    /// Images that fell to the adaptive check and to no other attack, where the suite has both.
    pub fn fallen_to_adaptive_alone(&self) -> Option<u64> {
        let adaptive = self.mask(|round| self.rounds[round].method == Method::Restart);
        let others = self.mask(|round| self.rounds[round].method != Method::Restart);
        let attacks = self.mask(|round| self.rounds[round].method != Method::Natural) & others;
        let alone = |fallen: &&u64| *fallen & adaptive != 0 && *fallen & others == 0;
        (adaptive != 0 && attacks != 0).then(|| self.fallen.iter().filter(alone).count() as u64)
    }

    /// The first round in which an image fell, if it did.
    pub fn first_fall(&self, sample: usize) -> Option<usize> {
        Some(self.fallen[sample].trailing_zeros() as usize).filter(|&round| round < 64)
    }

    /// Seconds spent on each attack.
    pub fn seconds_of_attacks(&self) -> BTreeMap<String, f64> {
        let mut seconds = BTreeMap::new();
        for (round, spent) in self.rounds.iter().zip(&self.seconds) {
            *seconds.entry(self.suite.attacks[round.attack].name.clone()).or_insert(0.0) += spent;
        }
        seconds
    }

    /// Forward passes done and left, if no further image falls.
    pub fn work(&self) -> (f64, f64) {
        let (mut done, mut left) = (0.0, 0.0);
        for (number, round) in self.rounds.iter().enumerate() {
            let (before, bit) = (self.before(number), 1 << number);
            let decided = self.decided.iter().filter(|&&decided| decided & bit != 0).count();
            let open = self.decided.iter().zip(&self.fallen);
            let open = open.filter(|(decided, fallen)| *decided & bit == 0 && *fallen & before == 0).count();
            done += round.cost * decided as f64;
            left += round.cost * open as f64;
        }
        (done, left)
    }

    /// A table with one line for each image: its number, label, prediction, and for each method `stands`, `fell`, or `-` where
    /// it was not tried. A targeted attack adds the rank of its class.
    pub fn table(&self, label: impl Fn(usize) -> i64) -> String {
        let mut columns: Vec<(usize, usize)> = vec![];
        for round in &self.rounds {
            if !columns.contains(&(round.attack, round.component)) {
                columns.push((round.attack, round.component));
            }
        }
        columns.sort_unstable();
        let named = |&(attack, component): &(usize, usize)| {
            let listed = &self.suite.attacks[attack];
            let name = &listed.components[component].0;
            if listed.components.len() > 1 { format!("{}/{name}", listed.name) } else { name.clone() }
        };
        let names: Vec<String> = columns.iter().map(named).collect();
        let masks: Vec<u64> = columns
            .iter()
            .map(|&(attack, component)| {
                self.mask(|round| (self.rounds[round].attack, self.rounds[round].component) == (attack, component))
            })
            .collect();
        let mut text = format!("index,label,prediction,{}\n", names.join(","));
        for sample in 0..self.samples() {
            text += &format!("{sample},{},{}", label(sample), self.predictions[sample]);
            for mask in &masks {
                let fell = self.fallen[sample] & mask;
                let target = || self.rounds[fell.trailing_zeros() as usize].target;
                text += &match (fell != 0, self.decided[sample] & mask != 0) {
                    (true, _) => target().map_or(",fell".to_string(), |target| format!(",fell:{target}")),
                    (false, true) => ",stands".to_string(),
                    (false, false) => ",-".to_string(),
                };
            }
            text.push('\n');
        }
        text
    }
}

/// Counts of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SanityCounts {
    /// Images looked at without an attack.
    pub images: u64,
    /// Whose logits differ between two equal passes.
    pub randomised: u64,
    /// Whose logits lie in [0, 1] and sum to 1.
    pub probabilities: u64,
    /// Whose logits are not all finite, natural or attacked.
    pub not_finite: u64,
    /// Where the gradient of cross-entropy with respect to the image is 0 everywhere.
    pub zero_gradients: u64,
    /// Attacked images that were outside the ball or [0, 1], or not numbers.
    pub outside: u64,
}

impl SanityCounts {
    /// Adds the counts of other images.
    pub fn add(&mut self, other: &SanityCounts) {
        self.images += other.images;
        self.randomised += other.randomised;
        self.probabilities += other.probabilities;
        self.not_finite += other.not_finite;
        self.zero_gradients += other.zero_gradients;
        self.outside += other.outside;
    }
}
