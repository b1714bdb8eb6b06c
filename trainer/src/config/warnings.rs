//! Values that are allowed and rarely meant.

use super::{AttackKind, Pixels, RunConfig, Selection};

impl RunConfig {
    /// One sentence for each such value, with its key.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = vec![];
        if self.evaluation.selection == Selection::Test {
            warnings.push(
                "the best checkpoint is chosen on the test set (evaluation.selection = \"test\"), as in the paper: its test \
                 accuracy is an optimistic estimate"
                    .to_string(),
            );
        }
        let attack = &self.attack;
        let attacks = attack.kind != AttackKind::None;
        let (trained, measured) = (attack.norm, self.evaluation.norm);
        if attacks && trained != measured {
            warnings.push(format!(
                "the training attack is bounded in {trained} (attack.norm), and the attacks that choose weights and evaluate \
                 them in {measured} (evaluation.norm): set evaluation.norm = \"{trained}\" to measure what is trained"
            ));
        }
        // A single step from a random start is usually longer than the radius (Wong, Rice and Kolter, 2020).
        if attacks && attack.steps > 1 {
            warnings.extend(long_step("attack", attack.step, attack.eps));
        }
        warnings.extend(long_step("evaluation", self.evaluation.step, self.evaluation.eps));
        warnings
    }
}

fn long_step(section: &str, step: Pixels, eps: Pixels) -> Option<String> {
    (step.0 > eps.0).then(|| {
        format!(
            "{section}.step is {step}, more than the radius {section}.eps of {eps}: every step is cut back to the ball, and \
             the attack jumps between its borders"
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::fixtures::parse;

    fn warnings(changes: &[&str]) -> Vec<String> {
        parse(changes).unwrap().warnings()
    }

    #[test]
    fn what_is_seldom_meant_is_warned_of() {
        assert_eq!(warnings(&[]), Vec::<String>::new());
        assert!(warnings(&["evaluation.selection=test"])[0].contains("optimistic"));
        assert!(warnings(&["attack.norm=l2"])[0].contains("evaluation.norm = \"l2\""));
        let long = warnings(&["attack.step=10/255"]);
        assert!(long[0].contains("attack.step is 10/255, more than the radius attack.eps of 8/255"), "{long:?}");
        assert_eq!(warnings(&["attack.step=10/255", "attack.steps=1"]), Vec::<String>::new());
        assert!(warnings(&["evaluation.eps=1/255"])[0].contains("evaluation.step is 2/255"));
    }
}
