//! Suites: the attacks of an evaluation by their names, and the rounds they come to.

use datasets::UserError;

use super::{Protocol, Round};
use crate::attack::Start;
use crate::config::AutoAttack;

/// One way to look for adversarial images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The images themselves.
    Natural,
    /// One step of the whole radius, from the image or from a random start.
    Fgsm(Start),
    /// So many small steps from a random start.
    Pgd(usize),
    /// Thirty small steps on the margin, from a random start.
    CwInf,
    /// Auto-PGD on cross-entropy.
    ApgdCe,
    /// Auto-PGD on the targeted difference-of-logits ratio.
    ApgdT,
    /// The fast adaptive boundary attack, targeted.
    FabT,
    /// The Square attack, which sees no gradients.
    Square,
}

impl Method {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "natural" => Method::Natural,
            "fgsm" => Method::Fgsm(Start::Natural),
            "fgsm_rs" => Method::Fgsm(Start::Uniform),
            "cw_inf" => Method::CwInf,
            "apgd_ce" => Method::ApgdCe,
            "apgd_t" => Method::ApgdT,
            "fab_t" => Method::FabT,
            "square" => Method::Square,
            _ => {
                let digits = name.strip_prefix("pgd").filter(|digits| !digits.starts_with(['0', '+']))?;
                Method::Pgd(digits.parse().ok().filter(|steps| (1..=10_000).contains(steps))?)
            }
        })
    }

    /// Whether it attacks every image, so that its accuracy is one of its own. The others leave out images that are wrong
    /// without any attack, which count as fallen.
    pub fn on_every_image(self) -> bool {
        matches!(self, Method::Natural | Method::Fgsm(_) | Method::Pgd(_) | Method::CwInf)
    }

    /// Whether it follows gradients.
    pub fn sees_gradients(self) -> bool {
        !matches!(self, Method::Natural | Method::Square)
    }

    /// The ranks of the classes it draws towards, one round for each.
    fn targets(self, protocol: &Protocol, classes: usize) -> Vec<Option<usize>> {
        match self {
            Method::ApgdT | Method::FabT => {
                (2..=classes.min(protocol.autoattack.targets as usize + 1)).map(Some).collect()
            }
            _ => vec![None],
        }
    }

    /// About how many forward passes of an image one round costs; a backward pass counts as one.
    fn cost(self, protocol: &Protocol) -> f64 {
        let iterations = protocol.autoattack.iterations as f64;
        match self {
            Method::Natural => 1.0,
            Method::Fgsm(_) => 3.0,
            Method::Pgd(steps) => 2.0 * steps as f64 + 1.0,
            Method::CwInf => 61.0,
            Method::ApgdCe | Method::ApgdT => 2.0 * iterations + 3.0,
            Method::FabT => 3.0 * iterations + 3.0,
            Method::Square => protocol.autoattack.queries as f64 + 3.0,
        }
    }
}

/// An attack of a suite: one method, or several one after another, each on the images that stand after those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name in configurations and tables.
    pub name: String,
    /// The methods by their names.
    pub components: Vec<(String, Method)>,
}

/// The attacks of an evaluation, in the order of its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// Each once.
    pub attacks: Vec<Listed>,
}

const AUTOATTACK: [&str; 4] = ["apgd_ce", "apgd_t", "fab_t", "square"];
const PAPER: [&str; 6] = ["natural", "fgsm", "fgsm_rs", "pgd20", "cw_inf", "autoattack"];

impl Suite {
    /// The names there are, for messages.
    pub const NAMES: &'static str = "natural, fgsm, fgsm_rs, pgdN with N steps as in pgd20, cw_inf, apgd_ce, apgd_t, fab_t, \
                                     square, autoattack (the last four, one after another) or paper (natural, fgsm, fgsm_rs, \
                                     pgd20, cw_inf, autoattack)";

    /// The suite of these names. Where an attack needs to know which images are right without it, `natural` is added.
    ///
    /// # Errors
    /// The first name that there is not, or that stands there twice.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let listed = |name: &str| -> Option<Listed> {
            let parts = if name == "autoattack" { AUTOATTACK.to_vec() } else { vec![name] };
            let components = parts.into_iter().map(|part| Some((part.to_string(), Method::named(part)?)));
            Some(Listed { name: name.to_string(), components: components.collect::<Option<_>>()? })
        };
        let (mut attacks, mut seen) = (Vec::<Listed>::new(), vec![]);
        for name in names {
            let parts = if name == "paper" { PAPER.to_vec() } else { vec![name] };
            if seen.contains(&name) || parts.iter().any(|part| listed(part).is_none()) {
                return Err(name.to_string());
            }
            seen.push(name);
            for attack in parts.into_iter().filter_map(listed) {
                if !attacks.contains(&attack) {
                    attacks.push(attack);
                }
            }
        }
        let natural = |attack: &Listed| attack.components[0].1 == Method::Natural;
        if attacks.iter().any(|attack| !attack.components[0].1.on_every_image()) && !attacks.iter().any(natural) {
            attacks.splice(0..0, listed("natural"));
        }
        Ok(Self { attacks })
    }

    /// The rounds on a network of so many classes, in the order they are run: the natural pass first.
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

    /// Whether these attacks can be run on a network of so many classes.
    ///
    /// # Errors
    /// A [`UserError`] with attacks that can.
    pub fn check(&self, protocol: &Protocol, classes: usize) -> Result<(), UserError> {
        let has = |wanted: Method| {
            self.attacks.iter().flat_map(|attack| &attack.components).any(|(_, method)| *method == wanted)
        };
        if has(Method::ApgdT) && classes < 4 {
            return Err(UserError::expected(
                "at least 4 classes for apgd_t, whose objective takes the four largest logits",
            )
            .key("evaluation.suite")
            .value(format!("{:?} on {classes} classes", self.names()))
            .hint(
                "take [\"natural\", \"pgd20\", \"apgd_ce\", \"fab_t\", \"square\"] instead of autoattack and paper",
            ));
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

    /// The passes of an image that withstands everything through a network of ten classes or more, forward ones and equally
    /// costly ones back together.
    pub fn passes(&self, protocol: &Protocol) -> u64 {
        self.rounds(protocol, 10).iter().map(|round| round.cost as u64).sum()
    }

    /// Whether the attacks of AutoAttack are as in its "standard" version; nothing where there are none.
    pub fn standard(&self, protocol: &Protocol, classes: usize) -> Option<bool> {
        let has = self.attacks.iter().flat_map(|attack| &attack.components).any(|(_, method)| !method.on_every_image());
        has.then(|| protocol.autoattack == AutoAttack::default() && classes >= 10)
    }

    /// The names of its attacks.
    pub fn names(&self) -> Vec<&str> {
        self.attacks.iter().map(|attack| attack.name.as_str()).collect()
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
    fn names_state_their_attacks() {
        assert_eq!(Method::named("fgsm"), Some(Method::Fgsm(Start::Natural)));
        assert_eq!(Method::named("fgsm_rs"), Some(Method::Fgsm(Start::Uniform)));
        assert_eq!(Method::named("pgd20"), Some(Method::Pgd(20)));
        for unknown in ["", "pgd", "pgd0", "pgd-1", "pgd+3", "cw"] {
            assert_eq!(Suite::named([unknown]), Err(unknown.to_string()));
        }
        assert_eq!(Suite::named(["fgsm", "fgsm"]), Err("fgsm".into()));
        let paper = Suite::named(["paper"]).unwrap();
        assert_eq!(paper.names(), PAPER);
        assert_eq!(Suite::named(["pgd20", "paper"]).unwrap().names()[0], "pgd20");
    }

    #[test]
    fn autoattack_runs_its_attacks_on_nine_classes_each() {
        let all = rounds(&["autoattack"], 100);
        assert_eq!(all.len(), 1 + 1 + 9 + 9 + 1);
        assert_eq!(all[..4], ["natural", "autoattack/apgd_ce", "autoattack/apgd_t:2", "autoattack/apgd_t:3"]);
        assert_eq!(all[10..12], ["autoattack/apgd_t:10", "autoattack/fab_t:2"]);
        assert_eq!(all[20], "autoattack/square");
        assert_eq!(rounds(&["fab_t"], 3), ["natural", "fab_t:2", "fab_t:3"]);
        assert_eq!(rounds(&["fgsm", "natural"], 3), ["natural", "fgsm"]);
        assert_eq!(rounds(&["fgsm"], 3), ["fgsm"]);
    }

    #[test]
    fn too_few_classes_are_refused_before_anything_runs() {
        let check = |name, classes| Suite::named([name]).unwrap().check(&Protocol::default(), classes);
        for name in ["apgd_t", "autoattack", "paper"] {
            assert!(check(name, 4).is_ok());
            let message = check(name, 3).unwrap_err().to_string();
            assert!(message.contains("4 classes") && message.contains("fab_t"), "{message}");
        }
        assert!(check("fab_t", 2).is_ok());
    }

    #[test]
    fn every_attack_and_target_draws_from_a_stream_of_its_own() {
        let suite = Suite::named(["paper"]).unwrap();
        let rounds = suite.rounds(&Protocol::default(), 10);
        let mut keys: Vec<u64> = rounds.iter().map(|round| round.draws(1).key(0)).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), rounds.len());
    }
}
