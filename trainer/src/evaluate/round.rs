//! A round: one attack, towards one class, and its search on a batch.

use datasets::random::Purpose;
use datasets::{Draws, UserError};
use tch::Tensor;

use crate::config::{AutoAttack, Method, Norm, Protocol, Start, Suite};
use crate::evaluate::Classifier;
use crate::evaluate::adaptive::through_stand_in;
use crate::method::attack::{
    ApgdCe, ApgdMargin, ApgdT, Attack as _, Ball, CwInf, FabT, Noise, Pgd, Search, Square, Subject,
};
use crate::method::loss::log_probability_of;
use crate::step::batch::Batch;

/// Iterations of the short attacks of `fast`.
const SHORT: usize = 20;

/// Target classes of the short targeted attack.
const FEW_TARGETS: usize = 4;

/// One method, towards one target class given by its rank, on all images that it attacks.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// The place of its attack in the suite.
    pub attack: usize,
    /// The place of its method in the attack.
    pub component: usize,
    /// The method's name; it selects the stream of random numbers.
    pub name: String,
    /// The method.
    pub method: Method,
    /// The target class, as the rank of its logit on the image itself: 2 is the second largest.
    pub target: Option<usize>,
    /// Approximate forward passes for one image.
    pub cost: f64,
}

impl Round {
    /// Its random numbers: a stream of its own for each method and target.
    pub fn draws(&self, seed: u64) -> Draws {
        let number = self.name.bytes().fold(0u32, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
        Draws::new(seed, Purpose::Evaluation(number), self.target.unwrap_or(0) as u64)
    }

    /// Its name in the table of samples and in progress, for instance `apgd_t:3`.
    pub fn label(&self, suite: &Suite) -> String {
        let attack = &suite.attacks[self.attack];
        let name =
            if attack.components.len() > 1 { format!("{}/{}", attack.name, self.name) } else { self.name.clone() };
        self.target.map_or(name.clone(), |target| format!("{name}:{target}"))
    }

    /// Attacks the images of a batch, `[N, C, H, W]`, towards the classes of rank `targets [N]`, and returns its candidates,
    /// which should lie in the ball.
    pub fn search(
        &self,
        network: &dyn Classifier,
        protocol: &Protocol,
        batch: &Batch,
        targets: &[usize],
        noise: &Noise,
    ) -> Tensor {
        let Batch { images, labels, .. } = batch;
        let ball = ball(protocol);
        let step = protocol.step;
        let (iterations, queries) = (protocol.autoattack.iterations as usize, protocol.autoattack.queries as usize);
        let forward = |images: &Tensor| network.logits(images);
        let ascend = |pgd: Pgd| {
            let objective = |candidate: &Tensor| -log_probability_of(&forward(candidate), labels).sum(images.kind());
            pgd.perturb(images, noise, &objective)
        };
        let search = |search: &dyn Search| search.search(&Subject::new(&forward), images, labels, noise);
        let through = |images: &Tensor| through_stand_in(network, images);
        match self.method {
            Method::Natural => images.shallow_clone(),
            Method::Fgsm(start) => ascend(Pgd { ball, step: ball.eps, steps: 1, start, clamp_start: true }),
            Method::Pgd(steps) => ascend(Pgd { ball, step, steps, start: Start::Uniform, clamp_start: true }),
            Method::CwInf => search(&CwInf { ball, step, steps: 30 }),
            Method::ApgdCe => search(&ApgdCe { ball, iterations }),
            Method::ApgdT => search(&ApgdT { ball, iterations, targets }),
            Method::ShortApgdCe => search(&ApgdCe { ball, iterations: SHORT }),
            Method::ShortApgdT => search(&ApgdT { ball, iterations: SHORT, targets }),
            Method::FabT => search(&FabT { ball, iterations, targets }),
            Method::Square => search(&Square { ball, queries }),
            Method::Restart => ApgdMargin { ball, iterations }.search(&Subject::new(&through), images, labels, noise),
        }
    }
}

/// The ball of every attack.
pub(super) fn ball(protocol: &Protocol) -> Ball {
    Ball { norm: protocol.norm, eps: protocol.eps }
}

impl Method {
    /// The ranks of its target classes; each becomes one round.
    fn targets(self, protocol: &Protocol, classes: usize) -> Vec<Option<usize>> {
        match self {
            Method::ApgdT | Method::FabT => {
                (2..=classes.min(protocol.autoattack.targets as usize + 1)).map(Some).collect()
            }
            Method::ShortApgdT => (2..=classes.min(FEW_TARGETS + 1)).map(Some).collect(),
            _ => vec![None],
        }
    }

    /// Approximate forward passes of one round for one image; a backward pass counts as one.
    fn cost(self, protocol: &Protocol) -> f64 {
        let iterations = protocol.autoattack.iterations as f64;
        match self {
            Method::Natural => 1.0,
            Method::Fgsm(_) => 3.0,
            Method::Pgd(steps) => 2.0 * steps as f64 + 1.0,
            Method::CwInf => 61.0,
            Method::ApgdCe | Method::ApgdT | Method::Restart => 2.0 * iterations + 3.0,
            Method::ShortApgdCe | Method::ShortApgdT => 2.0 * SHORT as f64 + 3.0,
            Method::FabT => 3.0 * iterations + 3.0,
            Method::Square => protocol.autoattack.queries as f64 + 3.0,
        }
    }
}

impl Suite {
    /// The rounds on a network of `classes` outputs in their order: the natural pass first.
    pub fn rounds(&self, protocol: &Protocol, classes: usize) -> Vec<Round> {
        let mut rounds = vec![];
        for (attack, listed) in self.attacks.iter().enumerate() {
            for (component, (name, method)) in listed.components.iter().enumerate() {
                let (name, method, cost) = (name.clone(), *method, method.cost(protocol));
                rounds.extend(method.targets(protocol, classes).into_iter().map(|target| {
                    let name = name.clone();
                    Round { attack, component, name, method, target, cost }
                }));
            }
        }
        rounds.sort_by_key(|round| round.method != Method::Natural);
        rounds
    }

    /// Checks that these attacks can be run on a network of `classes` outputs.
    ///
    /// # Errors
    /// A [`UserError`] with attacks that can.
    pub fn check(&self, protocol: &Protocol, classes: usize) -> Result<(), UserError> {
        let has = |wanted: Method| {
            self.attacks.iter().flat_map(|attack| &attack.components).any(|(_, method)| *method == wanted)
        };
        if (has(Method::ApgdT) || has(Method::ShortApgdT)) && classes < 4 {
            return Err(UserError::expected(
                "at least 4 classes for apgd_t, whose objective takes the four largest logits",
            )
            .key("evaluation.suite")
            .value(format!("{:?} on {classes} classes", self.names()))
            .hint(
                "take [\"natural\", \"pgd20\", \"apgd_ce\", \"fab_t\", \"square\"] instead of autoattack, fast and paper",
            ));
        }
        if has(Method::CwInf) && protocol.norm != Norm::Linf {
            return Err(UserError::expected("attacks that there are in L2: all but cw_inf, and so not paper")
                .key("evaluation.suite")
                .value(format!("{:?} with norm {}", self.names(), protocol.norm))
                .hint("take [\"natural\", \"fgsm\", \"pgd20\", \"autoattack\"] instead"));
        }
        if has(Method::FabT) && classes < 2 {
            return Err(UserError::expected("at least 2 classes").key("evaluation.suite").value(classes));
        }
        let rounds = self.rounds(protocol, classes).len();
        if rounds > 64 {
            let value = format!("{rounds} rounds");
            return Err(UserError::expected("at most 64 rounds, one for each attack and class attacked towards")
                .key("evaluation.suite")
                .value(value));
        }
        Ok(())
    }

    /// The passes of an image that withstands everything, forward and backward together, on ten classes or more.
    pub fn passes(&self, protocol: &Protocol) -> u64 {
        self.rounds(protocol, 10).iter().map(|round| round.cost as u64).sum()
    }

    /// Whether the attacks of AutoAttack are those of its "standard" version; `None` without any of them.
    pub fn standard(&self, protocol: &Protocol, classes: usize) -> Option<bool> {
        let has = self.attacks.iter().flat_map(|attack| &attack.components).any(|(_, method)| method.of_autoattack());
        has.then(|| protocol.autoattack == AutoAttack::default() && classes >= 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(names: &[&str], classes: usize) -> Vec<String> {
        let suite = Suite::named(names.iter().copied()).unwrap();
        suite.rounds(&Protocol::default(), classes).iter().map(|round| round.label(&suite)).collect()
    }

    #[test]
    fn autoattack_runs_its_attacks_on_nine_classes_each() {
        let all = rounds(&["autoattack"], 100);
        assert_eq!(all.len(), 1 + 1 + 9 + 9 + 1);
        assert_eq!(all[..4], ["natural", "autoattack/apgd_ce", "autoattack/apgd_t:2", "autoattack/apgd_t:3"]);
        assert_eq!(all[10..12], ["autoattack/apgd_t:10", "autoattack/fab_t:2"]);
        assert_eq!(all[20], "autoattack/square");
        assert_eq!(
            rounds(&["fast"], 100),
            [
                "natural",
                "fast/apgd_ce_20",
                "fast/apgd_t_20:2",
                "fast/apgd_t_20:3",
                "fast/apgd_t_20:4",
                "fast/apgd_t_20:5"
            ]
        );
        assert_eq!(rounds(&["adaptive2"], 2), ["natural", "adaptive2/restart_1", "adaptive2/restart_2"]);
        assert_eq!(rounds(&["fab_t"], 3), ["natural", "fab_t:2", "fab_t:3"]);
        assert_eq!(rounds(&["fgsm", "natural"], 3), ["natural", "fgsm"]);
        assert_eq!(rounds(&["fgsm"], 3), ["fgsm"]);
    }

    #[test]
    fn the_fast_suite_is_cheap_and_no_autoattack() {
        let (protocol, named) = (Protocol::default(), |name| Suite::named([name]).unwrap());
        assert!(40 * named("fast").passes(&protocol) < named("autoattack").passes(&protocol));
        assert_eq!(named("fast").standard(&protocol, 10), None);
        assert_eq!(named("autoattack").standard(&protocol, 10), Some(true));
        // Lengths of AutoAttack's searches do not change it.
        let longer = Protocol { autoattack: AutoAttack { iterations: 1000, ..AutoAttack::default() }, ..protocol };
        assert_eq!(named("fast").passes(&longer), named("fast").passes(&protocol));
    }

    #[test]
    fn too_few_classes_are_refused_before_anything_runs() {
        let check = |name, classes| Suite::named([name]).unwrap().check(&Protocol::default(), classes);
        for name in ["apgd_t", "autoattack", "fast", "paper"] {
            assert!(check(name, 4).is_ok());
            let message = check(name, 3).unwrap_err().to_string();
            assert!(message.contains("4 classes") && message.contains("fab_t"), "{message}");
        }
        assert!(check("fab_t", 2).is_ok());
    }

    #[test]
    fn every_attack_and_target_draws_from_a_stream_of_its_own() {
        let suite = Suite::named(["paper", "adaptive"]).unwrap();
        let rounds = suite.rounds(&Protocol::default(), 10);
        let mut keys: Vec<u64> = rounds.iter().map(|round| round.draws(1).key(0)).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), rounds.len());
    }
}
