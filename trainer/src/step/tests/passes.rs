//! The networks count their own multiply-adds: a step makes the forward passes that the cost model predicts.

use super::*;
use crate::config::STUDENT;
use crate::run::cost::{Forward, passes};

#[test]
fn a_step_makes_the_forward_passes_of_the_cost_model() {
    let student = network(1, Kind::Float);
    let one = Forward::of(student.form);
    for preset in crate::config::preset_names() {
        for compat in ["lean", "reference"] {
            for diagnostics in ["free", "full"] {
                let overrides = [format!("batch_norm.compat={compat}"), format!("metrics.diagnostics={diagnostics}")];
                let config = config(preset, &overrides.each_ref().map(String::as_str));
                let learners = config.learners.keys().map(|name| (name.clone(), network(4, Kind::Double))).collect();
                let networks = networks(Kind::Double).with_learners(learners);
                let mut step = Step::new(&config, networks, Arc::new(Single)).unwrap();
                let samples: Vec<u64> = (0..2).collect();
                let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &samples, Device::Cpu);
                let images = pattern(2 * 3 * 16 * 16, 7).view([2, 3, 16, 16]);
                let batch = Batch { images, labels: Tensor::from_slice(&[1i64, 2]), samples, global_count: 2 };
                for epoch in [0, 199] {
                    let Networks { student, teachers, learners, .. } = &step.work.networks;
                    let before: BTreeMap<String, u64> = std::iter::once((STUDENT.to_string(), student))
                        .chain(teachers.iter().chain(learners).map(|(name, network)| (name.clone(), network)))
                        .map(|(name, model)| (name, model.multiply_adds()))
                        .collect();
                    let terms: Vec<Term> = config.active_terms(epoch).collect();
                    let _ = step.run(&batch, &noise, &terms, 0.05).unwrap();
                    let Networks { teachers, .. } = &step.work.networks;
                    for (name, before) in before {
                        let learning = step.work.networks.learning(&name);
                        let after = learning.unwrap_or_else(|| &teachers[&name]).multiply_adds();
                        let expected = passes(&config, epoch).get(&name).map_or(0, |passes| passes.forward);
                        let what = format!("{name} in epoch {epoch} of {preset}, {overrides:?}");
                        assert_eq!(after - before, 2 * expected * one.all, "{what}");
                    }
                }
            }
        }
    }
}
