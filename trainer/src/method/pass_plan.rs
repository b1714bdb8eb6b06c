//! The forward and backward passes of a training step. [`Views`](super::views::Views) follows this plan, and the cost
//! model counts its passes.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{
    AttackConfig, AttackKind, Diagnostics, Images, Prediction, RunConfig, STUDENT, SampleWeight, Target, Term,
};

/// The passes of one image through one network in a training step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passes {
    /// Forward.
    pub forward: u64,
    /// Backward to the image, in the attack. Costs as much as a forward pass.
    pub to_image: u64,
    /// Backward to the parameters: the gradients of all weights, and of the inputs of all layers but the first.
    pub to_parameters: u64,
}

/// The predictions that diagnostics make for their own sake.
#[derive(Debug, Clone, Default)]
pub struct Diagnosed {
    /// The teacher whose cases and trust are counted.
    pub teacher: Option<String>,
    /// The images on which student and teacher are evaluated; none with `metrics.diagnostics = "free"`.
    pub images: Vec<Images>,
}

impl Diagnosed {
    /// The diagnostics of a run.
    pub fn new(config: &RunConfig) -> Self {
        let images = match (config.metrics.diagnostics, config.attack.kind) {
            (Diagnostics::Free, _) => vec![],
            (Diagnostics::Full, AttackKind::None) => vec![Images::Natural],
            (Diagnostics::Full, _) => vec![Images::Natural, Images::Adversarial],
        };
        Self { teacher: config.loss.observed_teacher().map(str::to_string), images }
    }

    /// The teacher's predictions among them.
    fn of_teacher(&self) -> impl Iterator<Item = (&str, Images)> {
        self.teacher.iter().flat_map(|teacher| self.images.iter().map(|images| (teacher.as_str(), *images)))
    }
}

/// The predictions of one training step. Each one is made once, whatever asks for it.
#[derive(Debug, Clone)]
pub struct PassPlan {
    /// The predictions of the loss and the diagnostics, and whether parameters receive a gradient through them.
    predictions: BTreeMap<(String, Images), bool>,
    /// Passes that only update running statistics, one for each term of weight 0.
    for_statistics: Vec<(String, Images)>,
    /// The networks that the terms train.
    trained: BTreeSet<String>,
    /// Whether the attack, too, compares with the student's natural prediction for a term.
    in_attack: bool,
}

impl PassPlan {
    /// The plan of a step with these terms.
    pub fn new(terms: &[Term], diagnosed: &Diagnosed) -> Self {
        let mut predictions = BTreeMap::<(String, Images), bool>::new();
        let mut need = |network: &str, images: Images, gradient: bool| {
            *predictions.entry((network.to_string(), images)).or_default() |= gradient;
        };
        let (silent, active): (Vec<&Term>, Vec<&Term>) = terms.iter().partition(|term| term.weight == 0.0);
        let trained: BTreeSet<String> =
            active.iter().map(|term| term.network.clone()).chain([STUDENT.to_string()]).collect();
        for term in active {
            need(&term.network, term.of, true);
            if let Some(images) = term.minus {
                need(&term.network, images, true);
            }
            if let Some(SampleWeight::Misclassification) = term.sample_weight {
                need(STUDENT, Images::Natural, true);
            }
            for (network, images) in term.asks() {
                need(network, images, trained.contains(network) && !term.stop_gradient);
            }
        }
        let for_statistics: Vec<(String, Images)> = silent.iter().map(|term| (term.network.clone(), term.of)).collect();
        let served = |images: &Images| for_statistics.iter().any(|(network, of)| network == STUDENT && of == images);
        // A pass for the statistics serves the diagnostics too.
        for images in diagnosed.images.iter().filter(|images| !served(images)) {
            need(STUDENT, *images, false);
        }
        for (teacher, images) in diagnosed.of_teacher() {
            need(teacher, images, false);
        }
        let in_attack = terms.iter().any(|term| term.in_attack && term.weight != 0.0);
        Self { predictions, for_statistics, trained, in_attack }
    }

    /// The student's passes of one image for the gradient of `terms` alone, as in an ascent on the weights.
    pub fn of_ascent(terms: &[Term]) -> Passes {
        let Self { predictions, .. } = Self::new(terms, &Diagnosed::default());
        let gradients: Vec<bool> =
            predictions.iter().filter(|((network, _), _)| network == STUDENT).map(|(_, gradient)| *gradient).collect();
        let to_parameters = gradients.iter().filter(|gradient| **gradient).count() as u64;
        Passes { forward: gradients.len() as u64, to_image: 0, to_parameters }
    }

    /// The teachers that are asked for both kinds of images: one forward pass of both concatenated serves them.
    pub fn batched_teachers(&self) -> BTreeSet<&str> {
        let asks = |network: &str, images| self.predictions.contains_key(&(network.to_string(), images));
        let networks = self.predictions.keys().map(|(network, _)| network.as_str());
        networks
            .filter(|network| *network != STUDENT)
            .filter(|network| asks(network, Images::Natural) && asks(network, Images::Adversarial))
            .collect()
    }

    /// The passes of one image, by network, the attack's included.
    pub fn passes(&self, attack: &AttackConfig) -> BTreeMap<String, Passes> {
        let mut all = BTreeMap::<String, Passes>::new();
        let mut predictions = self.predictions.clone();
        if attack.kind != AttackKind::None {
            let steps = attack.steps as u64;
            let search = Passes { forward: steps, to_image: steps, to_parameters: 0 };
            all.insert(STUDENT.into(), search);
            let own = Target::Prediction(Prediction { network: STUDENT.into(), images: Images::Natural });
            if self.in_attack && attack.towards != own {
                all.entry(STUDENT.into()).or_default().forward += 1;
            }
            match &attack.towards {
                // The loss makes its own prediction, which has a gradient and may be of another mode.
                Target::Prediction(Prediction { network, images: Images::Natural })
                    if self.trained.contains(network) =>
                {
                    let own = all.entry(network.clone()).or_default();
                    own.forward += 1;
                    own.to_image += u64::from(attack.first_order);
                }
                // A teacher's prediction serves the attack and the loss.
                Target::Prediction(Prediction { network, images: Images::Natural }) => {
                    predictions.entry((network.clone(), Images::Natural)).or_default();
                    let slope = all.entry(network.clone()).or_default();
                    slope.to_image += u64::from(attack.first_order);
                }
                // The gradient of the attack runs through a teacher that judges each candidate.
                Target::Prediction(Prediction { network, images: Images::Adversarial }) => {
                    all.insert(network.clone(), search);
                }
                // These images are none of an attack's objective; the configuration is checked for it.
                Target::Prediction(Prediction { images: Images::Mirrored | Images::Helper, .. })
                | Target::Label
                | Target::BoostedLabel => {}
            }
        }
        for (network, _) in &self.for_statistics {
            all.entry(network.clone()).or_default().forward += 1;
        }
        for ((network, _), gradient) in predictions {
            let passes = all.entry(network).or_default();
            passes.forward += 1;
            passes.to_parameters += u64::from(gradient);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Trust;

    fn towards(network: &str, images: Images) -> Target {
        Target::Prediction(Prediction { network: network.into(), images })
    }

    /// IAD-I: teach and introspect on adversarial images; the teacher's trust looks at adversarial ones.
    fn terms() -> Vec<Term> {
        let trust = Trust { teacher: "robust".into(), exponent: 0.1, inverted: true, from_epoch: 0 };
        let teach = Term::plain("teach", Images::Adversarial, towards("robust", Images::Natural));
        let introspect = Term::plain("introspect", Images::Adversarial, towards(STUDENT, Images::Natural));
        vec![teach, Term { trust: Some(trust), ..introspect }]
    }

    #[test]
    fn a_teacher_asked_for_both_kinds_of_images_sees_them_in_one_pass() {
        let plan = PassPlan::new(&terms(), &Diagnosed::default());
        assert_eq!(plan.batched_teachers(), BTreeSet::from(["robust"]));
        let warm_up = PassPlan::new(&terms()[..1], &Diagnosed::default());
        assert!(warm_up.batched_teachers().is_empty());
        // Diagnostics ask for both kinds of images.
        let images = vec![Images::Natural, Images::Adversarial];
        let diagnosed = Diagnosed { teacher: Some("robust".into()), images };
        assert_eq!(PassPlan::new(&terms()[..1], &diagnosed).batched_teachers(), BTreeSet::from(["robust"]));
    }

    /// IGDM on AdaAD: two passes of the student and two of the teacher, on adversarial and on mirrored images.
    #[test]
    fn subtracted_predictions_are_counted() {
        let term = Term::plain("match", Images::Adversarial, towards("robust", Images::Adversarial));
        let plan = PassPlan::new(&[Term { minus: Some(Images::Mirrored), ..term }], &Diagnosed::default());
        let passes = plan.passes(&AttackConfig { kind: AttackKind::None, ..AttackConfig::default() });
        assert_eq!(passes[STUDENT], Passes { forward: 2, to_image: 0, to_parameters: 2 });
        assert_eq!(passes["robust"], Passes { forward: 2, to_image: 0, to_parameters: 0 });
    }

    #[test]
    fn gradients_flow_where_the_terms_let_them() {
        let attack = AttackConfig { kind: AttackKind::None, ..AttackConfig::default() };
        let student = |terms: &[Term]| PassPlan::new(terms, &Diagnosed::default()).passes(&attack)[STUDENT];
        assert_eq!(student(&terms()), Passes { forward: 2, to_image: 0, to_parameters: 2 });
        let mut fixed = terms();
        fixed[1].stop_gradient = true;
        assert_eq!(student(&fixed), Passes { forward: 2, to_image: 0, to_parameters: 1 });
        fixed[1].weight = 0.0;
        assert_eq!(student(&fixed), Passes { forward: 2, to_image: 0, to_parameters: 1 });
    }
}
