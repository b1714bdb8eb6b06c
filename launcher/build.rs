//! Records which commit and which mpirun the program belongs to.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=IAD_MPIRUN");
    println!("cargo:rerun-if-changed=../.git/HEAD");
    println!("cargo:rerun-if-changed=../.git/refs/heads");
    let described = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let commit = described.ok().filter(|output| output.status.success());
    let commit = commit.map_or("unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    println!("cargo:rustc-env=IAD_COMMIT={commit}");
    println!("cargo:rustc-env=IAD_MPIRUN={}", std::env::var("IAD_MPIRUN").unwrap_or_else(|_| "mpirun".into()));
}
