//! Faults put into a run on purpose, to rehearse what happens then.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, raise};

use super::{Phase, Stage};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The rank's thread never goes on.
    Hang,
    /// The process is killed (SIGKILL).
    Kill,
    /// The rank panics.
    Panic,
    /// The images of the step are not numbers.
    Nan,
    /// A parameter of this rank differs from the other ranks'.
    Desync,
    /// A pause.
    Slow,
    /// The next checkpoint cannot be written.
    IoError,
    /// A request to stop (SIGTERM).
    Signal,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [FaultKind; 8] = [
        FaultKind::Hang,
        FaultKind::Kill,
        FaultKind::Panic,
        FaultKind::Nan,
        FaultKind::Desync,
        FaultKind::Slow,
        FaultKind::IoError,
        FaultKind::Signal,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        ["hang", "kill", "panic", "nan", "desync", "slow", "io-error", "signal"][self as usize]
    }
}

/// Where in a run a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Stage(Stage),
    Phase(Phase),
}

/// `rank=1,step=40,phase=attack,kind=hang`: one fault on one rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The rank that has it.
    pub rank: usize,
    kind: FaultKind,
    step: u64,
    at: At,
    milliseconds: u64,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut rank, mut step, mut kind, mut at, mut milliseconds) = (0, 1, None, At::Stage(Stage::Step), 1000);
        let number = |key: &str, value: &str| {
            value.parse::<u64>().map_err(|_| format!("expected {key}=NUMBER, found {value:?}"))
        };
        for part in text.split(',') {
            match part.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some(("rank", value)) => rank = number("rank", value)? as usize,
                Some(("step", value)) => step = number("step", value)?,
                Some(("ms", value)) => milliseconds = number("ms", value)?,
                Some(("kind", value)) => {
                    let found = FaultKind::ALL.into_iter().find(|kind| kind.name() == value);
                    kind = Some(found.ok_or_else(|| not_one_of("kind", &FaultKind::ALL.map(FaultKind::name), value))?);
                }
                Some(("phase", value)) => at = place(value)?,
                _ => return Err(format!("expected rank=, step=, phase=, kind= or ms=, found {part:?}")),
            }
        }
        let kind = kind.ok_or_else(|| not_one_of("kind", &FaultKind::ALL.map(FaultKind::name), "none"))?;
        Ok(Self { rank, kind, step, at, milliseconds })
    }
}

fn place(name: &str) -> Result<At, String> {
    // `data` is the stage: the wait for images, not their upload in the step.
    let stage = Stage::ALL.into_iter().find(|stage| stage.name() == name).map(At::Stage);
    let phase = || Phase::ALL.into_iter().find(|phase| phase.name() == name).map(At::Phase);
    let names = || [&Phase::ALL.map(Phase::name)[1..], &Stage::ALL.map(Stage::name)].concat();
    stage.or_else(phase).ok_or_else(|| not_one_of("phase", &names(), name))
}

fn not_one_of(key: &str, names: &[&str], found: &str) -> String {
    format!("expected {key}= one of {}; found {found:?}", names.join(", "))
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = match self.at {
            At::Stage(stage) => stage.name(),
            At::Phase(phase) => phase.name(),
        };
        write!(out, "rank={},step={},phase={at},kind={}", self.rank, self.step, self.kind.name())
    }
}

/// A fault that waits for its moment, and who is told of it before it happens.
#[derive(Clone)]
pub(super) struct Armed {
    pub(super) fault: Fault,
    pub(super) tell: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Armed {
    /// Whether the fault happens where this rank begins `stage` of `step`, or the phase of a step.
    pub(super) fn is_due(&self, step: u64, stage: Stage, phase: Option<Phase>) -> bool {
        let Fault { step: wanted, at, .. } = self.fault;
        let place = match (at, phase) {
            (At::Stage(at), None) => at == stage,
            (At::Phase(at), Some(phase)) => at == phase,
            _ => false,
        };
        // A save or an evaluation comes after its step.
        place && if stage == Stage::Step { step == wanted } else { step >= wanted }
    }

    /// Lets it happen. A fault of the step's own data is left to the step and returned.
    pub(super) fn strike(self) -> Option<FaultKind> {
        (self.tell)(&format!("injected fault: {}", self.fault));
        match self.fault.kind {
            FaultKind::Hang => loop {
                thread::park();
            },
            FaultKind::Kill => drop(raise(Signal::SIGKILL)),
            FaultKind::Signal => drop(raise(Signal::SIGTERM)),
            FaultKind::Slow => thread::sleep(Duration::from_millis(self.fault.milliseconds)),
            FaultKind::Panic => panic!("injected fault"),
            left @ (FaultKind::Nan | FaultKind::Desync | FaultKind::IoError) => return Some(left),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        let fault: Fault = "rank=1,step=40,phase=attack,kind=hang".parse().unwrap();
        assert_eq!(fault.to_string(), "rank=1,step=40,phase=attack,kind=hang");
        for kind in FaultKind::ALL {
            let text = format!("rank=0,step=1,phase=step,kind={}", kind.name());
            assert_eq!(format!("kind={}", kind.name()).parse::<Fault>().unwrap().to_string(), text);
        }
        for (text, expected) in [
            ("rank=1", "kind= one of hang, kill"),
            ("kind=explode", "found \"explode\""),
            ("kind=hang,phase=lunch", "phase= one of attack, teacher"),
            ("kind=hang,step=x", "step=NUMBER"),
            ("hang", "found \"hang\""),
        ] {
            let error = text.parse::<Fault>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_fault_has_one_moment() {
        let armed = |text: &str| Armed { fault: text.parse().unwrap(), tell: Arc::new(|_| {}) };
        let attack = armed("step=4,phase=attack,kind=kill");
        assert!(attack.is_due(4, Stage::Step, Some(Phase::Attack)));
        assert!(!attack.is_due(4, Stage::Step, None) && !attack.is_due(4, Stage::Step, Some(Phase::Forward)));
        assert!(!attack.is_due(5, Stage::Step, Some(Phase::Attack)));
        let save = armed("step=4,phase=save,kind=io-error");
        assert!(save.is_due(6, Stage::Save, None) && !save.is_due(3, Stage::Save, None));
        assert_eq!(save.strike(), Some(FaultKind::IoError));
    }
}
