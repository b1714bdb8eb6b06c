//! `iad-launch init DATASET`.

use std::path::PathBuf;

use clap::Args;

/// `iad-launch init DATASET`
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Data set: cifar10, cifar100, tiny-imagenet, fashion-mnist, mnist, or the path of a container of your own (FILE.h5).
    pub(crate) dataset: String,
    /// Method, as in iad-1, trades or at; docs/methods.md lists them. The spelling of papers is understood too: IAD-I.
    #[arg(long, value_name = "METHOD", default_value = "iad-1")]
    pub(crate) method: String,
    /// Network of the student, as in resnet18, wrn-34-10 or resnet8. The spelling of papers is understood too: WRN-34-10.
    #[arg(long, value_name = "MODEL", default_value = "resnet18")]
    pub(crate) model: String,
    /// Network of the teachers (default: that of the student).
    #[arg(long, value_name = "MODEL")]
    pub(crate) teacher_model: Option<String>,
    /// File to write (default: DATASET_MODEL_METHOD.toml). The teachers' files are written beside it.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) to: Option<PathBuf>,
}
