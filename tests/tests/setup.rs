//! Which MPI set-up takes, and that it notices another one. The functions of `scripts/setup-cargo.sh` are called one by one,
//! with pretended compilers; nothing is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use tests::{World, checkout};

/// What bash says to `commands` after reading the functions of set-up.
fn with_functions_of_setup(world: &World, mpicc: &Path, commands: &str) -> Result<String> {
    let functions = checkout().join("scripts/setup-cargo.sh");
    let begin = "set -euo pipefail; say() { echo \"set-up: $*\"; }; die() { echo \"$2\"; exit $1; }; . \"$0\"; ";
    let mut command = Command::new("bash");
    command.args(["-c", &format!("{begin}{commands}")]).arg(functions);
    command.env("MPICC", mpicc).env("CARGO_TARGET_DIR", world.path("target")).env_remove("IAD_MPIRUN");
    let ended = command.output()?;
    let said = String::from_utf8_lossy(&ended.stdout).trim().to_string();
    ensure!(ended.status.success(), "{commands}: {said}\n{}", String::from_utf8_lossy(&ended.stderr));
    Ok(said)
}

/// A program that prints `text`.
fn program(path: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, format!("#!/bin/sh\necho '{text}'\n"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[test]
fn mpirun_is_that_of_the_same_mpi() -> Result<()> {
    let world = World::new()?;
    for (mpicc, others, expected) in [
        ("both/mpicc.mpich", vec!["mpirun", "mpirun.openmpi", "mpirun.mpich"], "mpirun.mpich"),
        ("both/mpicc.openmpi", vec![], "mpirun.openmpi"),
        ("both/mpicc", vec![], "mpirun"),
        ("module/mpicc", vec!["mpirun", "mpiexec"], "mpirun"),
        ("hydra/mpicc", vec!["mpiexec"], "mpiexec"),
        ("hydra/mpicc.mpich", vec![], "mpiexec"),
    ] {
        let mpicc = world.path(mpicc);
        let folder = mpicc.parent().unwrap_or(&mpicc);
        program(&mpicc, "gcc -lmpi")?;
        others.iter().try_for_each(|other| program(&folder.join(other), ""))?;
        let found = with_functions_of_setup(&world, &mpicc, "find_mpi; echo \"$mpirun\"")?;
        assert_eq!(Path::new(&found), folder.join(expected), "{}", mpicc.display());
    }
    Ok(())
}

#[test]
fn what_another_mpi_built_is_built_again_and_nothing_else() -> Result<()> {
    let world = World::new()?;
    let mpicc = world.path("bin/mpicc");
    let built = |name: &str| world.path("target/release/build").join(name);
    program(&world.path("bin/mpirun"), "")?;
    let notice = |link: &str| {
        program(&mpicc, link)?;
        for name in ["mpi-sys-1", "comm-2", "hdf5-sys-3"] {
            fs::create_dir_all(built(name))?;
        }
        with_functions_of_setup(&world, &mpicc, "find_mpi; notice_mpi")
    };
    let left = || ["mpi-sys-1", "comm-2", "hdf5-sys-3"].map(|name| built(name).exists());
    // Nothing tells what built these.
    assert!(notice("gcc -lmpi")?.contains("another one"));
    assert_eq!(left(), [false, false, true]);
    assert_eq!(notice("gcc -lmpi")?, "");
    assert_eq!(left(), [true; 3]);
    // The same name leads to another MPI now.
    assert!(notice("gcc -lmpich")?.contains("another one"));
    assert_eq!(left(), [false, false, true]);
    Ok(())
}
