"""The Kullback-Leibler divergence of a batch with its trust factor, and the gradients of both sides, in one pass.

Per sample, with q and p the softmax of the student's and the guide's logits: f * sum_k p_k (log p_k - log q_k). f is 1, or the
trust alpha = t_y^exponent with t the softmax of a teacher's logits and y the label, or 1 - alpha. The gradients are those of one
sample's value: f (q - p) to the student's logits, f p (log p - log q - KL) to the guide's. A probability of the guide that
underflows to 0 contributes 0.
"""

import triton
import triton.language as tl

PLAIN, TRUST, INVERTED = 0, 1, 2


@triton.jit
def log_softmax(logits):
    shifted = logits - tl.max(logits, 1)[:, None]
    return shifted - tl.log(tl.sum(tl.exp(shifted), 1))[:, None]


@triton.jit
def divergence(
    student, guide, teacher, labels, values, student_gradient, guide_gradient,
    samples, classes, exponent, trust, guide_learns, ROWS: tl.constexpr, CLASSES: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, CLASSES)
    known = row < samples
    real = known[:, None] & (column < classes)[None, :]
    at = row[:, None] * classes + column[None, :]
    # Classes that are none have no probability; rows that are none are those of equal logits.
    nothing = tl.where(known[:, None] & (column >= classes)[None, :], float("-inf"), 0.0)
    log_q = log_softmax(tl.load(student + at, mask=real, other=0.0) + nothing)
    log_p = log_softmax(tl.load(guide + at, mask=real, other=0.0) + nothing)
    p = tl.exp(log_p)
    apart = tl.where(real, log_p - log_q, 0.0)
    each = tl.sum(tl.where(real, p * apart, 0.0), 1)
    factor = tl.full([ROWS], 1.0, tl.float32)
    if trust != 0:
        log_t = log_softmax(tl.load(teacher + at, mask=real, other=0.0) + nothing)
        label = tl.load(labels + row, mask=known, other=0)
        of_label = tl.sum(tl.where(real & (column[None, :] == label[:, None]), log_t, 0.0), 1)
        alpha = tl.exp(exponent * of_label)
        factor = tl.where(trust == 2, 1.0 - alpha, alpha)
    tl.store(values + row, factor * each, mask=known)
    tl.store(student_gradient + at, factor[:, None] * (tl.exp(log_q) - p), mask=real)
    to_guide = factor[:, None] * p * (apart - each[:, None])
    tl.store(guide_gradient + at, to_guide, mask=real & (guide_learns != 0))


def variant(rows, classes):
    pointers = ("student", "guide", "teacher", "labels", "values", "student_gradient", "guide_gradient")
    return dict(
        kernel=divergence,
        arguments={name: "*i64" if name == "labels" else "*fp32" for name in pointers}
        | {"samples": "i64", "classes": "i64", "exponent": "fp32", "trust": "i32", "guide_learns": "i32"},
        constants={"ROWS": rows, "CLASSES": classes},
        warps=4,
    )


# The number of classes is at most that in the name.
VARIANTS = {"divergence_16": variant(32, 16), "divergence_128": variant(4, 128), "divergence_1024": variant(1, 1024)}
