"""Runs every kernel of this folder in Triton's interpreter, on the CPU, and compares it with PyTorch in float64.

    python check.py    exit code 1, with what differs, if a kernel is wrong
"""

import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
sys.dont_write_bytecode = True  # the build looks at what changes in this folder
sys.path.insert(0, str(Path(__file__).parent))

import numpy
import torch
import triton.runtime.interpreter as interpreter
from torch.nn.functional import batch_norm as reference_batch_norm
from torch.nn.functional import kl_div, log_softmax

import attack_step
import batch_norm
import divergence
import sgd

plain_patch = interpreter._patch_lang_tensor


def patch(tensor, scope):
    """Triton's own patch of its tensors, with bounds of loops that NumPy 2.4 takes as numbers too."""
    plain_patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


interpreter._patch_lang_tensor = patch

numpy.seterr(invalid="ignore")
torch.manual_seed(1)
NAN, INFINITY = float("nan"), float("inf")
failures = []


def launch(variants, name, grid, *arguments):
    variant = variants[name]
    variant["kernel"][grid](*arguments, **variant["constants"])


def constant(variants, name, key):
    return variants[name]["constants"][key]


def ceil(value, by):
    return -(-value // by)


def same(what, found, expected, tolerance, least=1e-30):
    """Notes a difference beyond `tolerance` of the largest expected value, or of `least`. Not a number is equal to itself."""
    found, expected = found.double(), expected.double()
    size = expected[expected.isfinite()].abs().max().item() if expected.isfinite().any() else 1.0
    equal = torch.isclose(found, expected, rtol=0, atol=tolerance * max(size, least), equal_nan=True)
    if found.shape != expected.shape or not equal.all():
        apart = (found - expected).abs().nan_to_num(INFINITY).max().item()
        failures.append(f"{what}: {(~equal).sum()} of {equal.numel()} values differ, by up to {apart:.1e} beside {size:.1e}")


def guarded(count, kind):
    """A flat buffer with 32 more values, which no kernel may touch."""
    return torch.full((count + 32,), 7, dtype=kind)


def untouched(what, buffer, count):
    if not (buffer[count:] == 7).all():
        failures.append(f"{what}: writes behind its output")


# --- the attack's step ----------------------------------------------------------------------------------------------------


def check_attack_step():
    for count in (16, 1024, 3 * 32 * 32 + 16):
        images = torch.rand(count)
        images[:4] = torch.tensor([0.0, 1.0, 0.01, 0.99])
        candidate = images + (torch.rand(count) * 2 - 1) * 8 / 255
        gradient = torch.randn(count)
        gradient[5:9] = torch.tensor([0.0, -0.0, NAN, -INFINITY])
        candidate[9], candidate[10] = NAN, 3.0
        moved = guarded(count, torch.float32)
        grid = (ceil(count, constant(attack_step.VARIANTS, "attack_step", "BLOCK")),)
        launch(attack_step.VARIANTS, "attack_step", grid, candidate, gradient, images, moved, count, 2 / 255, 8 / 255)

        def expected(kind):
            x, g, c = candidate.to(kind), gradient.to(kind), images.to(kind)
            return (x + g.sign() * (2 / 255)).clamp((c - 8 / 255).clamp_min(0), (c + 8 / 255).clamp_max(1))

        same(f"attack_step of {count}", moved[:count], expected(torch.float64), 1e-6)
        # Nothing in it rounds differently from the same operations one by one.
        same(f"attack_step of {count} in float32", moved[:count], expected(torch.float32), 0.0)
        untouched(f"attack_step of {count}", moved, count)


# --- SGD ------------------------------------------------------------------------------------------------------------------


def check_sgd():
    block = constant(sgd.VARIANTS, "sgd_judge", "BLOCK")
    for count, programs, spoilt in ((1, 1, {}), (5000, 3, {}), (5000, 3, {4321: NAN, 4999: INFINITY}), (1031, 2, {0: -INFINITY})):
        values, gradients, velocity = (torch.randn(count) for _ in range(3))
        for place, value in spoilt.items():
            gradients[place] = value
        share = ceil(ceil(count, programs), block) * block
        largest, places = torch.zeros(3, programs), torch.zeros(programs, dtype=torch.int64)
        launch(sgd.VARIANTS, "sgd_judge", (programs,), values, gradients, velocity, largest, places, count, share)
        what = f"sgd_judge of {count} with {spoilt}"
        expected = [tensor.abs().max() for tensor in (gradients, velocity, values)]
        same(what, largest.amax(1), torch.stack(expected), 0.0)
        same(what, places.min(), torch.tensor(min(spoilt, default=count)), 0.0)
    # A velocity that is none is seen although the gradients are sound.
    velocity[-1] = NAN
    gradients[0] = 0.0
    launch(sgd.VARIANTS, "sgd_judge", (programs,), values, gradients, velocity, largest, places, count, share)
    same("sgd_judge of a velocity", largest.amax(1)[1], torch.tensor(NAN), 0.0)

    for count in (1, 1500):
        for momentum, decay, nesterov in ((0.9, 5e-4, 0), (0.9, 5e-4, 1), (0.0, 0.0, 0)):
            values, gradients, velocity = (torch.randn(count) for _ in range(3))
            expected_v = momentum * velocity.double() + gradients.double() + decay * values.double()
            along = gradients.double() + decay * values.double() + momentum * expected_v if nesterov else expected_v
            expected_w = values.double() - 0.1 * along
            for moves in (0, 1):
                w, v = guarded(count, torch.float32), guarded(count, torch.float32)
                w[:count], v[:count] = values, velocity
                g = gradients.clone() if moves else torch.full_like(gradients, NAN)
                flag, rate = torch.tensor([moves], dtype=torch.int8), torch.tensor([0.1])
                grid = (ceil(count, constant(sgd.VARIANTS, "sgd_update", "BLOCK")),)
                launch(sgd.VARIANTS, "sgd_update", grid, w, g, v, flag, rate, count, momentum, decay, nesterov)
                what = f"sgd_update of {count}, {momentum}, {decay}, {nesterov}, {moves}"
                same(what, w[:count], expected_w if moves else values, 1e-6 if moves else 0.0)
                same(what, v[:count], expected_v if moves else velocity, 1e-6 if moves else 0.0)
                untouched(what, w, count)
                untouched(what, v, count)


# --- the divergence -------------------------------------------------------------------------------------------------------


def check_divergence():
    of = {"divergence_16": ((1, 2), (37, 10), (64, 16)), "divergence_128": ((5, 100),), "divergence_1024": ((3, 200), (2, 1000))}
    for name, shapes in of.items():
        for samples, classes in shapes:
            for trust in (divergence.PLAIN, divergence.TRUST, divergence.INVERTED):
                one_divergence(name, samples, classes, trust)


def one_divergence(name, samples, classes, trust):
    student, guide, teacher = (torch.randn(samples, classes) * 5 for _ in range(3))
    guide[0, 0] = -400.0  # underflows to a probability of 0
    if samples > 4:
        student[3, 1] = NAN
    labels = torch.randint(classes, (samples,))
    wide = [tensor.double().requires_grad_() for tensor in (student, guide)]
    log_q, log_p = (log_softmax(tensor, 1) for tensor in wide)
    each = kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    alpha = (0.1 * log_softmax(teacher.double(), 1)).gather(1, labels[:, None])[:, 0].exp()
    factor = (torch.ones_like(alpha), alpha, 1 - alpha)[trust]
    gradients = torch.autograd.grad((each * factor).sum(), wide)
    for learns in (0, 1):
        size = samples * classes
        values, to_student, to_guide = (guarded(count, torch.float32) for count in (samples, size, size))
        grid = (ceil(samples, constant(divergence.VARIANTS, name, "ROWS")),)
        arguments = (student, guide, teacher, labels, values, to_student, to_guide, samples, classes, 0.1, trust, learns)
        launch(divergence.VARIANTS, name, grid, *arguments)
        what = f"{name} of {samples} x {classes}, trust {trust}, guide learns {learns}"
        same(what, values[:samples], (each * factor).detach(), 1e-5, 1e-2)
        same(f"{what}, to the student", to_student[:size].view(samples, classes), gradients[0], 1e-5, 1e-2)
        written = gradients[1] if learns else torch.full_like(gradients[1], 7)
        same(f"{what}, to the guide", to_guide[:size].view(samples, classes), written, 1e-5, 1e-2)
        for buffer, count in ((values, samples), (to_student, size), (to_guide, size)):
            untouched(what, buffer, count)


# --- batch norm -----------------------------------------------------------------------------------------------------------


def check_batch_norm():
    for kind in (torch.float32, torch.bfloat16):
        for rows, channels, programs in ((1, 16, 1), (37, 64, 3), (70, 80, 2)):
            for relu, adds in ((1, 0), (1, 1), (0, 0)):
                one_batch_norm(kind, rows, channels, programs, relu, adds)
    one_batch_norm(torch.float32, 40, 16, 2, 1, 1, spoilt=True)


def one_batch_norm(kind, rows, channels, programs, relu, adds, spoilt=False):
    variants, short = batch_norm.VARIANTS, "bf16" if kind == torch.bfloat16 else "fp32"
    what = f"batch norm in {short} of {rows} x {channels}, relu {relu}, adds {adds}, spoilt {spoilt}"
    # A mean far from 0 beside a small deviation: what sums of squares would lose.
    x = (torch.randn(rows, channels) * 0.5 + 8 * torch.randn(channels)).to(kind)
    addend, dy = torch.randn(rows, channels).to(kind), torch.randn(rows, channels).to(kind)
    weight, bias = torch.rand(channels) + 0.5, torch.randn(channels)
    if spoilt:
        x[3, 5] = NAN
    tile_rows, tile_channels = (constant(variants, f"batch_norm_apply_{short}", key) for key in ("ROWS", "CHANNELS"))
    across, share = ceil(channels, tile_channels), ceil(ceil(rows, programs), tile_rows) * tile_rows
    whole = (ceil(rows, tile_rows), across)

    means, squares = torch.zeros(programs, channels), torch.zeros(programs, channels)
    launch(variants, f"batch_norm_statistics_{short}", (programs, across), x, means, squares, rows, channels, share)
    mean, variance = torch.zeros(channels), torch.zeros(channels)
    launch(
        variants, "batch_norm_combine", (across,), means, squares, mean, variance, rows, channels, share, programs
    )
    same(f"{what}: mean", mean, x.double().mean(0), 1e-6)
    same(f"{what}: variance", variance, x.double().var(0, unbiased=False), 1e-5)

    size = rows * channels
    y = guarded(size, kind)
    of_channels = (mean, variance, weight, bias)
    launch(
        variants, f"batch_norm_apply_{short}", whole, x, addend, y, *of_channels, rows, channels, 1e-5, relu, adds
    )
    inputs = [tensor.double().requires_grad_() for tensor in (x, addend, weight, bias)]
    if rows > 1:
        out = reference_batch_norm(inputs[0], None, None, inputs[2], inputs[3], training=True, eps=1e-5)
    else:  # the variance of one value is 0, and PyTorch refuses it
        out = (inputs[0] - inputs[0]) * inputs[2] + inputs[3]
    out = out + inputs[1] if adds else out + 0 * inputs[1]
    # The sign that the ReLU goes by is that of the rounded map, in both.
    stored = y[:size].view(rows, channels)
    passes = ~(stored.double() <= 0) if relu else torch.ones(rows, channels, dtype=torch.bool)
    wide = torch.where(passes, out, 0.0)
    # The interpreter cuts bfloat16 off, where a GPU rounds.
    rounding = 2**-7 if kind == torch.bfloat16 else 1e-5
    same(f"{what}: y", stored, wide.detach(), rounding)
    untouched(what, y, size)
    expected = torch.autograd.grad((wide * dy.double()).sum(), inputs)

    sums, products = torch.zeros(programs, channels), torch.zeros(programs, channels)
    launch(
        variants, f"batch_norm_backward_sums_{short}", (programs, across),
        dy, x, stored, *of_channels, sums, products, rows, channels, share, 1e-5, relu, adds,
    )  # fmt: skip
    total, product = torch.zeros(channels), torch.zeros(channels)
    launch(
        variants, "batch_norm_backward_combine", (across,), sums, products, total, product, channels, programs
    )
    same(f"{what}: gradient of the bias", total, expected[3], 1e-5)
    same(f"{what}: gradient of the weight", product, expected[2], 1e-5)
    dx, to_addend, count = guarded(size, kind), guarded(size, kind), torch.tensor([float(rows)])
    launch(
        variants, f"batch_norm_backward_apply_{short}", whole,
        dy, x, stored, *of_channels, total, product, dx, to_addend, count, rows, channels, 1e-5, relu, adds,
    )  # fmt: skip
    # With one row, what is left of terms of the size of w s g, s = 1 / sqrt(epsilon) = 316, is rounding.
    scale = expected[0] if rows > 1 else torch.full_like(expected[0], 316.0)
    same(f"{what}: gradient of x", dx[:size].view(rows, channels), expected[0] if rows > 1 else 0 * scale, rounding)
    same(f"{what}: gradient of the addend", to_addend[:size], expected[1].flatten() if adds else torch.full((size,), 7), rounding)
    untouched(what, dx, size)
    untouched(what, to_addend, size)


if __name__ == "__main__":
    for check in (check_attack_step, check_sgd, check_divergence, check_batch_norm):
        check()
    if failures:
        sys.exit("\n".join(failures))
    print("all kernels agree with PyTorch in float64")
