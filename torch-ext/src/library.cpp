// libtorch as a whole: its version, its CUDA half, its allocator and its global settings.

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>
#include <malloc.h>
#include <torch/version.h>

#include <cstdlib>

#include "guarded.hpp"

extern "C" {

void iad_free(char *message) { free(message); }

const char *iad_version() { return TORCH_VERSION; }

// Loads the CUDA half of libtorch into the process. The linker drops it from a program that names none of its symbols.
char *iad_load_cuda() {
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr) return nullptr;
    const char *reason = dlerror();
    return strdup(reason ? reason : "libtorch_cuda.so could not be loaded");
}

// The CUDA that libtorch was built for, as in 13000 for 13.0.
char *iad_cuda_version(int64_t *version) {
    return guarded([&] { *version = at::detail::getCUDAHooks().versionCUDART(); });
}

// glibc gives every large block back to the kernel when it is freed, and takes it again zeroed, page by page: for tensors of
// the same sizes pass after pass that is a good part of a pass. Kept blocks are used again.
void iad_keep_memory() {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

// Full single precision and repeatable algorithms on GPUs.
char *iad_exact_arithmetic() {
    return guarded([] {
        auto &context = at::globalContext();
        context.setDeterministicCuDNN(true);
        context.setBenchmarkCuDNN(false);
        context.setAllowTF32CuDNN(false);
        context.setAllowTF32CuBLAS(false);
    });
}

} // extern "C"
