// The optimizer's update in one pass over its buffers.

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/Tensor.h>

#include <vector>

#include "guarded.hpp"

extern "C" {

// `velocity` may be null where the momentum is 0. The rate is `rate_on_device` if that is not null.
char *iad_fused_sgd(at::Tensor *values, at::Tensor *gradients, at::Tensor *velocity, const at::Tensor *stay,
                    double momentum, bool nesterov, double weight_decay, double rate, const at::Tensor *rate_on_device) {
    return guarded([&] {
        std::vector<at::Tensor> buffers;
        if (velocity != nullptr) buffers.push_back(*velocity);
        const auto update = [&](const auto &rate) {
            at::_fused_sgd_({*values}, {*gradients}, buffers, weight_decay, momentum, rate, /*dampening=*/0.0,
                            nesterov, /*maximize=*/false, /*is_first_step=*/false, /*grad_scale=*/{}, *stay);
        };
        if (rate_on_device != nullptr) update(*rate_on_device);
        else update(rate);
    });
}

// `moments` are the means of the gradients and of their squares. `steps` counts the updates, this one included.
char *iad_fused_adamw(at::Tensor *values, at::Tensor *gradients, at::Tensor *const moments[2], at::Tensor *steps,
                      const at::Tensor *stay, const double betas[2], double eps, double weight_decay, double rate,
                      const at::Tensor *rate_on_device) {
    return guarded([&] {
        const auto update = [&](const auto &rate) {
            at::_fused_adamw_({*values}, {*gradients}, {*moments[0]}, {*moments[1]}, {}, {*steps}, rate, betas[0],
                              betas[1], weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{},
                              *stay);
        };
        if (rate_on_device != nullptr) update(*rate_on_device);
        else update(rate);
    });
}

} // extern "C"
