"""The standard L-infinity suite of AutoAttack (Croce and Hein 2020), FGSM, PGD and CW in plain PyTorch.

Written from the descriptions of the attacks as a researcher would write them for one batch, to hold the program's numbers
and speed against. `forward` gives the logits of images in [0, 1]; the network is in evaluation mode and its parameters
take no gradient. An attack of N images returns N images in the ball, wrongly classified where it succeeded.
"""

import math

import torch
import torch.nn.functional as F

CHECKS = 0.22, 0.03, 0.06  # APGD: the first interval between checks, its decrement, its minimum, as shares of the steps.
RHO = 0.75


# Random numbers.


class Generated:
    """Numbers of a seeded torch generator, which depend on the order in which they are asked for."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, rows, first, count, dtype):
        return torch.rand(len(rows), count, generator=self.generator, dtype=dtype)


class Shared(Generated):
    """As AutoAttack draws: in Square, all images of a batch share a query's window and signs."""

    def uniform(self, rows, first, count, dtype):
        drawn = super().uniform(rows[:1] if first > 0 else rows, first, count, dtype)
        return drawn.expand(len(rows), count)


class Keyed:
    """The program's numbers (datasets/src/random.rs): a function of seed, purpose, epoch, sample and element."""

    def __init__(self, seed, purpose, epoch, samples):
        state = 0
        for part in (seed, purpose, epoch):
            state = mix64(state ^ mix64(part))
        keys = [mix64(state ^ mix64(sample)) for sample in samples]
        self.low = torch.tensor([key % 2**32 for key in keys])[:, None]
        self.high = torch.tensor([key >> 32 for key in keys])[:, None]

    def uniform(self, rows, first, count, dtype):
        """Elements `first .. first + count` of the batch's `rows`."""
        bits = mix32(torch.arange(first, first + count) ^ self.low[rows])
        bits = mix32((bits + self.high[rows]) & 0xFFFFFFFF)
        return (bits >> 8).to(dtype) / 2**24


def mix64(value):
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


def mix32(value):
    for shift, multiplier in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        value = ((value ^ (value >> shift)) * multiplier) & 0xFFFFFFFF
    return value


def everyone(x):
    return torch.arange(len(x))


# Objectives: one value per image, to be raised.


def cross_entropy(logits, y):
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits, y):
    """The label's logit less the largest other; not above 0 where an image has fallen."""
    others = logits.scatter(1, y[:, None], -math.inf).amax(1)
    return logits.gather(1, y[:, None])[:, 0] - others


def cw(logits, y):
    return -margin(logits, y)


def targeted_dlr(target):
    """The targeted difference of logits ratio; the gradient also flows through the sorted logits below it."""

    def objective(logits, y):
        top = logits.topk(4, 1).values
        z = lambda label: logits.gather(1, label[:, None])[:, 0]
        return -(z(y) - z(target)) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)

    return objective


def targets(forward, x, rank):
    """The class of rank `rank` (2 is the first after the prediction) on the natural images."""
    with torch.no_grad():
        return forward(x).argsort(dim=1, descending=True, stable=True)[:, rank - 1]


# Attacks.


def pgd(forward, x, y, eps, draws, objective=cross_entropy, steps=20, step=2 / 255):
    """Signed steps from a random start; FGSM is one step of length eps, from the image itself without `draws`."""
    lowest, highest = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    point = x.clone()
    if draws is not None:
        point += (2 * draws.uniform(everyone(x), 0, x[0].numel(), x.dtype).view_as(x) - 1) * eps
        point.clamp_(0, 1)
    for _ in range(steps):
        point.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(forward(point), y).sum(), point)
        point = torch.clamp(point.detach() + step * gradient.sign(), lowest, highest)
    return point


def apgd(forward, x, y, eps, draws, objective=cross_entropy, steps=100, first=0, trace=None):
    """Ascent with momentum that halves an image's step, and returns to its best point, when it stops gaining.

    `first` is the first element of the start's draws. `trace` collects each evaluated point with its values, and the step
    that led to it.
    """
    lowest, highest = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    project = lambda point: torch.clamp(point, lowest, highest)
    column = lambda values: values[:, None, None, None]

    def evaluate(point):
        point = point.detach().requires_grad_()
        logits = forward(point)
        values = objective(logits, y)
        (gradient,) = torch.autograd.grad(values.sum(), point)
        return values.detach(), gradient, logits.argmax(1) != y

    start = 2 * draws.uniform(everyone(x), first, x[0].numel(), x.dtype).view_as(x) - 1
    start /= start.abs().amax((1, 2, 3), keepdim=True) + 1e-12
    point = (x + eps * start).clamp(0, 1)
    value, gradient, fooled = evaluate(point)
    found = torch.where(column(fooled), point, x)
    step = torch.full_like(value, 2 * eps)
    if trace is not None:
        trace.append((point, value, None))

    best, best_value, best_gradient = point, value, gradient
    # Row i holds the values after iteration i, so that the first check compares row 0 with the last row, still 0.
    history = torch.zeros(steps, len(x), dtype=x.dtype)
    interval, smallest = max(int(CHECKS[0] * steps), 1), max(int(CHECKS[2] * steps), 1)
    since, best_at_check, reduced = 0, value, torch.ones_like(fooled)
    previous = point
    for i in range(steps):
        momentum, previous = point - previous, point
        share = RHO if i > 0 else 1
        moved = project(point + column(step) * gradient.sign())
        point = project(point + share * (moved - point) + (1 - share) * momentum)
        value, gradient, wrong = evaluate(point)
        if trace is not None:
            trace.append((point, value, step))

        history[i] = value
        found = torch.where(column(wrong), point, found)
        fooled = fooled | wrong
        better = value > best_value
        best = torch.where(column(better), point, best)
        best_gradient = torch.where(column(better), gradient, best_gradient)
        best_value = torch.where(better, value, best_value)

        since += 1
        if since == interval:
            gains = sum((history[i - c] > history[i - c - 1]).long() for c in range(interval))
            reduce = (gains <= RHO * interval) | (~reduced & (best_at_check >= best_value))
            step = torch.where(reduce, step / 2, step)
            point = torch.where(column(reduce), best, point)
            gradient = torch.where(column(reduce), best_gradient, gradient)
            best_at_check, reduced = best_value, reduce
            since, interval = 0, max(interval - int(CHECKS[1] * steps), smallest)
    return found


def project_onto_plane(points, w, b):
    """The smallest move in the maximum norm of each of `points [N, d]` onto its plane w.v = b within the unit cube."""
    residual = (w * points).sum(1) - b
    w, need = w * residual.sign()[:, None].where(residual[:, None] != 0, torch.ones_like(w[:, :1])), residual.abs()
    room = torch.where(w > 0, points, torch.where(w < 0, 1 - points, torch.zeros_like(points)))
    # With the rooms sorted, a move of length l gains sum_{room < l} |w| room + l sum_{room >= l} |w|.
    room_sorted, order = room.sort(1)
    weight = w.abs().gather(1, order)
    rest = weight.flip(1).cumsum(1).flip(1)  # The weights from each place on.
    spent = (weight * room_sorted).cumsum(1) - weight * room_sorted  # What the rooms before each place give.
    gain = spent + rest * room_sorted  # The gain of a move as long as each room.
    place = (gain < need[:, None]).sum(1, keepdim=True)
    inside = place.clamp(max=points.shape[1] - 1)
    length = (need[:, None] - spent.gather(1, inside)) / rest.gather(1, inside)
    length = torch.where(place < points.shape[1], length, math.inf)
    return -w.sign() * torch.minimum(length.nan_to_num(0, posinf=math.inf), room)


def fab(forward, x, y, eps, target, steps=100, trace=None):
    """Steps onto the linearised boundary between label and target, pulled back towards the image; keeps the nearest find."""
    column = lambda values: values[:, None, None, None]
    point, found = x.clone(), x.clone()
    shortest = torch.full_like(x[:, 0, 0, 0], 1e10)
    for _ in range(steps):
        point.requires_grad_()
        logits = forward(point)
        difference = logits.gather(1, target[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]
        (w,) = torch.autograd.grad(difference.sum(), point)
        point, w = point.detach(), w.flatten(1)
        b = (w * point.flatten(1)).sum(1) - difference.detach()
        moves = project_onto_plane(torch.cat([point, x]).flatten(1), w.repeat(2, 1), b.repeat(2))
        lengths = moves.abs().amax(1).clamp(min=1e-8)
        move, move_from_image = moves.view(2, *x.shape)
        length, length_from_image = lengths.view(2, -1)
        share = column((length / (length + length_from_image)).clamp(max=0.1))
        point = ((point + 1.05 * move) * (1 - share) + (x + 1.05 * move_from_image) * share).clamp(0, 1)
        with torch.no_grad():
            wrong = forward(point).argmax(1) != y
        distance = (point - x).abs().amax((1, 2, 3))
        nearer = wrong & (distance < shortest)
        shortest = torch.where(nearer, distance, shortest)
        found = torch.where(column(nearer), point, found)
        point = torch.where(column(wrong), x + 0.9 * (point - x), point)
    if trace is not None:
        trace.extend(shortest.tolist())
    return torch.where(column(shortest <= eps), found, x)


def side(query, size):
    """The side of Square's window at a query, in an image of side `size`."""
    ends = ((10, 0.8), (50, 0.4), (200, 0.2), (500, 0.1), (1000, 0.05), (2000, 0.025), (4000, 0.0125), (math.inf, 0.00625))
    share = next(share for end, share in ends if query <= end)
    return min(max(round(math.sqrt(share * size * size)), 1), size)


@torch.no_grad()
def square(forward, x, y, eps, draws, queries=5000, trace=None):
    """Random squares of colour at the ball's border, kept where they lower the margin. Sees logits alone.

    Each image has windows and signs of its own: numbers 0 .. C W of its stream are the stripes it begins with, and then each
    query takes a row, a column and a sign per channel.
    """
    count, channels, height, width = x.shape
    sign = lambda draw: torch.where(draw < 0.5, 1.0, -1.0).to(x.dtype)
    lowest, highest = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    stripes = sign(draws.uniform(everyone(x), 0, channels * width, x.dtype)).view(count, channels, 1, width)
    best = (x + eps * stripes).clamp(0, 1)
    best_margin = margin(forward(best), y)
    rows, columns = torch.arange(height), torch.arange(width)
    for query in range(queries):
        left = (best_margin > 0).nonzero()[:, 0]
        if len(left) == 0:
            break
        length = side(query, height)
        # In double precision a number below 1, times a size, stays below the size.
        drawn = draws.uniform(left, channels * width + query * (2 + channels), 2 + channels, torch.float64)
        corner = lambda draw, size: (draw * (size - length)).floor().long()[:, None]
        top, start = corner(drawn[:, 0], height), corner(drawn[:, 1], width)
        window = ((rows >= top) & (rows < top + length))[:, None, :, None]
        window = window & ((columns >= start) & (columns < start + length))[:, None, None, :]
        current = best[left]
        moved = current + window * (2 * eps * sign(drawn[:, 2:]))[:, :, None, None]
        moved = torch.clamp(moved, lowest[left], highest[left])
        value = margin(forward(moved), y[left])
        accepted = (value < best_margin[left]) | (value <= 0)
        best[left] = torch.where(accepted[:, None, None, None], moved, current)
        best_margin[left] = torch.where(accepted, value, best_margin[left])
        if trace is not None:
            trace.append(best_margin.clone())
    return best
