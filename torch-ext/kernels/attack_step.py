"""One step of projected gradient ascent in L-infinity: the sign of the gradient, the step, and both projections.

Per value: max(c - eps, 0) <= x + step * sign(g) <= min(c + eps, 1), for the image's value c. A value that is not a number stays
one; the sign of a gradient that is not a number is 0, as in PyTorch.
"""

import triton
import triton.language as tl

ALL = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def attack_step(candidate, gradient, images, moved, count, step, eps, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    x = tl.load(candidate + at, mask=inside)
    g = tl.load(gradient + at, mask=inside)
    centre = tl.load(images + at, mask=inside)
    sign = (g > 0).to(tl.float32) - (g < 0).to(tl.float32)
    lowest = tl.maximum(centre - eps, 0.0, propagate_nan=ALL)
    highest = tl.minimum(centre + eps, 1.0, propagate_nan=ALL)
    x = tl.maximum(x + sign * step, lowest, propagate_nan=ALL)
    x = tl.minimum(x, highest, propagate_nan=ALL)
    tl.store(moved + at, x, mask=inside)


VARIANTS = {
    "attack_step": dict(
        kernel=attack_step,
        arguments={name: "*fp32" for name in ("candidate", "gradient", "images", "moved")}
        | {"count": "i64", "step": "fp32", "eps": "fp32"},
        constants={"BLOCK": 1024},
        divisible=["count"],  # so that a thread takes 16 bytes at once
        warps=4,
    )
}
