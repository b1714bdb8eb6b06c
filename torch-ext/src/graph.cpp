// Graphs of either kind, and the stream they are recorded on.

#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "graph/recording.hpp"
#include "guarded.hpp"

namespace {

// Loads a library from memory, as if it lay in a file.
void *load(const void *bytes, size_t count) {
    const int file = memfd_create("libiad_cuda.so", MFD_CLOEXEC);
    TORCH_CHECK(file >= 0 && write(file, bytes, count) == static_cast<ssize_t>(count), "no memory to load a library from");
    void *library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
    const char *reason = library == nullptr ? dlerror() : nullptr;
    close(file);
    TORCH_CHECK(library != nullptr, reason == nullptr ? "a library could not be loaded" : reason);
    return library;
}

iad::Graph *new_cuda_graph(const void *bytes, size_t count) {
    TORCH_CHECK(count > 0, "this program was built without CUDA's headers");
    static void *const library = load(bytes, count);
    const auto make = reinterpret_cast<iad::Graph *(*)()>(dlsym(library, "iad_new_cuda_graph"));
    TORCH_CHECK(make != nullptr, "iad_new_cuda_graph is missing");
    return make();
}

} // namespace

extern "C" {

// A graph of CUDA, by the library of `count` bytes, or of the CPU.
char *iad_graph_new(bool cuda, const void *bytes, size_t count, iad::Graph **graph) {
    return guarded([&] { *graph = cuda ? new_cuda_graph(bytes, count) : iad_new_recording(); });
}

char *iad_graph_begin(iad::Graph *graph) {
    return guarded([&] { graph->begin(); });
}

char *iad_graph_end(iad::Graph *graph) {
    return guarded([&] { graph->end(); });
}

char *iad_graph_replay(iad::Graph *graph) {
    return guarded([&] { graph->replay(); });
}

bool iad_is_recording_operations() { return iad_records_operations(); }

char *iad_record_call(void *context, bool (*call)(void *, at::Tensor *), void (*drop)(void *), at::Tensor *tensor) {
    return guarded([&] { iad_record(context, call, drop, tensor); });
}

void iad_graph_free(iad::Graph *graph) { delete graph; }

// Whether this thread's operations remember how to take gradients. A panic on the way out of tch's `no_grad` forgets to say.
bool iad_grad_mode() { return at::GradMode::is_enabled(); }

void iad_set_grad_mode(bool enabled) { at::GradMode::set_enabled(enabled); }

// Queues this thread's work for CUDA device `index` on a stream of its own from here on; `before` is the one it was on.
char *iad_own_stream(int index, int64_t *before) {
    return guarded([&] {
        const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
        const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
        // What follows asks for the current device, which a stream does not choose.
        guard.setDevice(device);
        *before = guard.exchangeStream(guard.getStreamFromGlobalPool(device)).id();
    });
}

char *iad_return_to_stream(int index, int64_t stream) {
    return guarded([&] {
        const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
        const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
        guard.exchangeStream(c10::Stream(c10::Stream::UNSAFE, device, stream));
    });
}

} // extern "C"
