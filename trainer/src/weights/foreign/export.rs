//! Export: weights of this program become a file that other programs read.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use datasets::{UserError, refuse_existing};

use crate::model::ModelSpec;
use crate::system::files::{sha256, write_atomically};
use crate::weights::checkpoint;
use crate::weights::foreign::state_dict::{safetensors, state_dict, torch_save};
use crate::weights::foreign::{make_folder, onnx, read_bytes, trace, what_it_is};

/// The formats of exported networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// A state_dict by `torch.save`.
    Torch,
    /// A state_dict as safetensors.
    Safetensors,
    /// The network with its program, by tracing.
    TorchScript,
    /// The same for other programs than PyTorch.
    Onnx,
}

impl ExportFormat {
    /// The names, for messages.
    pub const NAMES: &'static str = "torch, safetensors, torchscript or onnx";
    const ALL: [(Self, &'static str, &'static [&'static str]); 4] = [
        (Self::Torch, "torch", &["pth", "pt"]),
        (Self::Safetensors, "safetensors", &["safetensors"]),
        (Self::TorchScript, "torchscript", &["ts", "torchscript"]),
        (Self::Onnx, "onnx", &["onnx"]),
    ];

    /// The format that the ending of a file's name stands for.
    pub fn of_file(file: &Path) -> Option<Self> {
        let ending = file.extension()?.to_str()?;
        Self::ALL.into_iter().find(|(_, _, endings)| endings.contains(&ending)).map(|(format, ..)| format)
    }
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.into_iter().find(|(format, ..)| format == self).map_or("", |(_, name, _)| name);
        out.write_str(name)
    }
}

impl FromStr for ExportFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(_, name, _)| *name == text).map(|(format, ..)| format);
        found.ok_or_else(|| format!("expected {}", Self::NAMES))
    }
}

/// An exported network.
#[derive(Debug)]
pub struct Exported {
    /// The network.
    pub form: ModelSpec,
    /// The format of the file.
    pub format: ExportFormat,
    /// The number of tensors in the file: none where it holds a program.
    pub tensors: usize,
    /// The names of its classes, where they are known.
    pub class_names: Vec<String>,
    /// Steps of training behind it.
    pub step: u64,
    /// SHA-256 of the weights, and of the new file.
    pub sha256: [String; 2],
}

/// Writes the network of `file`, weights or a checkpoint of this program, to `to`. Its normalisation goes along: as tensors in a
/// state_dict, as part of the program otherwise. Without a format the ending of `to` decides.
///
/// # Errors
/// A [`UserError`] for a file that is not ours, an unknown ending, an existing target, or a Python that cannot make ONNX;
/// anything the file system says.
pub fn export(file: &Path, to: &Path, format: Option<ExportFormat>) -> Result<Exported> {
    let format = format.or_else(|| ExportFormat::of_file(to)).ok_or_else(|| {
        UserError::expected("a name that ends in .pth, .pt or .safetensors, .ts or .onnx, or --format beside it")
            .file(to)
            .key("--to")
            .value(format!("called {:?}", to.file_name().unwrap_or_default()))
    })?;
    refuse_existing(to).map_err(|error| error.key("--to"))?;
    let weights = sha256(&read_bytes(file)?);
    let (header, found) = checkpoint::read(file).map_err(|problem| {
        UserError::expected("weights or a checkpoint of this program")
            .file(file)
            .key("the file")
            .value(what_it_is(file, &problem))
            .hint("`iad-launch weights info FILE` says what it is")
    })?;
    let (form, names) = (header.form, &header.class_names);
    make_folder(to)?;
    let mut tensors = 0;
    let mut state = || -> Result<_> {
        let state = state_dict(form, &found).with_context(|| format!("exporting {}", file.display()))?;
        tensors = state.len();
        Ok(state)
    };
    let bytes = match format {
        ExportFormat::Torch => torch_save(&state()?, names)?,
        ExportFormat::Safetensors => safetensors(&state()?, names)?,
        ExportFormat::TorchScript => trace::torch_script(form, &found, names, to)?,
        ExportFormat::Onnx => onnx::onnx(&trace::torch_script(form, &found, names, to)?, form.image, to)?,
    };
    write_atomically(to, &bytes)?;
    let step = header.progress.step;
    Ok(Exported { form, format, tensors, class_names: header.class_names, step, sha256: [weights, sha256(&bytes)] })
}
