// Graphs of CUDA. The one file that names CUDA symbols: a library of its own, which the program carries and loads on demand.

#include <ATen/cuda/CUDAGraph.h>

#include "graph.hpp"

namespace {

struct CudaGraph : iad::Graph {
    at::cuda::CUDAGraph graph;
    const at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
    c10::DeviceIndex device = -1;

    void begin() override {
        device = c10::cuda::getCurrentCUDAStream().device_index();
        // A graph has memory of its own, and calls before it have left theirs.
        c10::cuda::CUDACachingAllocator::emptyCache();
        // Other threads go on meanwhile: they watch sums and send numbers to the host, which no capture of theirs forbids.
        graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    }

    void end() override {
        try {
            graph.capture_end();
        } catch (...) {
            // A capture that failed leaves the allocator waiting for its end, and the error where the next call finds it.
            try {
                c10::cuda::CUDACachingAllocator::endAllocateToPool(device, pool);
            } catch (...) {
            }
            (void)cudaGetLastError();
            throw;
        }
    }

    void replay() override { graph.replay(); }
};

} // namespace

extern "C" iad::Graph *iad_new_cuda_graph() { return new CudaGraph; }
