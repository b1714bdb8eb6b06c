// Batch normalisation over the ranks by libtorch's kernels for it. They exist on GPUs alone; elsewhere their formulas, written
// out, stand in for them, so that everything around them can be tested without a GPU.

#include <torch/csrc/autograd/custom_function.h>

#include <limits>
#include <map>
#include <mutex>

#include "batch_norm.hpp"
#include "guarded.hpp"

namespace {

using at::Tensor;
using iad::SumAcrossRanks;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Values that a rank without images counts for. The kernel that merges statistics divides by the count so far, which may not
// be 0; it counts in whole numbers, and in sums with them this is nothing.
constexpr double NO_VALUES = 1e-30;

// --- the five kernels ------------------------------------------------------------------------------------------------

// Per channel, in the shape of `images`.
Tensor channels_of(const Tensor &values, const Tensor &images) {
    std::vector<int64_t> shape(images.dim(), 1);
    shape[1] = values.numel();
    return values.view(shape);
}

std::vector<int64_t> all_but_channels(const Tensor &images) {
    std::vector<int64_t> dimensions;
    for (int64_t dimension = 0; dimension < images.dim(); ++dimension) {
        if (dimension != 1) dimensions.push_back(dimension);
    }
    return dimensions;
}

// Mean and reciprocal deviation per channel, of this rank's images.
std::tuple<Tensor, Tensor> measure(const Tensor &images, at::ScalarType type, double epsilon) {
    if (images.is_cuda()) return at::batch_norm_stats(images, epsilon);
    const auto [variance, mean] = at::var_mean(images.to(type), all_but_channels(images), 0.0, false);
    return {mean, (variance + epsilon).rsqrt()};
}

// The statistics of all ranks from those of each, a row of `means` and `inverses` and an element of `counts`. Running statistics
// take them up, the variance times n / (n - 1), where there are any.
std::tuple<Tensor, Tensor> merge(const Tensor &table, const std::optional<Tensor> &running_mean,
                                 const std::optional<Tensor> &running_variance, double momentum, double epsilon) {
    const int64_t channels = (table.size(1) - 1) / 2;
    const Tensor means = table.narrow(1, 0, channels), inverses = table.narrow(1, channels, channels);
    const Tensor counts = table.select(1, 2 * channels);
    if (table.is_cuda()) {
        // By its first argument the kernel knows the type of the counts where there are no running statistics.
        return at::batch_norm_gather_stats_with_counts(table, means, inverses, running_mean, running_variance,
                                                       momentum, epsilon, counts);
    }
    const Tensor column = counts.view({-1, 1}), count = counts.sum();
    const Tensor mean = (means * column).sum(0) / count;
    const Tensor variances = inverses.pow(-2) - epsilon + (means - mean).square();
    const Tensor variance = (variances * column).sum(0) / count;
    if (running_mean.has_value()) {
        running_mean->mul_(1 - momentum).add_(mean, momentum);
        running_variance->mul_(1 - momentum).add_(variance * (count / (count - 1)), momentum);
    }
    return {mean, (variance + epsilon).rsqrt()};
}

Tensor normalise(const Tensor &images, const Tensor &weight, const Tensor &bias, const Tensor &mean, const Tensor &inverse,
                 double epsilon) {
    if (images.is_cuda()) return at::batch_norm_elemt(images, weight, bias, mean, inverse, epsilon);
    const auto per_channel = [&](const Tensor &values) { return channels_of(values, images); };
    const Tensor output = (images.to(weight.scalar_type()) - per_channel(mean)) * per_channel(inverse * weight);
    return (output + per_channel(bias)).to(images.scalar_type());
}

// Sums of dL/dy and of dL/dy (x - mean) over this rank's images; gradients of weight and bias.
std::tuple<Tensor, Tensor, Tensor, Tensor> reduce(const Tensor &gradient, const Tensor &images, const Tensor &mean,
                                                  const Tensor &inverse, const Tensor &weight) {
    if (images.is_cuda()) {
        return at::batch_norm_backward_reduce(gradient, images, mean, inverse, weight, true, true, true);
    }
    const auto type = weight.scalar_type();
    const Tensor wide = gradient.to(type);
    const Tensor bias_gradient = wide.sum(all_but_channels(images));
    const Tensor product = (wide * (images.to(type) - channels_of(mean, images))).sum(all_but_channels(images));
    return {bias_gradient, product, product * inverse, bias_gradient.clone()};
}

// dL/dx from both sums over all ranks, of so many values as the whole numbers `counts` add up to.
Tensor differentiate(const Tensor &gradient, const Tensor &images, const Tensor &mean, const Tensor &inverse,
                     const Tensor &weight, const Tensor &sums, const Tensor &counts) {
    const int64_t channels = weight.size(0);
    const Tensor sum = sums.narrow(0, 0, channels), product = sums.narrow(0, channels, channels);
    if (images.is_cuda()) {
        return at::batch_norm_backward_elemt(gradient, images, mean, inverse, weight, sum, product, counts);
    }
    const auto type = weight.scalar_type();
    const Tensor count = counts.sum().to(type);
    const auto per_channel = [&](const Tensor &values) { return channels_of(values, images); };
    const Tensor along = (images.to(type) - per_channel(mean)) * per_channel(inverse.square() * product / count);
    const Tensor found = (gradient.to(type) - per_channel(sum / count) - along) * per_channel(inverse * weight);
    return found.to(images.scalar_type());
}

// --- the layer -------------------------------------------------------------------------------------------------------

// The ranks as this one sees them.
struct Ranks : torch::CustomClassHolder {
    SumAcrossRanks sum;
    const int64_t rank, count;
    Ranks(void *context, SumAcrossRanks::Call call, SumAcrossRanks::Drop drop, int64_t rank, int64_t count)
        : sum(context, call, drop), rank(rank), count(count) {}

    // Every rank's row of `values` and their number, as a table of all ranks. One message: each rank sends zeros in the rows of
    // the others, so the sum is exact and the same in any order.
    Tensor gather(const Tensor &first, const Tensor &second, double elements) {
        const auto &[before, after] = frame(first, elements);
        Tensor table = at::cat({before, first, second, after}).view({count, -1});
        sum(table);
        return table;
    }

    // Passes of so many images on this rank are those of so many on all of them.
    void expect(int64_t own_images, int64_t all_images) {
        const std::lock_guard<std::mutex> guard(turn);
        own = own_images;
        all = all_images;
    }

    // The values of a channel over all ranks: a whole number from the host where it knows the pass, else the numbers that the ranks
    // sent, which the backward pass must convert.
    Tensor elements_of_all(const Tensor &images, const Tensor &sent) {
        const std::lock_guard<std::mutex> guard(turn);
        const int64_t here = images.size(0);
        if (here == 0 || here != own) return sent;
        const int64_t elements = images.numel() / here / images.size(1) * all;
        if (elements > std::numeric_limits<int>::max()) return sent;
        Tensor &total = totals[elements];
        if (!total.defined()) total = at::full({1}, elements, at::device(images.device()).dtype(at::kInt));
        return total;
    }

private:
    using Key = std::tuple<int64_t, double, at::ScalarType>;
    std::mutex turn;
    std::map<Key, std::pair<Tensor, Tensor>> frames;
    int64_t own = 0, all = 0;
    std::map<int64_t, Tensor> totals;

    // What stands around this rank's values in the table: zeros, and the number of its elements. Made once for each kind of layer.
    const std::pair<Tensor, Tensor> &frame(const Tensor &like, double elements) {
        const std::lock_guard<std::mutex> guard(turn);
        const int64_t channels = like.size(0), width = 2 * channels + 1;
        auto [place, is_new] = frames.try_emplace(Key(channels, elements, like.scalar_type()));
        if (is_new) {
            Tensor after = at::zeros({width * (count - 1 - rank) + 1}, like.options());
            after.narrow(0, 0, 1).fill_(elements);
            place->second = {at::zeros({width * rank}, like.options()), after};
        }
        return place->second;
    }
};
using Shared = c10::intrusive_ptr<Ranks>;

// Batch normalisation by the statistics of all ranks, one message in each direction. No tensor as large as the images is made
// but the output and their gradient.
struct FusedBatchNorm : torch::autograd::Function<FusedBatchNorm> {
    static Tensor forward(AutogradContext *context, const Tensor &given, const Tensor &weight, const Tensor &bias,
                          const std::optional<Tensor> &running_mean, const std::optional<Tensor> &running_variance,
                          double momentum, double epsilon, const Shared &ranks) {
        // The kernels read memory from end to end.
        const Tensor images = given.contiguous(given.suggest_memory_format());
        const int64_t channels = weight.size(0);
        const bool empty = images.numel() == 0;
        const auto elements = empty ? NO_VALUES : static_cast<double>(images.numel() / channels);
        const auto [own_mean, own_inverse] =
            empty ? std::make_tuple(at::zeros({channels}, weight.options()), at::ones({channels}, weight.options()))
                  : measure(images, weight.scalar_type(), epsilon);
        const Tensor table = ranks->gather(own_mean, own_inverse, elements);
        const auto [mean, inverse] = merge(table, running_mean, running_variance, momentum, epsilon);
        const Tensor output = empty ? at::empty_like(images) : normalise(images, weight, bias, mean, inverse, epsilon);
        const Tensor counts = ranks->elements_of_all(images, table.select(1, 2 * channels));
        context->save_for_backward({images, weight, mean, inverse, counts});
        context->saved_data["ranks"] = c10::IValue::make_capsule(ranks);
        return output;
    }

    static variable_list backward(AutogradContext *context, const variable_list &gradients) {
        const auto saved = context->get_saved_variables();
        const Tensor &images = saved[0], &weight = saved[1], &mean = saved[2], &inverse = saved[3], &counts = saved[4];
        const auto capsule = context->saved_data["ranks"].toCapsule();
        const auto &ranks = static_cast<const Ranks &>(*capsule);
        const bool empty = images.numel() == 0;
        const Tensor gradient = gradients[0].contiguous(images.suggest_memory_format());
        const Tensor zeros = empty ? at::zeros_like(weight) : Tensor();
        const auto [sum, product, weight_gradient, bias_gradient] =
            empty ? std::make_tuple(zeros, zeros, zeros, zeros.clone()) : reduce(gradient, images, mean, inverse, weight);
        Tensor sums = at::cat({sum, product});
        ranks.sum(sums);
        const Tensor images_gradient =
            empty ? at::zeros_like(images)
                  : differentiate(gradient, images, mean, inverse, weight, sums, counts.to(at::kInt));
        return {images_gradient, weight_gradient, bias_gradient, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
    }
};

} // namespace

extern "C" {

// Takes ownership of `context`, which `drop` frees with the last graph that uses it.
char *iad_ranks_new(Ranks **ranks, void *context, SumAcrossRanks::Call call, SumAcrossRanks::Drop drop, int64_t rank,
                    int64_t count) {
    return guarded([&] { *ranks = c10::make_intrusive<Ranks>(context, call, drop, rank, count).release(); });
}

void iad_ranks_expect(Ranks *ranks, int64_t own, int64_t all) { ranks->expect(own, all); }

void iad_ranks_free(Ranks *ranks) { Shared::reclaim(ranks); }

// Running statistics are null where the pass leaves them alone.
char *iad_fused_batch_norm(Tensor **output, Tensor *images, Tensor *weight, Tensor *bias, Tensor *running_mean,
                           Tensor *running_variance, double momentum, double epsilon, Ranks *ranks) {
    return guarded([&] {
        const auto known = [](Tensor *tensor) {
            return tensor == nullptr ? std::nullopt : std::optional<Tensor>(*tensor);
        };
        *output = new Tensor(FusedBatchNorm::apply(*images, *weight, *bias, known(running_mean), known(running_variance),
                                                   momentum, epsilon, Shared::reclaim_copy(ranks)));
    });
}

} // extern "C"
