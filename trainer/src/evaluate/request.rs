//! The request for an evaluation: which weights, on which images, under which attacks, and the files of its results.

use std::path::PathBuf;
use std::sync::Arc;

use datasets::Source;

use crate::config::{ClassMatching, Dtype, Protocol, Suite};

/// A request to evaluate finished weights.
pub struct EvaluationRequest {
    /// The name of the run, or of the file of weights.
    pub run: String,
    /// The beginning of a command that evaluates these weights on these images again, up to the attacks.
    pub command: String,
    /// The weights.
    pub weights: EvaluatedWeights,
    /// The images.
    pub data: EvaluationData,
    /// The attacks.
    pub suite: Suite,
    /// Their settings.
    pub protocol: Protocol,
    /// The type of number to compute with; a TorchScript network keeps its own.
    pub dtype: Dtype,
    /// The files of the results.
    pub outputs: EvaluationFiles,
}

/// The weights that an evaluation attacks.
#[derive(Debug, Clone)]
pub struct EvaluatedWeights {
    /// Which of the run: `best`, `final`, or another name.
    pub name: String,
    /// A file of weights of this program, or a TorchScript file.
    pub file: PathBuf,
    /// How the run selected them; `none` where it is not known.
    pub selection: &'static str,
    /// How their outputs are matched with the classes of the images.
    pub match_classes: ClassMatching,
}

/// The images that an evaluation attacks.
pub struct EvaluationData {
    /// The images and labels.
    pub source: Arc<dyn Source>,
    /// Their container.
    pub file: PathBuf,
}

/// The files that the leader writes.
pub struct EvaluationFiles {
    /// The numbers, as JSON; the table of samples and the journal lie beside it.
    pub results: PathBuf,
    /// The adversarial images, if they are saved.
    pub adversarial: Option<PathBuf>,
    /// Whether the journal stays after the last step, so that a repeated evaluation only reads it.
    pub keeps_journal: bool,
}
