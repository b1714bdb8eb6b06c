// Functions of the Rust side in libtorch's graph: the result is known, and a callback gives the gradients.

#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/custom_function.h>

#include <memory>
#include <vector>

#include "guarded.hpp"

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Gradient of the result, saved tensors, whether each gradient is wanted, and places for the gradients.
using Call = void (*)(void *, Tensor *, Tensor *const *, size_t, const bool *, Tensor **, size_t);

// The function of the Rust side. Owned by every graph that uses it.
struct Backward : torch::CustomClassHolder {
    void *context;
    Call call;
    void (*drop)(void *);
    Backward(void *context, Call call, void (*drop)(void *)) : context(context), call(call), drop(drop) {}
    ~Backward() override { drop(context); }
};

struct KnownBackward : torch::autograd::Function<KnownBackward> {
    static Tensor forward(AutogradContext *context, at::TensorList inputs, const variable_list &saved,
                          const std::vector<Tensor> *result, const c10::intrusive_ptr<Backward> &backward) {
        context->save_for_backward(saved);
        context->saved_data["inputs"] = static_cast<int64_t>(inputs.size());
        context->saved_data["backward"] = c10::IValue::make_capsule(backward);
        return result->front();
    }

    static variable_list backward(AutogradContext *context, const variable_list &gradients) {
        TORCH_CHECK(!at::GradMode::is_enabled(), "a fused kernel has no second derivative");
        const auto count = static_cast<size_t>(context->saved_data["inputs"].toInt());
        const auto capsule = context->saved_data["backward"].toCapsule();
        const auto &function = static_cast<const Backward &>(*capsule);
        variable_list saved = context->get_saved_variables();
        std::vector<Tensor *> places;
        for (Tensor &tensor : saved) places.push_back(&tensor);
        const auto wanted = std::make_unique<bool[]>(count);
        for (size_t input = 0; input < count; ++input) wanted[input] = context->needs_input_grad(input);
        Tensor gradient = gradients[0];
        std::vector<Tensor *> found(count, nullptr);
        function.call(function.context, &gradient, places.data(), places.size(), wanted.get(), found.data(), count);
        variable_list all(count + 3); // the other arguments of `forward` have none
        for (size_t input = 0; input < count; ++input) {
            if (const std::unique_ptr<Tensor> owned{found[input]}) all[input] = *owned;
        }
        return all;
    }
};

} // namespace

extern "C" {

// `result` names the known result and takes the answer, which belongs to the caller. Takes ownership of `context`.
char *iad_with_backward(Tensor **result, Tensor *const *inputs, size_t input_count, Tensor *const *saved,
                        size_t saved_count, void *context, Call call, void (*drop)(void *)) {
    return guarded([&] {
        const auto backward = c10::make_intrusive<Backward>(context, call, drop);
        const auto list = [](Tensor *const *tensors, size_t count) {
            variable_list all;
            for (size_t place = 0; place < count; ++place) all.push_back(*tensors[place]);
            return all;
        };
        const variable_list values = list(inputs, input_count);
        const std::vector<Tensor> known{**result};
        *result = new Tensor(KnownBackward::apply(at::TensorList(values), list(saved, saved_count), &known, backward));
    });
}

} // extern "C"
