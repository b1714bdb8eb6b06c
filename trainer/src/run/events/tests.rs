//! What is written is read back equal.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

fn finite() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("a finite number", |value| value.is_finite())
}

fn named<V: Strategy>(value: V) -> impl Strategy<Value = BTreeMap<String, V::Value>>
where
    V::Value: std::fmt::Debug,
{
    btree_map("[a-z_]{1,8}", value, 0..4)
}

prop_compose! {
    fn timing()(
        seconds in finite(),
        images_per_second in option::of(finite()),
        waited_for_data in option::of(finite()),
        phases in named(finite()),
        flops in option::of(finite()),
        utilisation in option::of(finite()),
        peak_memory in option::of(any::<u64>()),
    ) -> Timing {
        Timing { seconds, images_per_second, waited_for_data, phases, flops, utilisation, peak_memory }
    }
}

prop_compose! {
    fn trust()(mean in finite(), of in any::<u64>(), quantiles in named(vec(finite(), 7))) -> Trust {
        Trust { mean, of, quantiles }
    }
}

prop_compose! {
    fn started()(
        run in option::of(any::<String>()),
        sizes in any::<[u64; 6]>(), train_images_per_class in vec(any::<usize>(), 0..4), classes in any::<usize>(),
        extra in option::of((any::<[u64; 2]>(), vec(any::<usize>(), 0..4))),
    ) -> RunStarted {
        let [steps_per_epoch, epochs, parameters, train_images, held_out_images, test_images] = sizes;
        RunStarted {
            run, steps_per_epoch, epochs, parameters, train_images, held_out_images, test_images, train_images_per_class, classes,
            extra: extra.map(|([images, per_step], images_per_class)| ExtraImages { images, per_step, images_per_class }),
        }
    }
}

prop_compose! {
    fn step()(
        (epoch, step) in any::<(u64, u64)>(), learning_rate in finite(), loss in finite(), terms in named(finite()),
        timing in timing(),
    ) -> StepDone {
        StepDone { epoch, step, learning_rate, loss, terms, timing }
    }
}

prop_compose! {
    fn epoch()(
        StepDone { epoch, step, learning_rate, loss, terms, timing } in step(),
        counts in named(any::<(u64, u64)>().prop_map(|(count, of)| Count { count, of })),
        trust in option::of(trust()),
        probability in named(vec(any::<u64>(), 0..4)),
    ) -> EpochDone {
        EpochDone { epoch, step, learning_rate, loss, terms, counts, trust, probability, timing }
    }
}

prop_compose! {
    fn evaluated()(
        (epoch, step, best) in any::<(u64, u64, bool)>(),
        split in "held_out|test",
        attacks in vec(("[a-z0-9]{1,8}", any::<(u64, u64)>()), 0..3),
        timing in timing(),
    ) -> Evaluated {
        let attacks = attacks.into_iter().map(|(name, (correct, of))| Accuracy { name, correct, of }).collect();
        Evaluated { epoch, step, split, best, attacks, timing }
    }
}

prop_compose! {
    fn guarded()(
        [kind, action] in any::<[String; 2]>(), step in any::<u64>(), (value, limit) in (finite(), finite()),
        to in option::of(any::<u64>()), rate_factor in option::of(finite()),
    ) -> Guarded {
        Guarded { kind, step, value, limit, action, to, rate_factor }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        started().prop_map(Event::Started),
        step().prop_map(Event::Step),
        epoch().prop_map(Event::Epoch),
        evaluated().prop_map(Event::Evaluated),
        any::<String>().prop_map(|message| Event::Warned { message }),
        any::<[String; 3]>().prop_map(|[key, before, now]| Event::Changed { key, before, now }),
        guarded().prop_map(Event::Guarded),
        (any::<u64>(), timing()).prop_map(|(step, timing)| Event::Finished(RunFinished { step, timing })),
    ]
}

proptest! {
    #[test]
    fn an_event_is_read_as_it_was_written(event in event()) {
        let line = serde_json::to_string(&event).unwrap();
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }
}

#[test]
fn numbers_that_are_not_finite_are_read_as_nan() {
    let terms = BTreeMap::from([("teach".to_string(), f64::NEG_INFINITY)]);
    let step = StepDone { epoch: 0, step: 1, learning_rate: 0.1, loss: f64::NAN, terms, timing: Timing::of(1.0) };
    let line = serde_json::to_string(&Event::Step(step)).unwrap();
    let Event::Step(read) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
    assert!(read.loss.is_nan() && read.terms["teach"].is_nan());
    assert_eq!((read.learning_rate, read.timing), (0.1, Timing::of(1.0)));
}
