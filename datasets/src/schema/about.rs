//! Description of a data set: its splits, names and classes.

/// A part of a data set with a role of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Images for training.
    Train,
    /// Images for evaluation.
    Test,
}

impl Split {
    /// All splits a file can have.
    pub const ALL: [Split; 2] = [Split::Train, Split::Test];

    /// The name of its group in the file.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }
}

/// Description that a writer stores in a data set file.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The name of the data set.
    pub name: String,
    /// The origin of its images, in words.
    pub source: String,
    /// The address where they are published; empty if there is none.
    pub url: String,
    /// The names of its classes.
    pub class_names: Vec<String>,
    /// The coarser classes that these belong to.
    pub coarse: Option<Coarse>,
}

/// Coarser classes above those of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coarse {
    /// Their names.
    pub names: Vec<String>,
    /// The coarse class of each class.
    pub of_class: Vec<i64>,
}
