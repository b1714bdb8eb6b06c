//! The current activity of a rank, for observers on another thread or in another process.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Phase;
use super::fault::{Armed, Fault, FaultKind};
use super::stage::Stage;

/// The number of durations of a stage that determine its pace.
const KEPT: usize = 32;

/// Stages before the present one that are remembered.
const EVENTS: usize = 4;

/// What this rank is doing. Its handles share one state.
#[derive(Clone)]
pub struct Activity(Arc<Mutex<State>>);

struct State {
    stage: Stage,
    step: u64,
    phase: Phase,
    since: Instant,
    waits_in: Option<&'static str>,
    begun: bool,
    taken: [VecDeque<Duration>; Stage::ALL.len()],
    /// The step whose files another thread of this rank writes, and since when.
    writes: Option<(u64, Instant)>,
    /// How long such writes took.
    written: VecDeque<Duration>,
    events: VecDeque<String>,
    fault: Option<Armed>,
    /// A fault of the step's own data, until the step takes it.
    left: Option<FaultKind>,
    sums: Sums,
}

/// Sums of tensors over the ranks that this rank has started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Their number.
    pub count: u64,
    /// The bytes of their tensors.
    pub bytes: u64,
}

/// A look at an [`Activity`].
#[derive(Debug, Clone)]
pub struct Doing {
    /// The current stage.
    pub stage: Stage,
    /// The current step, or the last one.
    pub step: u64,
    /// The current phase of the step.
    pub phase: Phase,
    /// The call in which it waits for the other ranks, if it does.
    pub waits_in: Option<&'static str>,
    /// The step whose files another thread of this rank writes, and for how long.
    pub writes: Option<(u64, Duration)>,
    /// The stages before, with their durations.
    pub before: Vec<String>,
    /// How long this stage has lasted.
    pub lasts: Duration,
    /// The median of the stage's earlier durations; `None` without any.
    pub usually: Option<Duration>,
    /// Whether training or an evaluation has begun, so that there is progress to lose.
    pub begun: bool,
}

impl Default for Activity {
    fn default() -> Self {
        let (stage, phase, since) = (Stage::Start, Phase::Other, Instant::now());
        let state = State {
            stage,
            step: 0,
            phase,
            since,
            waits_in: None,
            begun: false,
            taken: Default::default(),
            writes: None,
            written: VecDeque::new(),
            events: VecDeque::new(),
            fault: None,
            left: None,
            sums: Sums::default(),
        };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl Activity {
    /// Ends the current stage and begins `stage`, at training step `step`.
    pub fn begin(&self, stage: Stage, step: u64) {
        self.change(stage, step);
        self.strike(None);
    }

    fn change(&self, stage: Stage, step: u64) {
        let now = Instant::now();
        let mut state = self.state();
        let (before, lasted) = (state.stage, now - state.since);
        let event = format!("{}, {:.3} s", place(before, state.step), lasted.as_secs_f64());
        keep(&mut state.taken[before as usize], lasted, KEPT);
        keep(&mut state.events, event, EVENTS);
        state.begun |= stage != Stage::Start;
        (state.stage, state.step, state.since, state.phase) = (stage, step, now, Phase::Other);
    }

    /// Counts a sum of a tensor of so many bytes.
    pub fn sums(&self, bytes: u64) {
        let Sums { count, bytes: all } = &mut self.state().sums;
        (*count, *all) = (*count + 1, *all + bytes);
    }

    /// The sums since the last call.
    pub fn take_sums(&self) -> Sums {
        std::mem::take(&mut self.state().sums)
    }

    /// Begins `stage` at the last known training step.
    pub fn begin_next(&self, stage: Stage) {
        let step = self.state().step;
        self.begin(stage, step);
    }

    /// Begins [`Stage::Save`] at the last known training step, where another thread writes. A fault of that stage is left to
    /// [`begin_checkpoint`](Self::begin_checkpoint).
    pub fn begin_save(&self) {
        let step = self.state().step;
        self.change(Stage::Save, step);
    }

    /// Does `work`, which writes the files of a save after `step`, on another thread than the rank's own.
    pub fn writing<T>(&self, step: u64, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        self.state().writes = Some((step, began));
        let done = work();
        let mut state = self.state();
        state.writes = None;
        keep(&mut state.written, began.elapsed(), KEPT);
        done
    }

    /// The other thread begins to write the checkpoint after `step`, and a fault of [`Stage::Save`] happens here.
    pub fn begin_checkpoint(&self, step: u64) {
        let due = self.state().fault.take_if(|armed| armed.is_due(step, Stage::Save, None));
        self.happen(due);
    }

    /// The step enters `phase`.
    pub fn enter(&self, phase: Phase) {
        self.set_phase(phase);
        self.strike(Some(phase));
    }

    /// Says what the step is at.
    pub(super) fn set_phase(&self, phase: Phase) {
        self.state().phase = phase;
    }

    /// Puts a fault into this rank's work; `tell` hears of it before it happens.
    pub fn inject(&self, fault: Fault, tell: Arc<dyn Fn(&str) + Send + Sync>) {
        self.state().fault = Some(Armed { fault, tell });
    }

    fn strike(&self, phase: Option<Phase>) {
        let mut state = self.state();
        let (step, stage) = (state.step, state.stage);
        let due = state.fault.take_if(|armed| armed.is_due(step, stage, phase));
        drop(state);
        self.happen(due);
    }

    fn happen(&self, due: Option<Armed>) {
        // Others look at this state while the fault lasts.
        if let Some(left) = due.and_then(Armed::strike) {
            self.state().left = Some(left);
        }
    }

    /// Whether a fault of this kind has come to the one who asks, once.
    pub fn takes(&self, kind: FaultKind) -> bool {
        self.state().left.take_if(|left| *left == kind).is_some()
    }

    /// Does `work`, a `call` that waits for the other ranks.
    pub fn wait_in<T>(&self, call: &'static str, work: impl FnOnce() -> T) -> T {
        let before = self.state().waits_in.replace(call);
        let done = work();
        self.state().waits_in = before;
        done
    }

    /// Takes `time` off the stage under way: this process was stopped or starved, and did not hang.
    pub fn slept(&self, time: Duration) {
        let mut state = self.state();
        state.since = (state.since + time).min(Instant::now());
    }

    /// The median of the last durations of `stage`, if there were any. To a save belongs what another thread writes.
    pub fn usually(&self, stage: Stage) -> Option<Duration> {
        self.state().usually(stage)
    }

    /// What is under way now.
    pub fn look(&self) -> Doing {
        let state = self.state();
        let State { stage, step, phase, waits_in, begun, .. } = *state;
        let usually = state.usually(stage);
        let before = state.events.iter().cloned().collect();
        let writes = state.writes.map(|(step, since)| (step, since.elapsed()));
        Doing { stage, step, phase, waits_in, writes, before, lasts: state.since.elapsed(), usually, begun }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn usually(&self, stage: Stage) -> Option<Duration> {
        let own = median(&self.taken[stage as usize]);
        let written = median(&self.written).filter(|_| stage == Stage::Save);
        own.map(|own| own + written.unwrap_or_default()).or(written)
    }
}

fn keep<T>(all: &mut VecDeque<T>, last: T, most: usize) {
    all.push_back(last);
    if all.len() > most {
        all.pop_front();
    }
}

fn median(taken: &VecDeque<Duration>) -> Option<Duration> {
    let mut taken: Vec<Duration> = taken.iter().copied().collect();
    taken.sort_unstable();
    taken.get(taken.len() / 2).copied()
}

fn place(stage: Stage, step: u64) -> String {
    match (stage, step) {
        (Stage::Step, _) => format!("step {step}"),
        (_, 0) => stage.name().into(),
        _ => format!("{} after step {step}", stage.name()),
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", place(self.stage, self.step))?;
        if self.stage == Stage::Step {
            write!(out, ", phase {}", self.phase.name())?;
        }
        if let Some(call) = self.waits_in {
            write!(out, ", waits in {call}")?;
        }
        write!(out, ", for {:.0} s", self.lasts.as_secs_f64())?;
        if let Some((step, lasts)) = self.writes {
            write!(out, ", while the files after step {step} are being written for {:.0} s", lasts.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_takes_what_another_thread_writes_and_says_so() {
        let activity = Activity::default();
        activity.begin(Stage::Step, 8);
        let told = activity.clone();
        let doing = activity.writing(7, move || {
            std::thread::sleep(Duration::from_millis(30));
            told.look()
        });
        assert!(doing.writes.is_some_and(|(step, lasts)| step == 7 && lasts >= Duration::from_millis(30)), "{doing:?}");
        assert!(doing.to_string().ends_with("while the files after step 7 are being written for 0 s"), "{doing}");
        assert!(activity.look().writes.is_none());
        assert!(activity.usually(Stage::Save).unwrap() >= Duration::from_millis(30));
        assert_eq!(activity.usually(Stage::Data), None);
        activity.begin_save();
        assert!(activity.look().stage == Stage::Save && activity.look().step == 8);
    }

    #[test]
    fn a_fault_of_a_save_waits_for_its_checkpoint() {
        let activity = Activity::default();
        activity.inject("step=4,phase=save,kind=io-error".parse().unwrap(), Arc::new(|_| {}));
        activity.begin(Stage::Step, 5);
        activity.begin_save();
        activity.begin_checkpoint(3);
        assert!(!activity.takes(FaultKind::IoError), "it came before its step");
        activity.begin_checkpoint(5);
        assert!(activity.takes(FaultKind::IoError));
    }

    #[test]
    fn the_pace_of_a_stage_is_the_median_of_its_durations() {
        let activity = Activity::default();
        assert!(!activity.look().begun);
        assert_eq!(activity.look().usually, None);
        for step in 1..=5 {
            activity.begin(Stage::Step, step);
            std::thread::sleep(Duration::from_millis(if step == 3 { 60 } else { 5 }));
        }
        activity.begin(Stage::Data, 5);
        assert_eq!(activity.look().usually, None, "no wait for images has ended");
        activity.begin(Stage::Step, 6);
        activity.enter(Phase::Attack);
        let doing = activity.look();
        let usually = doing.usually.unwrap();
        assert!(usually >= Duration::from_millis(5) && usually < Duration::from_millis(60), "{usually:?}");
        assert_eq!(activity.wait_in("all-reduce", || activity.look().waits_in), Some("all-reduce"));
        assert_eq!(doing.waits_in, None);
        assert!(doing.before.len() == 4 && doing.before[3].starts_with("data after step 5, 0.0"), "{:?}", doing.before);
        assert!(doing.begun && doing.to_string().starts_with("step 6, phase attack, for 0 s"), "{doing}");
    }
}
