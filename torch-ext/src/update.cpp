// The optimizer's update in one pass over its buffers.

#include <ATen/ops/_fused_sgd.h>
#include <ATen/Tensor.h>

#include <vector>

#include "guarded.hpp"

extern "C" {

// `velocity` may be null where the momentum is 0. The rate is `rate_on_device` if that is not null.
char *iad_fused_sgd(at::Tensor *values, at::Tensor *gradients, at::Tensor *velocity, const at::Tensor *stay,
                    double momentum, double weight_decay, double rate, const at::Tensor *rate_on_device) {
    return guarded([&] {
        std::vector<at::Tensor> buffers;
        if (velocity != nullptr) buffers.push_back(*velocity);
        const auto update = [&](const auto &rate) {
            at::_fused_sgd_({*values}, {*gradients}, buffers, weight_decay, momentum, rate, /*dampening=*/0.0,
                            /*nesterov=*/false, /*maximize=*/false, /*is_first_step=*/false, /*grad_scale=*/{}, *stay);
        };
        if (rate_on_device != nullptr) update(*rate_on_device);
        else update(rate);
    });
}

} // extern "C"
