"""Batch norm by the batch's statistics with the addition and the ReLU behind it, of maps [rows, channels], channels last.

Statistics are float32 whatever type the maps have. They stand between two passes over the maps, so a sum over ranks can be made
there: `batch_norm_statistics` and `batch_norm_combine` give mean and biased variance of this rank, `batch_norm_apply` takes those
of all ranks; `batch_norm_backward_sums` and `batch_norm_backward_combine` give B = sum g and G = sum g h of this rank, and
`batch_norm_backward_apply` takes those of all ranks and their number of rows m:

    h = (x - mean) s, s = 1 / sqrt(variance + epsilon)      y = relu(w h + b + addend)
    dx = w s (g - (B + h G) / m)                            g = dy where y > 0, else 0

Where nothing was added, the backward passes find the sign of y from x again and do not read y. `relu` and `adds` are 0 or 1.
The gradient of the addend is g.
"""

import triton
import triton.language as tl


@triton.jit
def batch_norm_statistics(x, means, squares, rows, channels, share, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Mean and sum of squared deviations of each channel in each program's share of the rows, [programs, channels]."""
    program = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    begin = program * share
    end = tl.minimum(begin + share, rows)
    mean = tl.zeros([CHANNELS], tl.float32)
    square = tl.zeros([CHANNELS], tl.float32)
    seen = 0.0
    for start in range(begin, end, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < end)[:, None] & known[None, :]
        values = tl.load(x + row[:, None] * channels + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        count = tl.minimum(end - start, ROWS).to(tl.float32)
        here = tl.sum(values, 0) / count
        apart = tl.where(inside, values - here[None, :], 0.0)
        both = seen + count
        # Chan, Golub and LeVeque's rule for the statistics of two sets.
        step = here - mean
        mean += step * (count / both)
        square += tl.sum(apart * apart, 0) + step * step * (seen * count / both)
        seen = both
    tl.store(means + program * channels + channel, mean, mask=known)
    tl.store(squares + program * channels + channel, square, mask=known)


@triton.jit
def batch_norm_combine(
    means, squares, mean, variance, rows, channels, share, programs, PARTS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Mean and biased variance of each channel over all shares."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    total = tl.zeros([CHANNELS], tl.float32)
    for start in range(0, programs, PARTS):
        part = start + tl.arange(0, PARTS)
        inside = (part < programs)[:, None] & known[None, :]
        at = part[:, None] * channels + channel[None, :]
        count = tl.maximum(tl.minimum(rows - part.to(tl.int64) * share, share), 0).to(tl.float32)
        total += tl.sum(tl.load(means + at, mask=inside, other=0.0) * count[:, None], 0)
    whole = total / rows.to(tl.float32)
    spread = tl.zeros([CHANNELS], tl.float32)
    for start in range(0, programs, PARTS):
        part = start + tl.arange(0, PARTS)
        inside = (part < programs)[:, None] & known[None, :]
        at = part[:, None] * channels + channel[None, :]
        count = tl.maximum(tl.minimum(rows - part.to(tl.int64) * share, share), 0).to(tl.float32)
        apart = tl.where(inside, tl.load(means + at, mask=inside, other=0.0) - whole[None, :], 0.0)
        spread += tl.sum(tl.load(squares + at, mask=inside, other=0.0) + apart * apart * count[:, None], 0)
    tl.store(mean + channel, whole, mask=known)
    tl.store(variance + channel, spread / rows.to(tl.float32), mask=known)


@triton.jit
def of_channel(mean, variance, weight, bias, channel, known, epsilon):
    """Mean, reciprocal deviation, weight and bias of these channels."""
    centre = tl.load(mean + channel, mask=known, other=0.0)
    inverse = tl.rsqrt(tl.load(variance + channel, mask=known, other=1.0) + epsilon)
    return centre, inverse, tl.load(weight + channel, mask=known, other=0.0), tl.load(bias + channel, mask=known, other=0.0)


@triton.jit
def batch_norm_apply(
    x, addend, y, mean, variance, weight, bias, rows, channels, epsilon, relu, adds,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    inside = (row < rows)[:, None] & known[None, :]
    at = row[:, None] * channels + channel[None, :]
    centre, inverse, slope, offset = of_channel(mean, variance, weight, bias, channel, known, epsilon)
    h = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - centre[None, :]) * inverse[None, :]
    out = h * slope[None, :] + offset[None, :]
    out += tl.load(addend + at, mask=inside & (adds != 0), other=0.0).to(tl.float32)
    # What is not a number is not below 0, and stays.
    out = tl.where((out < 0) & (relu != 0), 0.0, out)
    tl.store(y + at, out.to(y.dtype.element_ty), mask=inside)


@triton.jit
def gradient_before_relu(gradient, y, at, inside, h, slope, offset, relu, adds):
    """The gradient behind the normalisation: that of y where the ReLU let it pass."""
    passed = tl.load(y + at, mask=inside & (adds != 0), other=0.0).to(tl.float32)
    passed = tl.where(adds != 0, passed, h * slope[None, :] + offset[None, :])
    g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    return tl.where((passed <= 0) & (relu != 0), 0.0, g)


@triton.jit
def batch_norm_backward_sums(
    gradient, x, y, mean, variance, weight, bias, sums, products, rows, channels, share, epsilon, relu, adds,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):
    """sum g and sum g h of each channel in each program's share of the rows, [programs, channels]."""
    program = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    begin = program * share
    end = tl.minimum(begin + share, rows)
    centre, inverse, slope, offset = of_channel(mean, variance, weight, bias, channel, known, epsilon)
    total = tl.zeros([CHANNELS], tl.float32)
    product = tl.zeros([CHANNELS], tl.float32)
    for start in range(begin, end, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < end)[:, None] & known[None, :]
        at = row[:, None] * channels + channel[None, :]
        h = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - centre[None, :]) * inverse[None, :]
        g = gradient_before_relu(gradient, y, at, inside, h, slope, offset, relu, adds)
        total += tl.sum(g, 0)
        product += tl.sum(tl.where(inside, g * h, 0.0), 0)
    tl.store(sums + program * channels + channel, total, mask=known)
    tl.store(products + program * channels + channel, product, mask=known)


@triton.jit
def batch_norm_backward_combine(
    sums, products, total, product, channels, programs, PARTS: tl.constexpr, CHANNELS: tl.constexpr
):
    """The sums of each channel over all shares."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    first = tl.zeros([CHANNELS], tl.float32)
    second = tl.zeros([CHANNELS], tl.float32)
    for start in range(0, programs, PARTS):
        part = start + tl.arange(0, PARTS)
        inside = (part < programs)[:, None] & known[None, :]
        at = part[:, None] * channels + channel[None, :]
        first += tl.sum(tl.load(sums + at, mask=inside, other=0.0), 0)
        second += tl.sum(tl.load(products + at, mask=inside, other=0.0), 0)
    tl.store(total + channel, first, mask=known)
    tl.store(product + channel, second, mask=known)


@triton.jit
def batch_norm_backward_apply(
    gradient, x, y, mean, variance, weight, bias, total, product, dx, to_addend, count, rows, channels, epsilon, relu, adds,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    inside = (row < rows)[:, None] & known[None, :]
    at = row[:, None] * channels + channel[None, :]
    centre, inverse, slope, offset = of_channel(mean, variance, weight, bias, channel, known, epsilon)
    b = tl.load(total + channel, mask=known, other=0.0) / tl.load(count)
    k = tl.load(product + channel, mask=known, other=0.0) / tl.load(count)
    h = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - centre[None, :]) * inverse[None, :]
    g = gradient_before_relu(gradient, y, at, inside, h, slope, offset, relu, adds)
    out = (slope * inverse)[None, :] * (g - (b[None, :] + h * k[None, :]))
    tl.store(dx + at, out.to(dx.dtype.element_ty), mask=inside)
    tl.store(to_addend + at, g.to(to_addend.dtype.element_ty), mask=inside & (adds != 0))


# The number of channels is a multiple of 16, so that a thread takes 16 bytes at once.
TILED = dict(constants={"ROWS": 16, "CHANNELS": 64}, divisible=["channels"], warps=4)
PARTED = dict(constants={"PARTS": 32, "CHANNELS": 64}, divisible=["channels"], warps=4)
COUNTS = {"rows": "i64", "channels": "i64"}
FLAGS = {"epsilon": "fp32", "relu": "i32", "adds": "i32"}


def pointers(kind, *names):
    return {name: f"*{kind}" for name in names}


def variants(kind):
    of_channels = pointers("fp32", "mean", "variance", "weight", "bias")
    return {
        f"batch_norm_statistics_{kind}": dict(
            kernel=batch_norm_statistics,
            arguments=pointers(kind, "x") | pointers("fp32", "means", "squares") | COUNTS | {"share": "i64"},
            **TILED,
        ),
        f"batch_norm_apply_{kind}": dict(
            kernel=batch_norm_apply,
            arguments=pointers(kind, "x", "addend", "y") | of_channels | COUNTS | FLAGS,
            **TILED,
        ),
        f"batch_norm_backward_sums_{kind}": dict(
            kernel=batch_norm_backward_sums,
            arguments=pointers(kind, "gradient", "x", "y")
            | of_channels
            | pointers("fp32", "sums", "products")
            | COUNTS
            | {"share": "i64"}
            | FLAGS,
            **TILED,
        ),
        f"batch_norm_backward_apply_{kind}": dict(
            kernel=batch_norm_backward_apply,
            arguments=pointers(kind, "gradient", "x", "y")
            | of_channels
            | pointers("fp32", "total", "product")
            | pointers(kind, "dx", "to_addend")
            | pointers("fp32", "count")
            | COUNTS
            | FLAGS,
            **TILED,
        ),
    }


VARIANTS = (
    {
        "batch_norm_combine": dict(
            kernel=batch_norm_combine,
            arguments=pointers("fp32", "means", "squares", "mean", "variance")
            | COUNTS
            | {"share": "i64", "programs": "i32"},
            **PARTED,
        ),
        "batch_norm_backward_combine": dict(
            kernel=batch_norm_backward_combine,
            arguments=pointers("fp32", "sums", "products", "total", "product") | {"channels": "i64", "programs": "i32"},
            **PARTED,
        ),
    }
    | variants("bf16")
    | variants("fp32")
)
