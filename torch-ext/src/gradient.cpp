// Where backward passes put gradients, and what they call when a gradient is there.

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>

#include "guarded.hpp"

namespace {

using at::Tensor;

// A function of the Rust side to call when a backward pass has added to a parameter's gradient. Owned by the parameter.
struct GradientReady : torch::autograd::PostAccumulateGradHook {
    void *context;
    void (*call)(void *);
    void (*drop)(void *);
    GradientReady(void *context, void (*call)(void *), void (*drop)(void *))
        : context(context), call(call), drop(drop) {}
    ~GradientReady() override { drop(context); }
    void operator()(const torch::autograd::Variable &) override { call(context); }
};

} // namespace

extern "C" {

// Makes `gradient` the place where backward passes add up the gradient of `parameter`.
char *iad_set_gradient(Tensor *parameter, Tensor *gradient) {
    return guarded([&] {
        TORCH_CHECK(parameter->sizes() == gradient->sizes() && parameter->options().type_equal(gradient->options()),
                    "the gradient has shape ", gradient->sizes(), ", the parameter ", parameter->sizes());
        parameter->mutable_grad() = *gradient;
    });
}

// Calls `call(context)` after each backward pass that reaches `parameter`, on the thread of the pass. Takes ownership of
// `context`, which `drop` frees with the parameter or its next hook.
char *iad_on_gradient(Tensor *parameter, void *context, void (*call)(void *), void (*drop)(void *)) {
    return guarded([&] {
        auto hook = std::make_unique<GradientReady>(context, call, drop);
        TORCH_CHECK(parameter->is_leaf() && parameter->requires_grad(), "not a parameter: no gradient arrives there");
        torch::autograd::impl::set_post_acc_grad_hooks(*parameter, std::move(hook));
    });
}

} // extern "C"
