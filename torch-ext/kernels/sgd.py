"""SGD over flat buffers: one pass that judges whether the update can be made, and one that makes it or leaves all as it is.

`sgd_judge` gives, of each share of the values, the largest absolute gradient, velocity and value (not a number if one is none),
and the first place of a gradient that is not finite, or `count`. `sgd_update` is PyTorch's rule without dampening:
g += decay * w; v = momentum * v + g; w -= rate * v, or with Nesterov w -= rate * (g + momentum * v). Where the byte `moves` is 0
it writes nothing.
"""

import triton
import triton.language as tl

ALL = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def larger(one, other):
    return tl.maximum(one, other, propagate_nan=ALL)


@triton.jit
def sgd_judge(values, gradients, velocity, largest, places, count, share, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    begin = program * share
    end = tl.minimum(begin + share, count)
    of_gradients = tl.zeros([BLOCK], tl.float32)
    of_velocity = tl.zeros([BLOCK], tl.float32)
    of_values = tl.zeros([BLOCK], tl.float32)
    place = tl.full([BLOCK], 0, tl.int64) + count
    for start in range(begin, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < end
        gradient = tl.abs(tl.load(gradients + at, mask=inside, other=0.0))
        of_gradients = larger(of_gradients, gradient)
        of_velocity = larger(of_velocity, tl.abs(tl.load(velocity + at, mask=inside, other=0.0)))
        of_values = larger(of_values, tl.abs(tl.load(values + at, mask=inside, other=0.0)))
        # False for infinity and for what is not a number.
        finite = gradient < float("inf")
        place = tl.minimum(place, tl.where(finite, count, at))
    programs = tl.num_programs(0)
    tl.store(largest + program, tl.reduce(of_gradients, 0, larger))
    tl.store(largest + programs + program, tl.reduce(of_velocity, 0, larger))
    tl.store(largest + 2 * programs + program, tl.reduce(of_values, 0, larger))
    tl.store(places + program, tl.min(place, 0))


@triton.jit
def sgd_update(
    values, gradients, velocity, moves, rate, count, momentum, decay, nesterov, BLOCK: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = (at < count) & (tl.load(moves) != 0)
    w = tl.load(values + at, mask=inside)
    v = momentum * tl.load(velocity + at, mask=inside)
    g = tl.load(gradients + at, mask=inside) + decay * w
    v = v + g
    along = tl.where(nesterov != 0, g + momentum * v, v)
    tl.store(velocity + at, v, mask=inside)
    tl.store(values + at, w - tl.load(rate) * along, mask=inside)


VARIANTS = {
    "sgd_judge": dict(
        kernel=sgd_judge,
        arguments={name: "*fp32" for name in ("values", "gradients", "velocity", "largest")}
        | {"places": "*i64", "count": "i64", "share": "i64"},
        constants={"BLOCK": 1024},
        warps=4,
    ),
    "sgd_update": dict(
        kernel=sgd_update,
        arguments={name: "*fp32" for name in ("values", "gradients", "velocity")}
        | {"moves": "*i8", "rate": "*fp32", "count": "i64", "momentum": "fp32", "decay": "fp32", "nesterov": "i32"},
        constants={"BLOCK": 1024},
        warps=4,
    ),
}
