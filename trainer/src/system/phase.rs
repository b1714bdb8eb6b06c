//! The phases of a step.

use serde::Serialize;

/// The activity of a rank. At any time it is exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for images and uploading them.
    Data,
    /// Making adversarial images.
    Attack,
    /// Forward passes of teachers.
    Teacher,
    /// Forward passes of the student outside the attack, and losses.
    Forward,
    /// The gradient of the loss.
    Backward,
    /// Waiting for the other ranks and for sums: the communication that no computation hides.
    Communication,
    /// Updating the parameters.
    Update,
    /// A replay as one piece: attack, teachers, forward and backward; with one rank, or with `comm.in_graphs`, the update and the sums too.
    Replay,
    /// Diagnostics, metrics, checkpoints, and everything else.
    Other,
}

impl Phase {
    /// All phases.
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
