// Streams, events and memory of GPUs, through libc10's device interfaces: no CUDA symbol is named, so one program serves all
// machines.

#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <dlfcn.h>

#include "guarded.hpp"

extern "C" {

// The stream on which libtorch queues this thread's work for GPU `device`.
char *iad_current_stream(int device, void **stream) {
    return guarded([&] {
        const at::Device place(at::kCUDA, static_cast<c10::DeviceIndex>(device));
        *stream = c10::impl::getDeviceGuardImpl(at::kCUDA)->getStream(place).native_handle();
    });
}

// A copy of `tensor` in page-locked memory of the host, from which a GPU copies while the host continues. The call names no
// device: libtorch 2.11 deprecates that argument and writes two warnings for every call that has it.
char *iad_page_locked(const at::Tensor *tensor, at::Tensor **copy) {
    return guarded([&] { *copy = new at::Tensor(tensor->pin_memory()); });
}

// Records a new event behind the work queued so far on the current stream of CUDA device `index`.
char *iad_event_record(int index, c10::Event **event) {
    return guarded([&] {
        const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
        const auto device = static_cast<c10::DeviceIndex>(index);
        auto recorded = std::make_unique<c10::Event>(c10::DeviceType::CUDA, c10::EventFlag::BACKEND_DEFAULT);
        recorded->record(guard.getStream({c10::DeviceType::CUDA, device}));
        *event = recorded.release();
    });
}

char *iad_event_wait(const c10::Event *event) {
    return guarded([&] { event->synchronize(); });
}

char *iad_event_milliseconds(const c10::Event *from, const c10::Event *to, double *milliseconds) {
    return guarded([&] { *milliseconds = from->elapsedTime(*to); });
}

void iad_event_free(c10::Event *event) { delete event; }

// What libtorch does with operations that wait for a GPU: 0 nothing, 1 a warning, 2 an error; `before` is what it did.
char *iad_set_sync_debug(int mode, int *before) {
    return guarded([&] {
        // c10::cuda::warning_state() is inline: its one object, whose first and only member is the mode, is what libraries share.
        auto *state = static_cast<int *>(dlsym(RTLD_DEFAULT, "_ZZN3c104cuda13warning_stateEvE14warning_state_"));
        if (state == nullptr) throw std::runtime_error("libtorch's CUDA half is not loaded");
        *before = *state;
        *state = mode;
    });
}

// The most bytes that tensors have held on CUDA device `index`.
char *iad_peak_memory(int index, int64_t *bytes) {
    return guarded([&] {
        const auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)
                               ->getDeviceStats(static_cast<c10::DeviceIndex>(index));
        *bytes = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
    });
}

} // extern "C"
