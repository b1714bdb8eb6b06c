//! A Python with PyTorch, for tests that hold the program against it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::checkout;

/// A Python interpreter with the modules that a test needs.
pub struct Python {
    interpreter: PathBuf,
    folder: PathBuf,
}

/// The interpreter that set-up installed beside libtorch, or that of the system, if `imports` work in it.
pub fn python(imports: &str) -> Option<Python> {
    let installed = Path::new(option_env!("LIBTORCH").unwrap_or("")).join("../../../../bin/python");
    let works = |python: &PathBuf| {
        Command::new(python).args(["-c", imports]).output().is_ok_and(|ended| ended.status.success())
    };
    [installed, PathBuf::from("python3")]
        .into_iter()
        .find(works)
        .map(|interpreter| Python { interpreter, folder: PathBuf::from(".") })
}

impl Python {
    /// The interpreter.
    pub fn path(&self) -> &Path {
        &self.interpreter
    }

    /// The same, started in `folder`.
    pub fn within(self, folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), ..self }
    }

    /// Runs a script of `tests/fixtures` and returns what it printed.
    ///
    /// # Errors
    /// It cannot be started, or fails; with what it said.
    pub fn script(&self, name: &str, arguments: &[&OsStr]) -> Result<String> {
        self.run(&checkout().join("tests/fixtures").join(name), arguments)
    }

    /// Runs any script and returns what it printed.
    ///
    /// # Errors
    /// It cannot be started, or fails; with what it said.
    pub fn run(&self, script: &Path, arguments: &[&OsStr]) -> Result<String> {
        let mut command = Command::new(&self.interpreter);
        command.arg(script).args(arguments).env("OMP_NUM_THREADS", "1").current_dir(&self.folder);
        let ended = command.output();
        let ended = ended.with_context(|| format!("starting {}", self.interpreter.display()))?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "{} failed:\n{said}", script.display());
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }
}
