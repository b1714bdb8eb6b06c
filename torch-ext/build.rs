//! Compiles the C++ shim against the libtorch that `scripts/setup` chose.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src");
    let sources = [
        "library",
        "device",
        "gradient",
        "batch_norm",
        "fused_batch_norm",
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
