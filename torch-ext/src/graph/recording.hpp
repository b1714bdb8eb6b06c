#pragma once

#include <ATen/Tensor.h>

#include "graph.hpp"

// A graph of the CPU.
iad::Graph *iad_new_recording();

// Whether this thread records the CPU's operations.
bool iad_records_operations();

// Adds a call to the recording of this thread: each replay makes it in its place, with the tensor or with null. Takes ownership
// of `context`, which `drop` frees with the recording.
void iad_record(void *context, bool (*call)(void *, at::Tensor *), void (*drop)(void *), at::Tensor *tensor);
