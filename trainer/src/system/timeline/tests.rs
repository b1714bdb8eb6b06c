use std::thread::sleep;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn phases_add_up_to_the_whole_and_inner_ones_count_for_themselves() {
    let timeline = Timeline::default();
    let whole = std::time::Instant::now();
    timeline.lap();
    timeline.during(Phase::Attack, "attack", || {
        sleep(10 * MILLISECOND);
        timeline.during(Phase::Teacher, "teacher", || sleep(20 * MILLISECOND));
        sleep(10 * MILLISECOND);
    });
    sleep(5 * MILLISECOND);
    let seconds = timeline.lap().seconds();
    let whole = whole.elapsed().as_secs_f64();
    assert!(seconds[Phase::Attack as usize] >= 0.020);
    assert!(seconds[Phase::Teacher as usize] >= 0.020 && seconds[Phase::Other as usize] >= 0.005);
    assert_eq!(seconds[Phase::Forward as usize], 0.0);
    let sum: f64 = seconds.iter().sum();
    assert!(sum >= 0.045 && sum <= whole, "{sum} of {whole}");
    assert!(whole - sum < 0.005, "{sum} of {whole}");
}

#[test]
fn a_lap_within_a_phase_splits_it() {
    let timeline = Timeline::default();
    timeline.during(Phase::Attack, "attack", || {
        sleep(2 * MILLISECOND);
        let first = timeline.lap().seconds();
        sleep(2 * MILLISECOND);
        let second = timeline.lap().seconds();
        assert!(first[Phase::Attack as usize] >= 0.002 && second[Phase::Attack as usize] >= 0.002);
        assert_eq!(second[Phase::Other as usize], 0.0);
    });
}

#[test]
fn a_trace_has_every_piece_at_its_time() {
    let timeline = Timeline::default();
    timeline.during(Phase::Forward, "before the trace", || {});
    timeline.begin_trace();
    timeline.during(Phase::Attack, "attack", || {
        for step in 1..=2 {
            timeline.mark("step", step);
            timeline.during(Phase::Forward, "inside", || sleep(2 * MILLISECOND));
        }
    });
    timeline.lap();
    timeline.during_piece(Phase::Communication, "sum", || {});
    let began = timeline.host_seconds();
    let spans = timeline.end_trace();
    let names: Vec<&str> = spans.iter().map(|(span, ..)| span.name.as_str()).collect();
    assert_eq!(names, ["inside", "step 1", "inside", "step 2", "attack", "sum"]);
    assert_eq!(spans.iter().map(|(span, ..)| span.lap).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 1]);
    let (_, attack, length) = &spans[4];
    assert!(*length >= 0.004 && attack + length <= began && began - attack < 1.0);
    let (_, first, length_of_first) = &spans[1];
    let (_, second, _) = &spans[3];
    assert!(*first >= *attack && first + length_of_first <= *second + 1e-9);
    assert_eq!(spans[1].0.phase, Phase::Attack);
    assert!(timeline.end_trace().is_empty());
}

#[test]
fn host_time_is_the_time_of_the_world() {
    let timeline = Timeline::default();
    let world = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((timeline.host_seconds() - world).abs() < 1.0);
}

/// Parts of a capture run on threads of libtorch, too, which do not know of it.
#[test]
fn captured_work_notes_no_time_on_any_thread() {
    let timeline = Timeline::default();
    timeline.begin_trace();
    timeline.untimed(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| timeline.during_piece(Phase::Communication, "sum", || timeline.mark("step", 1)));
        });
    });
    assert!(timeline.end_trace().is_empty());
    timeline.begin_trace();
    timeline.during(Phase::Communication, "sum", || ());
    assert_eq!(timeline.end_trace().len(), 1);
}
