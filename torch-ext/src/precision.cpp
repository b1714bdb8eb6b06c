// Which types libtorch computes in: autocast, TF32, and what the processor is made for.

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/cpu/Utils.h>

#include "guarded.hpp"

extern "C" {

struct IadAutocast {
    bool cuda, enabled, caches;
    int8_t type;
};

// Forward passes of this thread cast to bfloat16 where that is safe. `before` is what iad_autocast_end restores.
char *iad_autocast_begin(bool cuda, IadAutocast *before) {
    return guarded([&] {
        const auto device = cuda ? at::kCUDA : at::kCPU;
        *before = {cuda, at::autocast::is_autocast_enabled(device), at::autocast::is_autocast_cache_enabled(),
                   static_cast<int8_t>(at::autocast::get_autocast_dtype(device))};
        at::autocast::set_autocast_dtype(device, at::kBFloat16);
        // A cast made without gradient has none: a later pass that wants one must not find it.
        at::autocast::set_autocast_cache_enabled(at::GradMode::is_enabled());
        at::autocast::set_autocast_enabled(device, true);
    });
}

char *iad_autocast_end(const IadAutocast *before) {
    return guarded([&] {
        const auto device = before->cuda ? at::kCUDA : at::kCPU;
        at::autocast::set_autocast_enabled(device, before->enabled);
        at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(before->type));
        at::autocast::set_autocast_cache_enabled(before->caches);
    });
}

char *iad_forget_casts() { return guarded([] { at::autocast::clear_cache(); }); }

// Whether convolutions and whether other products of float32 may be rounded to TF32; `before` is how it was. CPUs do not ask.
char *iad_set_tf32(bool convolutions, bool matrices, bool *convolutions_before, bool *matrices_before) {
    return guarded([&] {
        auto &context = at::globalContext();
        *convolutions_before = context.allowTF32CuDNN();
        *matrices_before = context.allowTF32CuBLAS();
        context.setAllowTF32CuDNN(convolutions);
        context.setAllowTF32CuBLAS(matrices);
    });
}

// The instructions for which libtorch has chosen its own kernels on the CPU, as in AVX512; the caller frees the text.
char *iad_cpu_instructions() {
    try {
        return strdup(at::get_cpu_capability().c_str());
    } catch (...) {
        return nullptr;
    }
}

bool iad_fast_bfloat16() {
    try {
        const auto capabilities = at::cpu::get_cpu_capabilities();
        for (const char *name : {"avx512_bf16", "amx_bf16", "arm_bf16", "bf16"}) {
            const auto found = capabilities.find(name);
            if (found != capabilities.end() && found->second.isBool() && found->second.toBool()) return true;
        }
    } catch (...) { // Not known: the caller warns, which is all that depends on it.
    }
    return false;
}

} // extern "C"
