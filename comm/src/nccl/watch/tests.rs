use super::*;

const SUM: What = What::Collective("sum", Kind::Float, 10);

fn started(watch: &Watch<bool>, past: bool) {
    watch.calls(SUM, false);
    watch.returned(Some(Arc::new(past)));
}

const LONG: Duration = Duration::from_secs(1000);

/// Nothing may take longer than this; a replay may take twice as long.
fn limits(limit: Duration) -> Limits {
    Limits { connect: limit, collective: limit, replay: 2 * limit, release: limit }
}

#[test]
fn what_is_done_is_forgotten_in_order() {
    let watch = Watch::new();
    for past in [true, true, false, true] {
        started(&watch, past);
    }
    assert_eq!(watch.look(&limits(LONG), |past| Ok(*past)), None);
    assert_eq!(watch.under_way(), "at collective 3 (the sum of 10 values of type Float, 40 bytes)");
    assert!(!watch.is_idle());
    assert_eq!(watch.look(&limits(LONG), |_| Ok(true)), None);
    assert!(watch.is_idle());
    assert_eq!(watch.under_way(), "after collective 4");
}

#[test]
fn a_hanging_collective_is_named_whether_it_was_queued_or_not() {
    let watch = Watch::new();
    watch.calls(What::Collective("broadcast", Kind::BFloat16, 3), false);
    let said = watch.look(&limits(Duration::ZERO), |past| Ok(*past)).unwrap();
    assert!(
        said.starts_with("collective 1 (the broadcast of 3 values of type BFloat16, 6 bytes) is not done"),
        "{said}"
    );
    assert!(watch.is_calling());
    watch.returned(Some(Arc::new(false)));
    assert!(!watch.is_calling());
    assert!(watch.look(&limits(Duration::ZERO), |past| Ok(*past)).unwrap().starts_with("collective 1 "));
    assert_eq!(watch.look(&limits(LONG), |past| Ok(*past)), None);
}

#[test]
fn a_failed_call_is_not_waited_for() {
    let watch = Watch::<bool>::new();
    watch.calls(SUM, false);
    watch.returned(None);
    assert!(watch.is_idle());
}

/// Only the call itself is watched, which may wait for other ranks.
#[test]
fn captured_work_has_no_end_to_ask_for() {
    let watch = Watch::<bool>::new();
    started(&watch, true);
    watch.calls(SUM, true);
    let said = watch.look(&limits(Duration::ZERO), |past| Ok(*past)).unwrap();
    assert!(said.starts_with("collective 1 (the sum of 10 values of type Float, 40 bytes, captured) is"), "{said}");
    watch.returned(None);
    assert!(watch.is_idle());
    assert_eq!(watch.under_way(), "after collective 1");
}

#[test]
fn a_replay_has_a_deadline_of_its_own() {
    let watch = Watch::new();
    let limits = limits(Duration::from_millis(40));
    watch.calls(What::Replay, false);
    watch.returned(Some(Arc::new(false)));
    thread::sleep(Duration::from_millis(50));
    assert_eq!(watch.look(&limits, |past| Ok(*past)), None);
    thread::sleep(Duration::from_millis(40));
    let said = watch.look(&limits, |past| Ok(*past)).unwrap();
    assert!(said.starts_with("collective 1 (the replay of a recorded step) is not done after 0 s"), "{said}");
    assert_eq!(watch.look(&limits, |_| Ok(true)), None);
    assert!(watch.is_idle());
}

#[test]
fn an_error_of_the_work_is_told() {
    let watch = Watch::new();
    started(&watch, false);
    let said = watch.look(&limits(LONG), |_| anyhow::bail!("an illegal address")).unwrap();
    assert!(said.contains("collective 1") && said.ends_with("failed on the GPU: an illegal address"), "{said}");
}

#[test]
fn limits_come_from_the_variable() {
    let usual = Limits::new(None).unwrap();
    assert_eq!((usual.connect.as_secs(), usual.collective.as_secs(), usual.release.as_secs()), (300, 600, 30));
    let short = Limits::new(Some(" 5 ")).unwrap();
    assert_eq!((short.connect.as_secs(), short.collective.as_secs(), short.release.as_secs()), (5, 5, 5));
    assert_eq!((usual.replay.as_secs(), short.replay.as_secs()), (1200, 10));
    assert_eq!(Limits::new(Some("90")).unwrap().release.as_secs(), 30);
    for wrong in ["", "0", "-1", "1.5", "soon"] {
        assert!(Limits::new(Some(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn work_that_takes_too_long_is_left_behind() {
    assert_eq!(within(LONG, || 3), Some(3));
    let (_keep, never) = std::sync::mpsc::channel::<i32>();
    assert_eq!(within(Duration::from_millis(10), move || never.recv()), None);
}
