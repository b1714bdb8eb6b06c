//! Builds the C libraries of the tests: a stand-in for NCCL and the CUDA driver, and a disk that fails. The program never
//! links them.

use std::env;
use std::path::{Path, PathBuf};
use std::{fs, os::unix::fs::symlink};

fn main() {
    build_stand_in();
    build_disk();
}

fn build_disk() {
    println!("cargo:rerun-if-changed=disk");
    let library = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("libdisk.so");
    let mut compiler = cc::Build::new().warnings(true).extra_warnings(true).pic(true).get_compiler().to_command();
    compiler.args(["-std=gnu11", "-shared", "-o"]).arg(&library).args(["disk/disk.c", "-ldl"]);
    assert!(compiler.status().expect("starting the C compiler").success(), "the failing disk does not compile");
    println!("cargo:rustc-env=IAD_DISK_LIBRARY={}", library.display());
}

/// A program that makes the calls which a capture refuses, on the stand-in itself.
fn build_refusals(library: &Path) {
    let program = library.with_file_name("captures");
    let mut compiler = cc::Build::new().warnings(true).extra_warnings(true).get_compiler().to_command();
    compiler.args(["-std=gnu11", "-pthread", "-o"]).arg(&program).arg("stand-in/tests/captures.c").arg(library);
    compiler.arg(format!("-Wl,-rpath,{}", library.with_file_name("").display()));
    assert!(compiler.status().expect("starting the C compiler").success(), "the test of captures does not compile");
    println!("cargo:rustc-env=IAD_STAND_IN_CAPTURES={}", program.display());
}

fn build_stand_in() {
    println!("cargo:rerun-if-changed=stand-in");
    println!("cargo:rustc-env=IAD_STAND_IN={}", build_stand_in_as("stand-in", &[]).display());
    // An NCCL from before 2.27.
    let old = build_stand_in_as("stand-in-without-windows", &["-DWITHOUT_WINDOWS"]);
    println!("cargo:rustc-env=IAD_STAND_IN_WITHOUT_WINDOWS={}", old.display());
}

/// The folder of a stand-in of this name.
fn build_stand_in_as(name: &str, flags: &[&str]) -> PathBuf {
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join(name);
    fs::create_dir_all(&folder).expect("making a folder for the stand-in");
    let library = folder.join("libnccl.so");
    let mut compiler = cc::Build::new().warnings(true).extra_warnings(true).pic(true).get_compiler().to_command();
    compiler.args(["-std=gnu11", "-shared", "-pthread", "-o"]).arg(&library).args(flags);
    let sources = ["driver", "capture", "kernels", "nccl"].map(|name| format!("stand-in/{name}.c"));
    let status = compiler.args(sources).arg("-lm").status().expect("starting the C compiler");
    assert!(status.success(), "the stand-in does not compile");
    if flags.is_empty() {
        build_refusals(&library);
    }
    // One file by two names is one library in a process.
    let driver = folder.join("libcuda.so");
    if !driver.exists() {
        symlink("libnccl.so", &driver).expect("linking the stand-in's second name");
    }
    folder
}
