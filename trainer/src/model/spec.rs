//! The specification of a network: its architecture, the shapes at both ends and the normalisation of its images.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{Architecture, Normalize, Student};

/// The architecture and shapes of a network; stored with its weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// The architecture.
    pub architecture: Architecture,
    /// Channels, height and width of its images.
    pub image: [usize; 3],
    /// The number of classes.
    pub classes: usize,
    /// The normalisation of its images; `None` for the default of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
}

impl ModelSpec {
    /// A network with the default normalisation of its architecture.
    pub fn new(architecture: Architecture, image: [usize; 3], classes: usize) -> Self {
        Self { architecture, image, classes, normalize: None }
    }

    /// The student of a configuration, for these images and classes.
    pub fn of(student: &Student, image: [usize; 3], classes: usize) -> Self {
        Self { normalize: student.normalize, ..Self::new(student.architecture, image, classes) }
    }

    /// Mean and standard deviation of each channel, if the network normalises its images.
    pub fn normalization(&self) -> Option<(Vec<f64>, Vec<f64>)> {
        self.normalize.unwrap_or(self.architecture.usual_normalize()).of_channels(self.image[0])
    }
}

impl fmt::Display for ModelSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [channels, height, width] = self.image;
        write!(out, "{} for {channels}x{height}x{width} images and {} classes", self.architecture, self.classes)?;
        match self.normalize {
            None => Ok(()),
            Some(Normalize::None) => write!(out, ", not normalised"),
            Some(normalize) => write!(out, ", normalised by {normalize}"),
        }
    }
}
