//! A trace of the first steps of a session, of all ranks on one clock, in the format of Chrome's trace viewer.

use std::path::PathBuf;

use anyhow::Result;
use comm::{Alignment, Communicator};
use serde_json::{Value, json};

use crate::system::files::write_atomically;
use crate::system::timeline::Timeline;

/// A trace that is being made.
pub(crate) struct Tracer {
    file: PathBuf,
    /// The number of steps it is to hold.
    wanted: u64,
    timeline: Timeline,
    /// What the clocks are to the leader's at the beginning, and when that was.
    begin: (f64, Alignment),
    first_lap: u64,
    steps: u64,
}

impl Tracer {
    /// Begins a trace of `wanted` steps on every rank.
    ///
    /// # Errors
    /// A failure of the transport.
    pub(crate) fn begin(file: PathBuf, wanted: u64, timeline: &Timeline, ranks: &dyn Communicator) -> Result<Self> {
        timeline.begin_trace();
        let begin = aligned(timeline, ranks)?;
        Ok(Self { file, wanted, timeline: timeline.clone(), begin, first_lap: timeline.laps(), steps: 0 })
    }

    /// Counts a step; whether it was the last one to trace.
    pub(crate) fn step(&mut self) -> bool {
        self.steps += 1;
        self.steps >= self.wanted
    }

    /// Brings the ranks' traces together and writes them. `place` names this rank's host and device. Returns what to tell the
    /// user.
    ///
    /// # Errors
    /// A failure of the transport or of the file system.
    pub(crate) fn finish(self, place: &str, ranks: &dyn Communicator) -> Result<String> {
        let (rank, spans) = (ranks.rank(), self.timeline.end_trace());
        let end = aligned(&self.timeline, ranks)?;
        let microseconds = |seconds: f64| (seconds * 1e9).round() / 1e3;
        let zero = spans.iter().map(|(_, began, _)| self.leaders(*began, end)).fold(f64::INFINITY, f64::min);
        let mut events = vec![
            json!({"name": "process_name", "ph": "M", "pid": rank, "args": {"name": format!("rank {rank} ({place})")}}),
            json!({"name": "process_sort_index", "ph": "M", "pid": rank, "args": {"sort_index": rank}}),
        ];
        events.extend(spans.iter().map(|(span, began, length)| {
            json!({
                "name": span.name, "cat": span.phase.name(), "ph": "X", "pid": rank, "tid": 0,
                "ts": microseconds(self.leaders(*began, end)), "dur": microseconds(*length),
                "args": {"step": span.lap.saturating_sub(self.first_lap)},
            })
        }));
        let error = self.begin.1.error.max(end.1.error);
        let all = ranks.gather(&serde_json::to_string(&(zero, error, events))?)?;
        let all: Vec<(Option<f64>, f64, Vec<Value>)> =
            all.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?;
        let zero = all.iter().filter_map(|(zero, ..)| *zero).fold(f64::INFINITY, f64::min);
        let error = all.iter().map(|(_, error, _)| *error).fold(0.0, f64::max);
        let mut events: Vec<Value> = all.into_iter().flat_map(|(.., events)| events).collect();
        // From the first event on: microseconds since 1970 have no digits left for parts of one.
        for event in &mut events {
            if let Some(began) = event["ts"].as_f64() {
                event["ts"] = json!(((began - zero * 1e6) * 1e3).round() / 1e3);
            }
        }
        if ranks.is_leader() {
            let seconds = json!({"clock_error_us": microseconds(error), "begins_unix_s": zero});
            let whole = json!({"traceEvents": events, "displayTimeUnit": "ms", "otherData": seconds});
            write_atomically(&self.file, whole.to_string().as_bytes())?;
        }
        Ok(format!(
            "trace of {} steps on {} ranks: {} (clocks agree to {:.0} us)",
            self.steps,
            ranks.world_size(),
            self.file.display(),
            microseconds(error)
        ))
    }

    /// A time of this rank's clock by the leader's: clocks drift, so what they were at both ends is interpolated.
    fn leaders(&self, seconds: f64, end: (f64, Alignment)) -> f64 {
        let (begin, first) = self.begin;
        let (end, last) = end;
        let share = ((seconds - begin) / (end - begin).max(1e-9)).clamp(0.0, 1.0);
        seconds + first.offset + (last.offset - first.offset) * share
    }
}

fn aligned(timeline: &Timeline, ranks: &dyn Communicator) -> Result<(f64, Alignment)> {
    let alignment = ranks.align(&|| timeline.host_seconds())?;
    Ok((timeline.host_seconds(), alignment))
}
