//! Lines that are whole, damaged, repeated or from other versions.

use super::*;

fn replay(text: &str) -> Result<RecordedRun> {
    let mut run = RecordedRun::default();
    run.replay(text.as_bytes(), Path::new("r/metrics.jsonl")).map(|()| run)
}

#[test]
fn partial_last_line_is_ignored() {
    let run = replay("{\"event\":\"step\",\"epoch\":0,\"step\":1,\"loss\":2.5}\n{\"event\":\"st").unwrap();
    assert_eq!((run.steps.len(), run.steps[0].loss), (1, 2.5));
}

#[test]
fn bad_line_is_named() {
    for bad in ["{\"event\":\"st\n{\"event\":\"warned\",\"message\":\"m\"}\n", "[1]\n", "{\"loss\":1}\n"] {
        let message = replay(&format!("\n{bad}")).unwrap_err().to_string();
        assert!(message.contains("r/metrics.jsonl: line 2 is damaged"), "{message}");
    }
}

#[test]
fn null_numbers_absent_fields_and_unknown_events_are_read() {
    let run = replay(concat!(
        "{\"event\":\"invented\",\"x\":[1]}\n",
        "{\"event\":\"step\",\"step\":1,\"loss\":null,\"terms\":{\"teach\":null},\"new\":{}}\n",
        "{\"event\":\"epoch\",\"epoch\":0,\"counts\":{\"a\":{\"correct\":1,\"of\":2},\"b\":{\"count\":2,\"of\":2}}}\n",
        "{\"event\":\"started\",\"timing\":{}}",
    ))
    .unwrap();
    assert!(run.steps[0].loss.is_nan() && run.steps[0].terms["teach"].is_nan());
    assert_eq!(run.epochs[0].counts.get("a").unwrap().count, 1);
    assert!(run.epochs[0].trust.is_none() && run.epochs[0].timing.seconds.is_nan());
    assert!(run.started.unwrap() == RunStarted::default());
}

#[test]
fn a_resumed_run_replaces_what_it_repeats() {
    let step = |step, loss| format!("{{\"event\":\"step\",\"step\":{step},\"loss\":{loss}}}\n");
    let text = [step(10, 1), step(20, 2), step(30, 3), step(20, 4), step(30, 5)].concat();
    let losses: Vec<_> = replay(&text).unwrap().steps.iter().map(|step| step.loss).collect();
    assert_eq!(losses, [1.0, 4.0, 5.0]);
}

#[test]
fn the_metrics_of_an_old_run_are_read_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/runs/version-1/finished");
    let run = RecordedRun::read(&folder).unwrap();
    let started = run.started.unwrap();
    assert_eq!((started.epochs, started.steps_per_epoch, started.train_images, started.classes), (2, 3, 18, 3));
    assert_eq!((run.steps.len(), run.epochs.len(), run.evaluated.len()), (6, 2, 2));
    assert_eq!(run.steps[0].loss, 1.1198428869247437);
    assert!(run.epochs.iter().all(|epoch| epoch.timing.seconds > 0.0 && epoch.counts["student_adversarial"].of == 18));
    assert_eq!((run.finished.unwrap().step, run.evaluation.unwrap().step), (6, Some(3)));
}

#[test]
fn what_a_run_went_back_over_is_not_shown_and_the_guard_is() {
    let step = |step, loss| format!("{{\"event\":\"step\",\"step\":{step},\"loss\":{loss}}}\n");
    let epoch = |epoch: u64| format!("{{\"event\":\"epoch\",\"epoch\":{epoch},\"step\":{}}}\n", 3 * (epoch + 1));
    let guarded = "{\"event\":\"guarded\",\"kind\":\"gradient\",\"step\":8,\"value\":900.0,\"limit\":50.0,\
                   \"action\":\"rollback\",\"to\":3,\"rate_factor\":0.5}\n";
    let text = [step(3, 1), epoch(0), step(6, 2), epoch(1), step(8, 9), guarded.into(), step(4, 5)].concat();
    let run = replay(&text).unwrap();
    assert_eq!(run.steps.iter().map(|step| step.step).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(run.epochs.len(), 1);
    let [(warning, 1)] = run.warnings.as_slice() else { panic!("{:?}", run.warnings) };
    assert!(warning.contains("step 8") && warning.contains("goes back to step 3, with 0.5 times"), "{warning}");
    // A kind of a later version.
    let run = replay("{\"event\":\"guarded\",\"kind\":\"tide\",\"step\":8,\"action\":\"sail\"}\n").unwrap();
    assert!(run.warnings[0].0.contains("tide"), "{:?}", run.warnings);
}
