//! Compiles the C++ shim against the libtorch that `scripts/setup` chose.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src");
    let sources = ["shim", "precision", "update", "device", "graph", "graph/recording"];
    println!("cargo:rerun-if-env-changed=LIBTORCH");
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

/// Makes the library that names CUDA's symbols, which the program carries as bytes and loads where there is a GPU; nothing
/// where libtorch came without CUDA's headers. Its symbols are those of libtorch's CUDA half, which is in the process by then.
fn cuda_library(libtorch: &Path) {
    let out = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default());
    let library = out.join("libiad_cuda.so");
    let headers = libtorch.join("../nvidia/cu13/include");
    let needed = [
        headers.join("cuda_runtime_api.h"),
        headers.join("crt/host_defines.h"),
        libtorch.join("include/ATen/cuda/CUDAGraph.h"),
        libtorch.join("lib/libtorch_cuda.so"),
    ];
    if let Some(missing) = needed.iter().find(|file| !file.is_file()) {
        println!("cargo:warning=no {}: precision.cuda_graphs will not be there", missing.display());
        return std::fs::write(library, b"").unwrap_or_else(|error| panic!("{error}"));
    }
    let mut build = compiler(libtorch);
    build.flag(format!("-isystem{}", headers.display())).pic(true).cargo_metadata(false);
    let mut command = build.get_compiler().to_command();
    command.args(["-shared", "-s", "src/graph/cuda.cpp", "-o"]).arg(&library);
    match command.status() {
        Ok(status) if status.success() => {}
        other => panic!("{command:?}: {other:?}"),
    }
}
