//! The numbers of a run by name and step.

use trainer::evaluate::Accuracy;

use crate::report::{RecordedRun, finite};

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scalar {
    /// What recorded it: `step`, `epoch` or `evaluated`.
    pub(super) event: &'static str,
    pub(super) step: u64,
    pub(super) name: String,
    pub(super) value: f64,
}

/// All numbers of a run, by event and step. Numbers that were not finite are left out. `epoch` and `evaluated` events have
/// the step after which they were made.
pub(super) fn scalars(run: &RecordedRun) -> Vec<Scalar> {
    let mut all = vec![];
    let mut add = |event, step, name: String, value: f64| {
        all.extend(finite(value).map(|value| Scalar { event, step, name, value }));
    };
    let share = |count: u64, of: u64| if of > 0 { count as f64 / of as f64 } else { f64::NAN };
    for step in &run.steps {
        add("step", step.step, "loss".into(), step.loss);
        add("step", step.step, "learning_rate".into(), step.learning_rate);
        for (name, value) in &step.terms {
            add("step", step.step, format!("terms/{name}"), *value);
        }
    }
    for epoch in &run.epochs {
        let mut add = |name: String, value| add("epoch", epoch.step, name, value);
        add("loss".into(), epoch.loss);
        for (name, value) in &epoch.terms {
            add(format!("terms/{name}"), *value);
        }
        for (name, count) in &epoch.counts {
            add(format!("shares/{name}"), share(count.count, count.of));
        }
        if let Some(trust) = &epoch.trust {
            add("alpha/mean".into(), trust.mean);
        }
        add("images_per_second".into(), epoch.timing.images_per_second.unwrap_or(f64::NAN));
        add("seconds".into(), epoch.timing.seconds);
    }
    for evaluated in &run.evaluated {
        for Accuracy { name, correct, of } in &evaluated.attacks {
            add("evaluated", evaluated.step, format!("{}/{name}", evaluated.split), share(*correct, *of));
        }
    }
    all
}

/// `event,step,name,value`, a line for each number, written so that it is read back to the bit.
pub(super) fn csv(scalars: &[Scalar]) -> String {
    let mut text = "event,step,name,value\n".to_string();
    for Scalar { event, step, name, value } in scalars {
        let name = if name.contains([',', '"']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.clone() };
        text += &format!("{event},{step},{name},{value}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn numbers_have_their_steps() {
        let mut run = RecordedRun::default();
        let text = concat!(
            r#"{"event":"started","steps_per_epoch":3}"#,
            "\n",
            r#"{"event":"step","step":1,"loss":0.1,"learning_rate":0.2,"terms":{"label":0.1}}"#,
            "\n",
            r#"{"event":"step","step":2,"loss":null}"#,
            "\n",
            r#"{"event":"epoch","epoch":0,"step":3,"loss":0.3,"counts":{"case_a":{"count":1,"of":4}},"trust":{"mean":0.5,"of":4}}"#,
            "\n",
            r#"{"event":"evaluated","epoch":0,"step":3,"split":"test","attacks":[{"name":"natural","correct":1,"of":2}]}"#,
        );
        run.replay(text.as_bytes(), Path::new("metrics.jsonl")).unwrap();
        assert_eq!(
            csv(&scalars(&run)),
            "event,step,name,value\nstep,1,loss,0.1\nstep,1,learning_rate,0.2\nstep,1,terms/label,0.1\nepoch,3,loss,0.3\n\
             epoch,3,shares/case_a,0.25\nepoch,3,alpha/mean,0.5\nevaluated,3,test/natural,0.5\n"
        );
    }
}
