//! Where the time of a rank is spent: phases that add up to the whole, and an optional trace of every piece of work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tch::Device;
use torch_ext::Moment;

use super::{Activity, Phase, Seconds};

/// The clock of one rank: every moment belongs to the phase that was entered last and not left yet. Its handles share
/// one state, so any thread can enter a phase.
#[derive(Clone)]
pub struct Timeline(Arc<Mutex<State>>);

struct State {
    clock: Clock,
    open: Vec<Open>,
    /// Since the last lap: the moments at which phases began.
    changes: Vec<(Moment, Phase)>,
    laps: u64,
    trace: Option<Vec<Span>>,
    /// Receives each phase.
    activity: Activity,
    /// Whether work is captured, on whatever thread: it is timed when it is replayed.
    captures: bool,
}

struct Open {
    phase: Phase,
    name: String,
    began: Moment,
}

/// A finished piece of work.
pub struct Span {
    /// Its name.
    pub name: String,
    /// The phase that its time counts as.
    pub phase: Phase,
    /// The lap it began in, from 0.
    pub lap: u64,
    began: Moment,
    ended: Moment,
}

/// Maps moments to wall-clock time.
#[derive(Clone)]
struct Clock {
    device: Device,
    /// A moment of the device, and the host's time in seconds since 1970 when it was reached.
    reference: (Moment, f64),
    host: (Moment, f64),
}

impl Clock {
    fn new(device: Device) -> Self {
        let now = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
            (Moment::of_host(), since)
        };
        // If the GPU cannot time its work, the host's clock is used, which sees when work is queued.
        let (device, moment) = match Moment::now(device) {
            Ok(moment) => (device, moment),
            Err(_) => (Device::Cpu, Moment::of_host()),
        };
        // The work itself reports an error of the device; times are NaN then.
        let _ = moment.wait();
        let host = now();
        Self { device, reference: (moment, host.1), host }
    }

    fn now(&self) -> Moment {
        Moment::now(self.device).unwrap_or_else(|_| Moment::of_host())
    }
}

impl Timeline {
    /// A running clock for the work of `device`. `activity` receives each phase.
    pub fn new(device: Device, activity: Activity) -> Self {
        let clock = Clock::new(device);
        let changes = vec![(clock.now(), Phase::Other)];
        Self(Arc::new(Mutex::new(State {
            clock,
            open: vec![],
            changes,
            laps: 0,
            trace: None,
            activity,
            captures: false,
        })))
    }

    /// Runs `work`. Its time counts as `phase`, except for phases entered within it. Captured work is timed when it is
    /// replayed.
    pub fn during<T>(&self, phase: Phase, name: &str, work: impl FnOnce() -> T) -> T {
        if self.state().captures {
            return work();
        }
        let depth = self.state().enter(phase, name.to_string());
        let activity = self.state().activity.clone();
        activity.enter(phase);
        let done = work();
        self.state().leave(depth);
        done
    }

    /// Like [`during`](Self::during), for work of many small pieces. On a GPU a moment costs the host microseconds, so
    /// there the pieces are only separated in a trace.
    pub fn during_piece<T>(&self, phase: Phase, name: &str, work: impl FnOnce() -> T) -> T {
        let told = self.state().tells_pieces();
        if told { self.during(phase, name, work) } else { work() }
    }

    /// Names the work of the current phase, until the next name, for a trace.
    pub fn mark(&self, name: &str, number: usize) {
        let mut state = self.state();
        if !state.captures {
            state.mark(name, number);
        }
    }

    /// Runs `work` that is captured: no thread notes the time of its parts.
    pub fn untimed<T>(&self, work: impl FnOnce() -> T) -> T {
        self.state().captures = true;
        let done = work();
        self.state().captures = false;
        done
    }

    /// Ends the current lap, begins a new one, and returns the time of the lap.
    pub fn lap(&self) -> Lap {
        let mut state = self.state();
        state.laps += 1;
        state.cut()
    }

    /// Returns the time since the last lap; it stays out of the current lap, which continues.
    pub fn pause(&self) -> Lap {
        self.state().cut()
    }

    /// The number of finished laps.
    pub fn laps(&self) -> u64 {
        self.state().laps
    }

    /// Begins a trace.
    pub fn begin_trace(&self) {
        let mut state = self.state();
        state.clock = Clock::new(state.clock.device);
        state.trace = Some(vec![]);
    }

    /// Ends the trace. Returns its pieces of work, each with its begin in seconds since 1970 by this host's clock and
    /// its length.
    pub fn end_trace(&self) -> Vec<(Span, f64, f64)> {
        let mut state = self.state();
        let (reference, seconds) = state.clock.reference.clone();
        let spans = state.trace.take().unwrap_or_default();
        drop(state);
        let timed = spans.into_iter().map(|span| {
            let _ = span.ended.wait();
            let (began, length) =
                (seconds + span.began.seconds_since(&reference), span.ended.seconds_since(&span.began));
            (span, began, length)
        });
        timed.collect()
    }

    /// The host's time in seconds since 1970. The clock is monotonic.
    pub fn host_seconds(&self) -> f64 {
        let (reference, seconds) = self.state().clock.host.clone();
        seconds + Moment::of_host().seconds_since(&reference)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new(Device::Cpu, Activity::default())
    }
}

impl State {
    fn phase(&self) -> Phase {
        self.open.last().map_or(Phase::Other, |open| open.phase)
    }

    fn tells_pieces(&self) -> bool {
        self.clock.device == Device::Cpu || self.trace.is_some()
    }

    fn enter(&mut self, phase: Phase, name: String) -> usize {
        let now = self.clock.now();
        if phase != self.phase() {
            self.changes.push((now.clone(), phase));
        }
        self.open.push(Open { phase, name, began: now });
        self.open.len() - 1
    }

    /// Leaves all phases deeper than `depth`.
    fn leave(&mut self, depth: usize) {
        let now = self.clock.now();
        let before = self.phase();
        while self.open.len() > depth {
            let Some(Open { phase, name, began }) = self.open.pop() else { break };
            let lap = self.laps;
            self.trace.iter_mut().for_each(|trace| {
                trace.push(Span { name: name.clone(), phase, lap, began: began.clone(), ended: now.clone() });
            });
        }
        if self.phase() != before {
            self.changes.push((now, self.phase()));
            self.activity.set_phase(self.phase());
        }
    }

    fn mark(&mut self, name: &str, number: usize) {
        if self.trace.is_none() {
            return;
        }
        // Marks of one name are siblings: a new one ends the one before.
        if self.open.last().is_some_and(|open| open.name.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '))) {
            self.leave(self.open.len() - 1);
        }
        self.enter(self.phase(), format!("{name} {number}"));
    }

    fn cut(&mut self) -> Lap {
        let now = self.clock.now();
        let next = vec![(now.clone(), self.phase())];
        let changes = std::mem::replace(&mut self.changes, next);
        Lap { changes, ended: now }
    }
}

/// A stretch of time, cut into phases. On a GPU it may not be over yet.
pub struct Lap {
    changes: Vec<(Moment, Phase)>,
    ended: Moment,
}

impl Lap {
    /// Waits until it is over; returns the seconds of each phase, which add up to its length.
    pub fn seconds(&self) -> Seconds {
        let _ = self.ended.wait();
        let mut seconds = Seconds::default();
        let ends = self.changes.iter().skip(1).map(|(moment, _)| moment).chain([&self.ended]);
        for ((began, phase), ended) in self.changes.iter().zip(ends) {
            seconds[*phase as usize] += ended.seconds_since(began);
        }
        seconds
    }
}

#[cfg(test)]
mod tests;
