// Batch normalisation whose statistics are those of the batch over all ranks.

#include <torch/csrc/autograd/custom_function.h>

#include "batch_norm.hpp"
#include "guarded.hpp"

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using iad::Sum;
using iad::SumAcrossRanks;

// Batch normalisation with the statistics of the batch over all ranks. Sums travel in float64, so that the variance as
// E[x^2] - E[x]^2 keeps its digits. A rank without samples joins every sum with zeros.
struct BatchNormAcrossRanks : torch::autograd::Function<BatchNormAcrossRanks> {
    static variable_list forward(AutogradContext *context, const Tensor &images, const Tensor &weight,
                                 const Tensor &bias, double epsilon, const Sum &sum) {
        const int64_t channels = weight.size(0);
        Tensor sums = at::zeros({2 * channels + 1}, images.options().dtype(at::kDouble));
        if (images.numel() > 0) {
            const auto elements = static_cast<double>(images.numel() / channels);
            // Running statistics that go nowhere: by their type, those of bfloat16 images come in single precision.
            Tensor aside = at::zeros({2, channels}, weight.options());
            auto [local_mean, local_variance] = at::batch_norm_update_stats(images, aside[0], aside[1], 0.0);
            local_mean = local_mean.to(at::kDouble);
            local_variance = local_variance.to(at::kDouble);
            sums.slice(0, 0, channels).copy_(local_mean * elements);
            sums.slice(0, channels, 2 * channels).copy_((local_variance + local_mean * local_mean) * elements);
            sums.slice(0, 2 * channels).fill_(elements);
        }
        (*sum)(sums);
        const Tensor count = sums.slice(0, 2 * channels);
        const Tensor wide_mean = sums.slice(0, 0, channels) / count;
        const Tensor wide_variance = sums.slice(0, channels, 2 * channels) / count - wide_mean * wide_mean;
        const Tensor mean = wide_mean.to(weight.scalar_type());
        const Tensor variance = wide_variance.clamp_min(0).to(weight.scalar_type());

        const Tensor output = images.numel() > 0
                                  ? at::batch_norm(images, weight, bias, mean, variance, false, 0.0, epsilon, false)
                                  : at::empty_like(images);
        context->save_for_backward({images, weight, mean, variance, count});
        context->saved_data["epsilon"] = epsilon;
        context->saved_data["sum"] = c10::IValue::make_capsule(sum);
        context->mark_non_differentiable({mean, variance, count});
        return {output, mean, variance, count};
    }

    static variable_list backward(AutogradContext *context, const variable_list &gradients) {
        const auto saved = context->get_saved_variables();
        const Tensor &images = saved[0], &weight = saved[1], &mean = saved[2], &variance = saved[3], &count = saved[4];
        const double epsilon = context->saved_data["epsilon"].toDouble();
        const auto capsule = context->saved_data["sum"].toCapsule();
        const auto &sum = static_cast<const SumAcrossRanks &>(*capsule);

        // With the statistics held fixed; what their dependence on the images adds is a function affine in each image.
        auto [images_gradient, weight_gradient, bias_gradient] =
            images.numel() > 0
                ? at::native_batch_norm_backward(gradients[0], images, weight, mean, variance, {}, {}, false, epsilon,
                                                 {true, true, true})
                : std::make_tuple(at::zeros_like(images), at::zeros_like(weight), at::zeros_like(weight));
        Tensor sums = at::cat({weight_gradient, bias_gradient}).to(at::kDouble);
        sum(sums);
        const int64_t channels = weight.size(0);
        const Tensor inverse_deviation = (variance.to(at::kDouble) + epsilon).rsqrt();
        const Tensor scale = weight.to(at::kDouble) * inverse_deviation / count;
        const Tensor slope = scale * inverse_deviation * sums.slice(0, 0, channels);
        const Tensor offset = scale * sums.slice(0, channels) - slope * mean.to(at::kDouble);

        std::vector<int64_t> over_channels(images.dim(), 1);
        over_channels[1] = channels;
        const auto images_type = images.scalar_type(), type = weight.scalar_type();
        // In the type of the weight: a mean that bfloat16 rounds would be wrong for all images alike.
        images_gradient = images_gradient.to(type);
        images_gradient.addcmul_(images, slope.to(type).view(over_channels), -1);
        images_gradient.sub_(offset.to(type).view(over_channels));
        return {images_gradient.to(images_type), weight_gradient, bias_gradient, Tensor(), Tensor()};
    }
};

} // namespace

extern "C" {

// outputs: four places for output, mean, variance (biased) and element count. Takes ownership of `context`.
char *iad_batch_norm_across_ranks(Tensor **outputs, Tensor *images, Tensor *weight, Tensor *bias, double epsilon,
                                  void *context, SumAcrossRanks::Call call, SumAcrossRanks::Drop drop) {
    return guarded([&] {
        const auto sum = c10::make_intrusive<SumAcrossRanks>(context, call, drop);
        const auto results = BatchNormAcrossRanks::apply(*images, *weight, *bias, epsilon, sum);
        for (size_t place = 0; place < results.size(); ++place) outputs[place] = new Tensor(results[place]);
    });
}

} // extern "C"
