// Graphs of CUDA. The one file that names CUDA symbols: a library of its own, which the program carries and loads on demand.

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>

#include "graph.hpp"

namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

struct CudaGraph : iad::Graph {
    at::cuda::CUDAGraph graph;
    const at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
    c10::DeviceIndex device = -1;

    void begin() override {
        device = c10::cuda::getCurrentCUDAStream().device_index();
        // A graph has memory of its own, and calls before it have left theirs.
        allocator::emptyCache();
        // Other threads go on meanwhile: they watch sums and send numbers to the host, which no capture of theirs forbids.
        unless_failed([&] { graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal); });
    }

    void end() override {
        unless_failed([&] { graph.capture_end(); });
    }

    void replay() override { graph.replay(); }

    // A capture that fails leaves both allocators waiting for its end, its memory taken, and an error where the next call
    // would find it.
    template <typename Act>
    void unless_failed(Act act) {
        try {
            act();
        } catch (...) {
            // One attempt each: a capture that fails late has ended the allocation already, and its pool must still go.
            attempt([&] { allocator::endAllocateToPool(device, pool); });
            attempt([&] { allocator::releasePool(device, pool); });
            attempt([&] { at::getHostAllocator(at::kCUDA)->end_allocate_to_pool(pool); });
            attempt([&] { at::getHostAllocator(at::kCUDA)->release_pool(pool); });
            (void)cudaGetLastError();
            throw;
        }
    }

    template <typename Act>
    static void attempt(Act act) {
        try {
            act();
        } catch (...) { // It had not begun, or had ended.
        }
    }
};

} // namespace

extern "C" iad::Graph *iad_new_cuda_graph() { return new CudaGraph; }
