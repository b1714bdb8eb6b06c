//! Where the time goes: phases that add up to the whole, and, on demand, a trace of every piece of work.

mod delay;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tch::Device;
use torch_ext::Moment;

use self::delay::Delay;

/// What a rank is doing. At any time it is one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for images and sending them to the device.
    Data,
    /// Making adversarial images.
    Attack,
    /// Forward passes of teachers.
    Teacher,
    /// Forward passes of the student outside the attack, and losses.
    Forward,
    /// The gradient of the loss.
    Backward,
    /// Waiting for the other ranks and for sums over them: communication that no computation hides.
    Communication,
    /// Moving the parameters.
    Update,
    /// What is replayed as one piece: attack, teachers, forward and backward, with one rank the update too.
    Replay,
    /// Observing, recording, saving, and everything else.
    Other,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 9] = [
        Phase::Data,
        Phase::Attack,
        Phase::Teacher,
        Phase::Forward,
        Phase::Backward,
        Phase::Communication,
        Phase::Update,
        Phase::Replay,
        Phase::Other,
    ];

    const NAMES: [&str; 9] =
        ["data", "attack", "teacher", "forward", "backward", "communication", "update", "replay", "other"];

    /// Its name in records.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Seconds by [`Phase`], in the order of [`Phase::ALL`].
pub type Seconds = [f64; 9];

/// The clock of one rank: every moment belongs to the phase that was entered last and not left yet. Its handles share one
/// state, so that whatever does the work can say so, on any thread.
#[derive(Clone)]
pub struct Timeline(Arc<Mutex<State>>);

struct State {
    clock: Clock,
    open: Vec<Open>,
    /// Since the last lap: from when on which phase.
    changes: Vec<(Moment, Phase)>,
    laps: u64,
    trace: Option<Vec<Span>>,
    delay: Option<Delay>,
}

struct Open {
    phase: Phase,
    name: String,
    began: Moment,
}

/// A piece of work that is done.
pub struct Span {
    /// What it was.
    pub name: String,
    /// What it counts as.
    pub phase: Phase,
    /// The lap it began in, from 0.
    pub lap: u64,
    began: Moment,
    ended: Moment,
}

/// Moments, and what they are as time of the world.
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
        // A GPU that cannot time its work leaves the host's clock, which sees when work is queued.
        let (device, moment) = match Moment::now(device) {
            Ok(moment) => (device, moment),
            Err(_) => (Device::Cpu, Moment::of_host()),
        };
        // An error of the device is that of the work, which tells it; times are then not numbers.
        let _ = moment.wait();
        let host = now();
        Self { device, reference: (moment, host.1), host }
    }

    fn now(&self) -> Moment {
        Moment::now(self.device).unwrap_or_else(|_| Moment::of_host())
    }
}

impl Timeline {
    /// A clock for the work of `device`, begun.
    pub fn new(device: Device, rank: usize) -> Self {
        let clock = Clock::new(device);
        let changes = vec![(clock.now(), Phase::Other)];
        let delay = Delay::of_environment(rank);
        Self(Arc::new(Mutex::new(State { clock, open: vec![], changes, laps: 0, trace: None, delay })))
    }

    /// Does `work`, whose time counts as `phase` but for what is entered within it.
    /// What is recorded for a replay takes its time then.
    pub fn during<T>(&self, phase: Phase, name: &str, work: impl FnOnce() -> T) -> T {
        if torch_ext::is_recording() {
            return work();
        }
        let depth = self.state().enter(phase, name.to_string());
        let delay = self.state().delay_of(phase);
        if let Some(delay) = delay {
            std::thread::sleep(delay);
        }
        let done = work();
        self.state().leave(depth);
        done
    }

    /// Like [`during`](Self::during), for work of many small pieces: on a GPU, where a moment costs microseconds of the host,
    /// they are told apart in a trace alone.
    pub fn during_piece<T>(&self, phase: Phase, name: &str, work: impl FnOnce() -> T) -> T {
        let told = self.state().tells_pieces();
        if told { self.during(phase, name, work) } else { work() }
    }

    /// Names what the phase under way does until the next name, for a trace.
    pub fn mark(&self, name: &str, number: usize) {
        if !torch_ext::is_recording() {
            self.state().mark(name, number);
        }
    }

    /// What passed since the last lap; a new one begins.
    pub fn lap(&self) -> Lap {
        let mut state = self.state();
        state.laps += 1;
        state.cut()
    }

    /// What passed since the last lap, which goes on without it.
    pub fn pause(&self) -> Lap {
        self.state().cut()
    }

    /// The number of laps that are done.
    pub fn laps(&self) -> u64 {
        self.state().laps
    }

    /// Begins a trace.
    pub fn begin_trace(&self) {
        let mut state = self.state();
        state.clock = Clock::new(state.clock.device);
        state.trace = Some(vec![]);
    }

    /// Ends the trace: its pieces of work, and the begin of each in seconds since 1970 by this host's clock and its length.
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

    /// The host's time in seconds since 1970, by a clock that never jumps.
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
        Self::new(Device::Cpu, 0)
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

    /// Leaves everything entered since there were `depth`.
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
        }
    }

    fn mark(&mut self, name: &str, number: usize) {
        if self.trace.is_none() {
            return;
        }
        // A mark stands directly under what it was made in, as its last part.
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

    fn delay_of(&mut self, phase: Phase) -> Option<Duration> {
        let laps = self.laps;
        self.delay.take_if(|delay| delay.phase == phase && delay.lap == laps).map(|delay| delay.length)
    }
}

/// A stretch of time, cut into phases. On a GPU it may not have passed yet.
pub struct Lap {
    changes: Vec<(Moment, Phase)>,
    ended: Moment,
}

impl Lap {
    /// Waits until it has passed; the seconds of each phase, which add up to its length.
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
