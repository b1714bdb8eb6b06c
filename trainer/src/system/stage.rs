//! The stages of a run.

/// A stage of a rank's work; each stage has a pace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Joining the other ranks, checking inputs, building networks, the first step.
    Start,
    /// Waiting for images.
    Data,
    /// A step of training.
    Step,
    /// A batch of an evaluation.
    Evaluation,
    /// Saving a checkpoint.
    Save,
    /// Leaving the other ranks.
    End,
}

impl Stage {
    /// All stages.
    pub const ALL: [Stage; 6] = [Stage::Start, Stage::Data, Stage::Step, Stage::Evaluation, Stage::Save, Stage::End];

    /// Its name in messages and as a key.
    pub fn name(self) -> &'static str {
        ["start", "data", "step", "evaluation", "save", "end"][self as usize]
    }
}
