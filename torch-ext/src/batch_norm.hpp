// What batch norm over the ranks asks of the Rust side.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>

namespace iad {

// A function of the Rust side that replaces a tensor by its sum over the ranks. Owned by every graph that uses it.
struct SumAcrossRanks : torch::CustomClassHolder {
    void *context;
    void (*call)(void *, at::Tensor *);
    void (*drop)(void *);
    SumAcrossRanks(void *context, void (*call)(void *, at::Tensor *), void (*drop)(void *))
        : context(context), call(call), drop(drop) {}
    ~SumAcrossRanks() override { drop(context); }
    void operator()(at::Tensor &tensor) const { call(context, &tensor); }
};
using Sum = c10::intrusive_ptr<SumAcrossRanks>;

} // namespace iad
