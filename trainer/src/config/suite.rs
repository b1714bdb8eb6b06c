//! Suites: the attacks of an evaluation, by their names.

use datasets::{UserError, nearest};

use super::range::must;
use super::run_config::RunConfig;
use super::{AttackKind, Start};

/// An attack method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The images themselves.
    Natural,
    /// One step of the length of the radius, from the image or from a random start.
    Fgsm(Start),
    /// This many small steps from a random start.
    Pgd(usize),
    /// Thirty small steps on the margin, from a random start.
    CwInf,
    /// Auto-PGD on cross-entropy.
    ApgdCe,
    /// Auto-PGD on the targeted difference-of-logits ratio.
    ApgdT,
    /// [`ApgdCe`](Self::ApgdCe) of 20 iterations, whatever the protocol says.
    ShortApgdCe,
    /// [`ApgdT`](Self::ApgdT) of 20 iterations towards the 4 most probable other classes, whatever the protocol says.
    ShortApgdT,
    /// The fast adaptive boundary attack, targeted.
    FabT,
    /// The Square attack, which uses no gradients.
    Square,
    /// A start of the adaptive check: Auto-PGD on the margin, through the network's stand-in.
    Restart,
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
            "apgd_ce_20" => Method::ShortApgdCe,
            "apgd_t_20" => Method::ShortApgdT,
            "fab_t" => Method::FabT,
            "square" => Method::Square,
            _ => {
                let digits = name.strip_prefix("pgd").filter(|digits| !digits.starts_with(['0', '+']))?;
                Method::Pgd(digits.parse().ok().filter(|steps| (1..=10_000).contains(steps))?)
            }
        })
    }

    /// Whether it attacks every image and so has an accuracy of its own. The others skip images that are misclassified
    /// without an attack; these count as broken.
    pub fn on_every_image(self) -> bool {
        matches!(self, Method::Natural | Method::Fgsm(_) | Method::Pgd(_) | Method::CwInf)
    }

    /// Whether it is a part of AutoAttack.
    pub fn of_autoattack(self) -> bool {
        matches!(self, Method::ApgdCe | Method::ApgdT | Method::FabT | Method::Square)
    }

    /// Whether it uses gradients.
    pub fn sees_gradients(self) -> bool {
        !matches!(self, Method::Natural | Method::Square)
    }
}

/// An attack of a suite: one method, or several in turn, each on the images that are still unbroken.
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
    /// The attacks, each once.
    pub attacks: Vec<Listed>,
}

const AUTOATTACK: [&str; 4] = ["apgd_ce", "apgd_t", "fab_t", "square"];
/// The cascade of `fast`, cheaper than AutoAttack and not comparable with it.
const FAST: [&str; 2] = ["apgd_ce_20", "apgd_t_20"];
/// The starts of `adaptive`.
const STARTS: usize = 5;
const PAPER: [&str; 6] = ["natural", "fgsm", "fgsm_rs", "pgd20", "cw_inf", "autoattack"];

impl Suite {
    /// The known names, for messages.
    pub const NAMES: &'static str = "natural, fgsm, fgsm_rs, pgdN with N steps as in pgd20, cw_inf, apgd_ce, apgd_t, fab_t, \
                                     square, autoattack (the last four, one after another), apgd_ce_20, apgd_t_20 (the \
                                     same of 20 iterations, apgd_t_20 towards 4 classes), fast (these two, one after \
                                     another), adaptive (Auto-PGD on the margin from 5 starts, through a stand-in where the \
                                     network has one; adaptiveN from N) or paper (natural, fgsm, fgsm_rs, pgd20, cw_inf, \
                                     autoattack)";

    /// The attack nearest to a mistyped name.
    pub fn nearest(name: &str) -> Option<String> {
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        let pgd = if digits.is_empty() { "pgd20".to_string() } else { format!("pgd{digits}") };
        let named = ["cw_inf", "autoattack", "fast", "adaptive", "paper", pgd.as_str()].into_iter();
        let known = named.chain(AUTOATTACK).chain(FAST).chain(PAPER);
        nearest(name, known.filter(|known| Self::named([*known]).is_ok())).map(str::to_string)
    }

    /// The suite of these names. `natural` is added if an attack needs to know which images are right without it.
    ///
    /// # Errors
    /// The first unknown or duplicate name.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let listed = |name: &str| -> Option<Listed> {
            if let Some(starts) = starts(name) {
                let components = (1..=starts).map(|start| (format!("restart_{start}"), Method::Restart)).collect();
                return Some(Listed { name: name.to_string(), components });
            }
            let parts = match name {
                "autoattack" => AUTOATTACK.to_vec(),
                "fast" => FAST.to_vec(),
                _ => vec![name],
            };
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

    /// The names of its attacks.
    pub fn names(&self) -> Vec<&str> {
        self.attacks.iter().map(|attack| attack.name.as_str()).collect()
    }
}

/// The number of starts of `adaptive`, or of `adaptiveN` with N from 1 to 40.
fn starts(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("adaptive")?;
    if digits.is_empty() {
        return Some(STARTS);
    }
    let plain = !digits.starts_with(['0', '+']);
    digits.parse().ok().filter(|starts| plain && (1..=40).contains(starts))
}

impl RunConfig {
    /// The attacks of the final evaluation.
    ///
    /// # Errors
    /// A [`UserError`] that names the first unknown or repeated attack.
    pub fn suite(&self) -> Result<Suite, UserError> {
        let names = &self.evaluation.suite;
        for (index, name) in names.iter().enumerate() {
            let key = format!("evaluation.suite[{index}]");
            must(Suite::named([name.as_str()]).is_ok(), &key, format!("{name:?}"), Suite::NAMES).map_err(|error| {
                match Suite::nearest(name) {
                    Some(near) => error.hint(format!("did you mean {near}?")),
                    None => error,
                }
            })?;
            must(!names[..index].contains(name), &key, format!("{name:?}"), "each attack once")?;
        }
        let repeated =
            |name| UserError::expected("each attack once").key("evaluation.suite").value(format!("{name:?}"));
        Suite::named(names.iter().map(String::as_str)).map_err(repeated)
    }

    /// The attacks that select the best weights during training.
    pub fn selection_suite(&self) -> Suite {
        let names: &[&str] = if self.attack.kind == AttackKind::None { &["natural"] } else { &["natural", "pgd10"] };
        Suite::named(names.iter().copied()).unwrap_or_else(|name| unreachable!("{name} is an attack"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_state_their_attacks() {
        assert_eq!(Method::named("fgsm"), Some(Method::Fgsm(Start::Natural)));
        assert_eq!(Method::named("fgsm_rs"), Some(Method::Fgsm(Start::Uniform)));
        assert_eq!(Method::named("pgd20"), Some(Method::Pgd(20)));
        for unknown in ["", "pgd", "pgd0", "pgd-1", "pgd+3", "cw"] {
            assert_eq!(Suite::named([unknown]), Err(unknown.to_string()));
        }
        for (typed, meant) in [
            ("pgd-50", "pgd50"),
            ("pdg20", "pgd20"),
            ("cw", "cw_inf"),
            ("auto-attack", "autoattack"),
            ("adaptve", "adaptive"),
        ] {
            assert_eq!(Suite::nearest(typed).as_deref(), Some(meant));
        }
        assert_eq!(Suite::nearest("deepfool"), None);
        assert_eq!(Suite::named(["fgsm", "fgsm"]), Err("fgsm".into()));
        for unknown in ["adaptive0", "adaptive41", "adaptive+2", "adaptive_2", "restart_1"] {
            assert_eq!(Suite::named([unknown]), Err(unknown.to_string()));
        }
        let starts = |name| Suite::named([name]).unwrap().attacks[1].components.len();
        assert_eq!([starts("adaptive"), starts("adaptive1"), starts("adaptive40")], [5, 1, 40]);
        let paper = Suite::named(["paper"]).unwrap();
        assert_eq!(paper.names(), PAPER);
        assert_eq!(Suite::named(["pgd20", "paper"]).unwrap().names()[0], "pgd20");
    }
}
