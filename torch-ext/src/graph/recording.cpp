// The CPU in the place of a GPU, for tests: operations below autograd are recorded, with their tensors and all other arguments
// as they are, and replayed on the same memory. What a graph of CUDA would freeze is frozen here too, what the host wrote into a
// tensor meanwhile is lost, and a wait for a number is refused, as is memory from before that nobody keeps.

#include "recording.hpp"

#include <ATen/Tensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include "../guarded.hpp"

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

namespace {

using c10::DispatchKey;
using torch::jit::Stack;

// A key below autograd that libtorch keeps for others and uses for nothing.
constexpr DispatchKey KEY = DispatchKey::Fake;

// What makes the host wait for a device.
const std::set<std::string> WAITS = {"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::nonzero"};

// Calls `act` with every defined tensor in `values`.
template <typename Act>
void each_tensor(const c10::IValue &value, Act act) {
    if (value.isTensor()) {
        if (value.toTensor().defined()) act(value.toTensor());
    } else if (value.isList()) {
        for (const c10::IValue &element : value.toListRef()) each_tensor(element, act);
    }
}

// A function of the Rust side.
struct Call {
    void *context;
    bool (*call)(void *, at::Tensor *);
    void (*drop)(void *);
    Call(void *context, bool (*call)(void *, at::Tensor *), void (*drop)(void *)) : context(context), call(call), drop(drop) {}
    Call(const Call &) = delete;
    ~Call() { drop(context); }
};

struct Operation {
    // An operation of libtorch, or a call of the Rust side with the only argument, or with none.
    std::optional<c10::OperatorHandle> handle;
    std::unique_ptr<Call> call;
    Stack arguments;
    // Memory that the operation made: later operations know it by its address.
    std::vector<std::pair<size_t, at::Tensor>> made;
};

// How often recorded operations hold a tensor.
using Held = std::map<const c10::TensorImpl *, size_t>;

struct Recording : iad::Graph {
    std::vector<Operation> operations;
    std::set<const void *> made;
    // What memory from before the recording held, where the recording knows of it.
    std::map<const void *, std::pair<c10::Storage, std::vector<char>>> before;

    void begin() override;
    void end() override;
    void replay() override;
    void record(const c10::OperatorHandle &handle, c10::DispatchKeySet keys, Stack *stack);
    void record(std::unique_ptr<Call> call, at::Tensor *tensor);
    std::set<const void *> remember(const Stack &arguments);
    void check_owners() const;
};

thread_local Recording *under_way = nullptr;

void Recording::begin() {
    TORCH_CHECK(under_way == nullptr, "a recording within a recording");
    under_way = this;
    c10::impl::tls_set_dispatch_key_included(KEY, true);
}

void Recording::end() {
    c10::impl::tls_set_dispatch_key_included(KEY, false);
    under_way = nullptr;
    for (auto &[place, kept] : before) std::memcpy(kept.first.mutable_data(), kept.second.data(), kept.second.size());
    check_owners();
    before.clear();
}

// A graph of CUDA knows memory by its address alone: what it reads must belong to somebody who outlives the recording.
void Recording::check_owners() const {
    Held held;
    std::set<const void *> owned;
    const auto each = [&](auto act) {
        for (const Operation &operation : operations) {
            for (const c10::IValue &argument : operation.arguments) each_tensor(argument, act);
            for (const auto &[place, tensor] : operation.made) act(tensor);
        }
    };
    each([&](const at::Tensor &tensor) { ++held[tensor.unsafeGetTensorImpl()]; });
    each([&](const at::Tensor &tensor) {
        const bool number = tensor.unsafeGetTensorImpl()->is_wrapped_number();
        if (number || tensor.use_count() > held[tensor.unsafeGetTensorImpl()]) owned.insert(tensor.storage().data());
    });
    for (const auto &[place, kept] : before) {
        TORCH_CHECK(kept.second.empty() || owned.count(place) != 0,
                    "what is recorded reads memory that belongs to nobody afterwards");
    }
}

// Keeps what the memory of the arguments holds, unless the recording made it. Returns where it is.
std::set<const void *> Recording::remember(const Stack &arguments) {
    std::set<const void *> given;
    for (const c10::IValue &argument : arguments) {
        each_tensor(argument, [&](const at::Tensor &tensor) {
            const auto &storage = tensor.storage();
            given.insert(storage.data());
            // Whether it is written to or not: batch norm does not say so of its running statistics.
            if (made.count(storage.data()) != 0 || before.count(storage.data()) != 0) return;
            const auto *bytes = static_cast<const char *>(storage.data());
            before.emplace(bytes, std::make_pair(storage, std::vector<char>(bytes, bytes + storage.nbytes())));
        });
    }
    return given;
}

void Recording::record(std::unique_ptr<Call> call, at::Tensor *tensor) {
    Stack arguments;
    if (tensor != nullptr) arguments.emplace_back(*tensor);
    remember(arguments);
    operations.push_back(Operation{std::nullopt, std::move(call), std::move(arguments), {}});
}

void Recording::record(const c10::OperatorHandle &handle, c10::DispatchKeySet keys, Stack *stack) {
    const auto &schema = handle.schema();
    TORCH_CHECK(WAITS.count(schema.name()) == 0, schema.name(), " waits for the device, which no recording can");
    Stack arguments(stack->end() - static_cast<std::ptrdiff_t>(schema.arguments().size()), stack->end());
    const std::set<const void *> given = remember(arguments);
    handle.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, KEY), stack);
    Operation operation{handle, nullptr, std::move(arguments), {}};
    const size_t outputs = schema.returns().size();
    size_t place = 0;
    for (auto output = stack->end() - static_cast<std::ptrdiff_t>(outputs); output != stack->end(); ++output) {
        each_tensor(*output, [&](const at::Tensor &tensor) {
            if (given.count(tensor.storage().data()) == 0) {
                made.insert(tensor.storage().data());
                operation.made.emplace_back(place, tensor);
            }
            ++place;
        });
    }
    operations.push_back(std::move(operation));
}

void Recording::replay() {
    const at::AutoDispatchBelowADInplaceOrView below;
    for (const Operation &operation : operations) {
        if (operation.call != nullptr) {
            at::Tensor tensor = operation.arguments.empty() ? at::Tensor() : operation.arguments.front().toTensor();
            TORCH_CHECK(operation.call->call(operation.call->context, operation.arguments.empty() ? nullptr : &tensor),
                        "a call in a recording failed");
            continue;
        }
        Stack stack = operation.arguments;
        operation.handle->callBoxed(stack);
        std::vector<at::Tensor> outputs;
        for (const c10::IValue &output : stack) each_tensor(output, [&](const at::Tensor &tensor) { outputs.push_back(tensor); });
        for (const auto &[place, tensor] : operation.made) tensor.copy_(outputs.at(place));
    }
}

// How often each operation was called, and how many tensors it gave in all.
using Counts = std::map<std::string, std::pair<uint64_t, uint64_t>>;

thread_local Counts *counts = nullptr;

void count(const c10::OperatorHandle &handle, c10::DispatchKeySet keys, Stack *stack) {
    handle.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, KEY), stack);
    const auto outputs = static_cast<std::ptrdiff_t>(handle.schema().returns().size());
    auto &[calls, tensors] = (*counts)[handle.schema().name()];
    ++calls;
    for (auto output = stack->end() - outputs; output != stack->end(); ++output) {
        each_tensor(*output, [&tensors = tensors](const at::Tensor &) { ++tensors; });
    }
}

void fall_back(const c10::OperatorHandle &handle, c10::DispatchKeySet keys, Stack *stack) {
    const c10::impl::ExcludeDispatchKeyGuard once(KEY);
    if (counts != nullptr) {
        count(handle, keys, stack);
    } else {
        under_way->record(handle, keys, stack);
    }
}

TORCH_LIBRARY_IMPL(_, Fake, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&fall_back>()); }

} // namespace

iad::Graph *iad_new_recording() { return new Recording; }

bool iad_records_operations() { return under_way != nullptr; }

void iad_record(void *context, bool (*call)(void *, at::Tensor *), void (*drop)(void *), at::Tensor *tensor) {
    auto owned = std::make_unique<Call>(context, call, drop);
    TORCH_CHECK(under_way != nullptr, "no recording is under way");
    under_way->record(std::move(owned), tensor);
}

extern "C" {

// From here on this thread counts its operations below autograd.
char *iad_count_begin() {
    return guarded([] {
        TORCH_CHECK(under_way == nullptr && counts == nullptr, "operations are counted or recorded already");
        counts = new Counts;
        c10::impl::tls_set_dispatch_key_included(KEY, true);
    });
}

// Ends the counting and tells each operation's name, calls and tensors.
void iad_count_end(void *context, void (*tell)(void *, const char *, uint64_t, uint64_t)) {
    c10::impl::tls_set_dispatch_key_included(KEY, false);
    for (const auto &[name, found] : *counts) tell(context, name.c_str(), found.first, found.second);
    delete counts;
    counts = nullptr;
}

} // extern "C"
