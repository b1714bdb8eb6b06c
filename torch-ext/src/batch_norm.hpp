// What batch norm over the ranks asks of the Rust side.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>

namespace iad {

// A function of the Rust side that replaces a tensor by its sum over the ranks. Owned by every graph that uses it. Where it fails
// it answers false and leaves the reason, which becomes an exception here.
struct SumAcrossRanks : torch::CustomClassHolder {
    using Call = bool (*)(void *context, at::Tensor *tensor, char *reason, size_t room);
    using Drop = void (*)(void *context);
    void *context;
    Call call;
    Drop drop;
    SumAcrossRanks(void *context, Call call, Drop drop) : context(context), call(call), drop(drop) {}
    ~SumAcrossRanks() override { drop(context); }
    void operator()(at::Tensor &tensor) const {
        char reason[2048] = "";
        TORCH_CHECK(call(context, &tensor, reason, sizeof reason), reason);
    }
};
using Sum = c10::intrusive_ptr<SumAcrossRanks>;

} // namespace iad
