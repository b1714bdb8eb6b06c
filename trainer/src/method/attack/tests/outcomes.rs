//! The outcomes of every search, image by image, in tests/fixtures/attack_outcomes.json.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::{Reference, noise, searches};
use crate::fixtures::pattern;
use crate::method::attack::{Subject, predictions};

/// What a search did to one image.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    /// Whether the network is wrong about it.
    fooled: bool,
    /// The change of the image along a fixed direction: another change has another length there.
    change: f64,
}

fn outcomes(reference: &Reference) -> Vec<Vec<Outcome>> {
    let forward = |images: &Tensor| reference.logits(images);
    let (images, direction) = (&reference.images, pattern(768, 5).view([1, 3, 16, 16]) - 0.5);
    let mut all = vec![];
    for search in searches(reference.ball, 40) {
        let found = search.search(&Subject::new(&forward), images, &reference.labels, &noise(&reference.samples));
        let wrong = no_grad(|| predictions(&forward(&found)).ne_tensor(&reference.labels));
        let change = ((found - images) * &direction).sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Double);
        let (wrong, change): (Vec<bool>, Vec<f64>) = (wrong.try_into().unwrap(), change.try_into().unwrap());
        all.push(wrong.into_iter().zip(change).map(|(fooled, change)| Outcome { fooled, change }).collect());
    }
    all
}

#[test]
fn every_search_has_its_golden_outcomes() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/attack_outcomes.json");
    let of = |name: &str, reference: &Reference| (name.to_string(), outcomes(reference));
    let found =
        BTreeMap::from([of("linf", &Reference::read(Kind::Double)), of("l2", &Reference::read_l2(Kind::Double))]);
    if std::env::var_os("IAD_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(FILE, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
    }
    let golden: BTreeMap<String, Vec<Vec<Outcome>>> =
        serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap();
    for (norm, searches) in &golden {
        assert_eq!(searches.len(), found[norm].len());
        for (number, (golden, found)) in searches.iter().zip(&found[norm]).enumerate() {
            assert!(golden.iter().any(|outcome| outcome.change != 0.0), "{norm}, search {number} changed nothing");
            let same = |(golden, found): (&Outcome, &Outcome)| {
                golden.fooled == found.fooled && (golden.change - found.change).abs() <= 1e-9
            };
            assert!(
                golden.len() == found.len() && golden.iter().zip(found).all(same),
                "{norm}, search {number}: {found:?} instead of {golden:?}; IAD_BLESS=1 accepts them"
            );
        }
    }
}
