//! The Python module of `weights export --robustbench`, which gives RobustBench a network that it can score.

use std::path::{Path, PathBuf};

use datasets::UserError;
use trainer::weights::foreign::{ExportFormat, Exported};

/// The module beside an exported file: its name with `.py`.
///
/// # Errors
/// A [`UserError`] for a name that Python cannot import, or another format than TorchScript.
pub(super) fn module_file(to: &Path, format: Option<ExportFormat>) -> Result<PathBuf, UserError> {
    let found = format.or_else(|| ExportFormat::of_file(to));
    if found != Some(ExportFormat::TorchScript) {
        let error = UserError::expected("the format torchscript, whose file needs no class of the network")
            .key("--robustbench");
        return Err(
            error.value(found.map_or("given with an unknown format".into(), |format| format!("given with {format}")))
        );
    }
    let stem = to.file_stem().unwrap_or_default().to_string_lossy();
    let first = stem.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    if !first || !stem.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        let error =
            UserError::expected("letters, digits and `_`, as in a name that Python imports").file(to).key("--to");
        return Err(error.value(format!("{stem:?}")));
    }
    Ok(to.with_extension("py"))
}

/// The text of the module.
pub(super) fn module(made: &Exported, to: &Path) -> String {
    let stem = to.file_stem().unwrap_or_default().to_string_lossy();
    let file = to.file_name().unwrap_or_default().to_string_lossy();
    let names: Vec<String> = made.class_names.iter().map(|name| format!("{name:?}")).collect();
    let [channels, height, width] = made.form.image;
    format!(
        r#""""{stem}, a {architecture}, for RobustBench: images [N, {channels}, {height}, {width}] in [0, 1] to logits [N, {classes}].

    from robustbench.eval import benchmark
    from {stem} import load_model

    benchmark(load_model(), model_name="{stem}", dataset="cifar10", threat_model="Linf", eps=8 / 255)
"""

import pathlib

import torch

CLASSES = [{names}]
WEIGHTS = pathlib.Path(__file__).with_name("{file}")


class Network(torch.nn.Module):
    def __init__(self, device="cpu"):
        super().__init__()
        self.script = torch.jit.load(str(WEIGHTS), map_location=device).eval()

    def _apply(self, move, *more):
        # The weights are constants of the script, which `to` does not move: load them again where they are wanted.
        self.script = torch.jit.load(str(WEIGHTS), map_location=move(torch.zeros(1)).device).eval()
        return self

    def forward(self, x):
        return self.script(x)


def load_model(device="cpu"):
    return Network(device).eval()


if __name__ == "__main__":
    print(load_model()(torch.rand(2, {channels}, {height}, {width})).argmax(1))
"#,
        architecture = made.form.architecture,
        classes = made.form.classes,
        names = names.join(", "),
    )
}
