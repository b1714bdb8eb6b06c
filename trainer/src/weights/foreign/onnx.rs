//! A TorchScript network as ONNX. libtorch cannot write it; the PyTorch of a Python can, from the same file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use datasets::UserError;

const SCRIPT: &str = include_str!("onnx.py");
/// The variable that names another Python than that of set-up.
const PYTHON: &str = "IAD_PYTHON";

/// The ONNX file of a TorchScript network for images of that shape. Files lie beside `to` for a moment.
///
/// # Errors
/// A [`UserError`] where no Python can do it; anything the file system says.
pub(super) fn onnx(torch_script: &[u8], image: [usize; 3], to: &Path) -> Result<Vec<u8>> {
    let [source, target] = ["traced", "made"].map(|ending| to.with_extension(ending));
    fs::write(&source, torch_script).with_context(|| format!("writing {}", source.display()))?;
    let made = convert(&source, &target, image);
    for file in [source, target] {
        // A file that cannot be removed costs space.
        let _ = fs::remove_file(file);
    }
    made
}

fn convert(source: &Path, target: &Path, image: [usize; 3]) -> Result<Vec<u8>> {
    let python = python();
    let error = |value: String| {
        UserError::expected("a Python with torch, onnx and numpy, which writes ONNX")
            .key(python.display().to_string())
            .value(value)
            .hint(format!(
                "`{} -m pip install onnx onnxruntime`, or set {PYTHON} to a Python that has them",
                python.display()
            ))
    };
    let sizes = image.map(|size| size.to_string());
    let ended = Command::new(&python).args(["-c", SCRIPT]).args([source, target]).args(sizes).output();
    let ended = ended.map_err(|problem| error(problem.to_string()))?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        return Err(error(said.trim().lines().last().unwrap_or("without a message").to_string()).into());
    }
    fs::read(target).with_context(|| format!("reading {}", target.display()))
}

/// The Python of `IAD_PYTHON`, that beside the libtorch of this build, or the system's.
fn python() -> PathBuf {
    let set_up = Path::new(option_env!("LIBTORCH").unwrap_or("")).join("../../../../bin/python");
    let set_up = || set_up.canonicalize().ok().map(|_| set_up.clone());
    std::env::var_os(PYTHON).map(PathBuf::from).or_else(set_up).unwrap_or_else(|| "python3".into())
}
