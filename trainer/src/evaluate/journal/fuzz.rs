//! Changed journals, also with checksums that fit.

use datasets::damage::{Dice, change_text, inputs};

use super::*;
use crate::config::{Protocol, Suite};
use crate::evaluate::Decided;

const INPUTS: u64 = 1_500;

fn outcomes() -> Outcomes {
    let suite = Suite::named(["natural", "pgd20"]).unwrap();
    let rounds = suite.rounds(&Protocol::default(), 10);
    Outcomes::new(&suite, rounds, 8)
}

/// The line of a step, if the text is one.
fn sealed(text: &[u8]) -> Option<String> {
    let step: RoundStep = serde_json::from_slice(text).ok()?;
    serde_json::to_string(&Line { sha256: digest(&step).ok()?, step }).ok()
}

#[test]
fn changed_journals_give_steps_that_fit_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.journal");
    let batch =
        Decided { samples: vec![0, 1, 5], fallen: "010".into(), predictions: vec![3, 4, 9], ..Default::default() };
    let step = RoundStep { round: 0, seconds: 0.1, batches: vec![batch] };
    let (mut journal, ..) = Journal::open(&path, "a", &outcomes()).unwrap();
    journal.add(&step).unwrap();
    drop(journal);
    let whole = [fs::read(&path).unwrap()];
    let steps = [serde_json::to_vec(&step).unwrap()];
    let heading = serde_json::to_string(&Heading { evaluation: "a".into() }).unwrap();
    let mut taken = 0;
    for input in 0..inputs(INPUTS) {
        let mut dice = Dice::new(30, input);
        let text = if input % 2 == 0 {
            change_text(&whole, &mut dice)
        } else {
            let lines = [change_text(&steps, &mut dice), change_text(&steps, &mut dice)].map(|text| sealed(&text));
            let lines: Vec<String> = std::iter::once(heading.clone()).chain(lines.into_iter().flatten()).collect();
            (lines.join("\n") + "\n").into_bytes()
        };
        fs::write(&path, text).unwrap();
        let (journal, steps, _) = Journal::open(&path, "a", &outcomes()).unwrap();
        taken += steps.len();
        drop(journal);
        // It holds only what was taken now.
        let again = Journal::open(&path, "a", &outcomes()).unwrap();
        assert_eq!((&again.1, again.2.len()), (&steps, 0), "input {input}");
    }
    assert!(taken > 0, "nothing was accepted");
}
