//! Compiles the C++ shim against the libtorch that `scripts/setup` chose, and the fused kernels where there is Triton.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=src");
    let sources = [
        "library",
        "device",
        "gradient",
        "batch_norm",
        "fused_batch_norm",
        "known_backward",
        "precision",
        "update",
        "graph",
        "graph/recording",
    ];
    for variable in ["LIBTORCH", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let Ok(libtorch) = std::env::var("LIBTORCH") else {
        panic!("LIBTORCH is not set: run scripts/setup first (it writes .cargo/config.toml)");
    };
    let libtorch = Path::new(&libtorch);
    let mut shim = compiler(libtorch);
    shim.files(sources.map(|source| format!("src/{source}.cpp"))).compile("iad_torch_shim");
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    for library in ["torch_cpu", "c10", "dl"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    cuda_library(libtorch);
    fused_kernels(libtorch);
}

fn compiler(libtorch: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        // As system headers: their warnings are not ours.
        .flag(format!("-isystem{}", libtorch.join("include").display()))
        .flag(format!("-isystem{}", libtorch.join("include/torch/csrc/api/include").display()))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .flag_if_supported("-Wno-unused-parameter");
    build
}

/// The folder of CUDA's own headers: in the wheels beside libtorch (`cu13` of CUDA 13, `cuda_runtime` of CUDA 12), in the
/// toolkit that CUDA_HOME or CUDA_PATH names, or in the usual place of a toolkit. None where libtorch itself lacks CUDA.
fn cuda_headers(libtorch: &Path) -> Option<PathBuf> {
    let needed = ["include/ATen/cuda/CUDAGraph.h", "lib/libtorch_cuda.so"];
    if !needed.iter().all(|file| libtorch.join(file).is_file()) {
        return None;
    }
    let wheels = ["cu13", "cuda_runtime"].map(|wheel| libtorch.join("../nvidia").join(wheel));
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let folders = wheels.into_iter().chain(toolkits).chain([PathBuf::from("/usr/local/cuda")]);
    let complete = |folder: &PathBuf| {
        ["cuda_runtime_api.h", "crt/host_defines.h"].iter().all(|header| folder.join(header).is_file())
    };
    folders.map(|folder| folder.join("include")).find(complete)
}

/// Makes the library that names CUDA's symbols, which the program carries as bytes and loads where there is a GPU; nothing
/// where libtorch came without CUDA's headers. Its symbols are those of libtorch's CUDA half, which is in the process by then.
fn cuda_library(libtorch: &Path) {
    let out = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default());
    let library = out.join("libiad_cuda.so");
    let Some(headers) = cuda_headers(libtorch) else {
        println!("cargo:warning=no CUDA headers of this libtorch: precision.cuda_graphs will not be there");
        return std::fs::write(library, b"").unwrap_or_else(|error| panic!("{error}"));
    };
    let mut build = compiler(libtorch);
    build.flag(format!("-isystem{}", headers.display())).pic(true).cargo_metadata(false);
    let mut command = build.get_compiler().to_command();
    command.args(["-shared", "-s", "src/graph/cuda.cpp", "-o"]).arg(&library);
    match command.status() {
        Ok(status) if status.success() => {}
        other => panic!("{command:?}: {other:?}"),
    }
}

/// Compiles the kernels of `kernels/` for GPUs that need not be here, with Triton of the Python beside libtorch or of the
/// system; an empty table where none has it.
fn fused_kernels(libtorch: &Path) {
    println!("cargo:rerun-if-changed=kernels");
    let out = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default());
    let has_triton = |python: &PathBuf| {
        Command::new(python).args(["-c", "import triton"]).output().is_ok_and(|ended| ended.status.success())
    };
    let pythons = [libtorch.join("../../../../bin/python"), PathBuf::from("python3")];
    let reason = match pythons.into_iter().find(has_triton) {
        None => "no Python with Triton".to_string(),
        Some(python) => match Command::new(&python).arg("kernels/compile.py").arg(&out).output() {
            Ok(ended) if ended.status.success() => return,
            Ok(ended) => {
                String::from_utf8_lossy(&ended.stderr).lines().last().unwrap_or("compile.py failed").to_string()
            }
            Err(error) => error.to_string(),
        },
    };
    println!("cargo:warning=no fused kernels, which precision.fused asks for: {reason}");
    std::fs::write(out.join("kernels.rs"), b"&[]").unwrap_or_else(|error| panic!("{error}"));
}
