//! Which file of weights of a run a command uses.

use std::path::PathBuf;

use anyhow::Result;
use datasets::UserError;
use trainer::run::folder::RunFolder;

use crate::command::Weights;

/// The name and the file of a run's weights: the requested ones, or the first that exist.
///
/// # Errors
/// A [`UserError`] if there are none.
pub(crate) fn choose_weights(folder: &RunFolder, wanted: Option<Weights>) -> Result<(&'static str, PathBuf)> {
    let file = |name: &'static str| Some((name, folder.weights(name))).filter(|(_, path)| path.is_file());
    let latest = || folder.checkpoints().into_iter().next().map(|(_, path)| ("latest", path));
    let found = match wanted {
        Some(Weights::Best) => file("best"),
        Some(Weights::Final) => file("final"),
        Some(Weights::Latest) => latest(),
        Some(Weights::Ema) => file("ema"),
        Some(Weights::Swa) => file("swa"),
        None => file("best").or_else(|| file("final")).or_else(latest),
    };
    found.ok_or_else(|| {
        UserError::expected("a run with these weights")
            .file(&folder.path)
            .key("--weights")
            .value(wanted.map_or("none at all".into(), |wanted| format!("{wanted:?}").to_lowercase()))
            .hint("train it first: `iad-launch CONFIG`")
            .into()
    })
}
