//! Compiles the C++ shim against the libtorch that `scripts/setup` chose.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=src");
    let sources = ["src/shim.cpp", "src/precision.cpp", "src/update.cpp", "src/device.cpp"];
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Ok(libtorch) = std::env::var("LIBTORCH") else {
        panic!("LIBTORCH is not set: run scripts/setup first (it writes .cargo/config.toml)");
    };
    let libtorch = Path::new(&libtorch);
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .files(sources)
        // As system headers: their warnings are not ours.
        .flag(format!("-isystem{}", libtorch.join("include").display()))
        .flag(format!("-isystem{}", libtorch.join("include/torch/csrc/api/include").display()))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .flag_if_supported("-Wno-unused-parameter")
        .compile("iad_torch_shim");
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    for library in ["torch_cpu", "c10", "dl"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}
