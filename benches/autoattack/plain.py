"""The standard suite of AutoAttack (Croce and Hein 2020) in L-infinity and L2, FGSM, PGD and CW in plain PyTorch.

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

    def normal(self, rows, count, dtype):
        return torch.randn(len(rows), count, generator=self.generator, dtype=dtype)


class Shared(Generated):
    """As AutoAttack draws: in Square, all images of a batch share a query's window and signs."""

    def uniform(self, rows, first, count, dtype):
        drawn = super().uniform(rows[:1] if first > 0 else rows, first, count, dtype)
        return drawn.expand(len(rows), count)


class Keyed:
    """The program's numbers (datasets/src/ground/random.rs): a function of seed, purpose, epoch, sample and element."""

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

    def normal(self, rows, count, dtype):
        """Elements `0 .. count` by the quantile function in the middles of 2^16 equal parts."""
        part = (self.uniform(rows, 0, count, torch.float64) * 2**16).floor()
        return (torch.erfinv((part + 0.5) / 2**16 * 2 - 1) * math.sqrt(2)).to(dtype)


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


# The norm.


def length(v):
    return v.square().sum((1, 2, 3), keepdim=True).sqrt()


def unit(v):
    return v / (length(v) + 1e-12)


def distance(norm, v):
    return length(v)[:, 0, 0, 0] if norm == "l2" else v.abs().amax((1, 2, 3))


def projection(norm, x, eps):
    """Onto the ball around `x`, and then onto [0, 1]; and the steepest direction."""
    if norm == "l2":
        onto_ball = lambda v: x + unit(v - x) * length(v - x).clamp(max=eps)
        return lambda v: onto_ball(v).clamp(0, 1), unit
    lowest, highest = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    return lambda v: torch.clamp(v, lowest, highest), torch.sign


# Attacks.


def pgd(forward, x, y, eps, draws, objective=cross_entropy, steps=20, step=2 / 255, norm="linf"):
    """Steepest steps from a random start; FGSM is one step of length eps, from the image itself without `draws`."""
    project, steepest = projection(norm, x, eps)
    point, pixels = x.clone(), x[0].numel()
    if draws is not None and norm == "l2":
        radius = eps * draws.uniform(everyone(x), pixels, 1, x.dtype)[:, :, None, None]
        point = (x + unit(draws.normal(everyone(x), pixels, x.dtype).view_as(x)) * radius).clamp(0, 1)
    elif draws is not None:
        point = (x + (2 * draws.uniform(everyone(x), 0, pixels, x.dtype).view_as(x) - 1) * eps).clamp(0, 1)
    for _ in range(steps):
        point.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(forward(point), y).sum(), point)
        point = project(point.detach() + step * steepest(gradient))
    return point


def apgd(forward, x, y, eps, draws, objective=cross_entropy, steps=100, first=0, trace=None, norm="linf"):
    """Ascent with momentum that halves an image's step, and returns to its best point, when it stops gaining.

    `first` is the first element of the start's draws in L-infinity. `trace` collects each evaluated point with its values, and the step
    that led to it.
    """
    project, steepest = projection(norm, x, eps)
    column = lambda values: values[:, None, None, None]

    def evaluate(point):
        point = point.detach().requires_grad_()
        logits = forward(point)
        values = objective(logits, y)
        (gradient,) = torch.autograd.grad(values.sum(), point)
        return values.detach(), gradient, logits.argmax(1) != y

    if norm == "l2":
        start = unit(draws.normal(everyone(x), x[0].numel(), x.dtype).view_as(x))
    else:
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
        moved = project(point + column(step) * steepest(gradient))
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


def project_onto_plane_l2(points, w, b):
    """The shortest move of each of `points [N, d]` onto its plane w.v = b within the unit cube, found by bisection."""
    residual = (w * points).sum(1) - b
    w, need = torch.where(residual[:, None] < 0, -w, w), residual.abs()
    w = torch.where(w.abs() < 1e-8, torch.zeros_like(w), w)
    room = torch.where(w > 0, points, 1 - points)
    move = lambda factor: torch.minimum(factor[:, None] * w.abs(), room)
    gain = lambda factor: (w.abs() * move(factor)).sum(1)
    low, high = torch.zeros_like(need), torch.ones_like(need)
    for _ in range(200):
        short = gain(high) < need
        high = torch.where(short & (high < 1e15), high * 2, high)
    for _ in range(200):
        middle = (low + high) / 2
        short = gain(middle) < need
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return -w.sign() * move(high)


def fab(forward, x, y, eps, target, steps=100, trace=None, norm="linf"):
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
        onto_plane = project_onto_plane_l2 if norm == "l2" else project_onto_plane
        moves = onto_plane(torch.cat([point, x]).flatten(1), w.repeat(2, 1), b.repeat(2))
        move, move_from_image = moves.view(2, *x.shape)
        near, far = (distance(norm, way).clamp(min=1e-8) for way in (move, move_from_image))
        share = column((near / (near + far)).clamp(max=0.1))
        point = ((point + 1.05 * move) * (1 - share) + (x + 1.05 * move_from_image) * share).clamp(0, 1)
        with torch.no_grad():
            wrong = forward(point).argmax(1) != y
        away = distance(norm, point - x)
        nearer = wrong & (away < shortest)
        shortest = torch.where(nearer, away, shortest)
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


def pyramid(rows, columns):
    """Rings around the middle: ring by ring outwards, 1/k^2 is added to all within. Of length 1."""
    heights = torch.zeros(rows, columns, dtype=torch.float64)
    row, column = rows // 2, columns // 2
    for k in range(max(row + 1, column + 1)):
        heights[max(row - k, 0) : row + k + 1, max(column - k, 0) : column + k + 1] += 1 / (k + 1) ** 2
    return heights / heights.norm()


def bump(size):
    upper = pyramid(size // 2, size) if size > 1 else torch.zeros(0, 1, dtype=torch.float64)
    both = torch.cat([upper, -pyramid(size - size // 2, size)])
    return both / both.norm()


@torch.no_grad()
def square_l2(forward, x, y, eps, draws, queries=5000, trace=None):
    """Square in L2: bumps in windows, each paid for by emptying another window.

    Numbers of an image's stream: for each of the first bumps how it lies and a sign per channel; then for each query the
    corners of two windows (row, column, row, column), how the bump lies and a sign per channel.
    """
    count, channels, height, width = x.shape
    lying = lambda block, draw: block.T if draw > 0.5 else block
    sign = lambda draw: torch.where(draw > 0.5, 1.0, -1.0).to(x.dtype)[:, None, None]
    tile = max(min(height, width) // 5, 1)
    rows, columns = min(5, height // tile), min(5, width // tile)
    first = rows * columns * (1 + channels)
    drawn = draws.uniform(everyone(x), 0, first, torch.float64).view(count, rows, columns, 1 + channels)
    delta = torch.zeros_like(x)
    for image in range(count):
        for row in range(rows):
            for column in range(columns):
                top, left = (height - rows * tile) // 2 + row * tile, (width - columns * tile) // 2 + column * tile
                numbers = drawn[image, row, column]
                block = lying(bump(tile).to(x.dtype), numbers[0]) * sign(numbers[1:])
                delta[image, :, top : top + tile, left : left + tile] = block
    best = (x + eps * unit(delta)).clamp(0, 1)
    best_margin = margin(forward(best), y)
    for query in range(queries):
        left = (best_margin > 0).nonzero()[:, 0]
        if len(left) == 0:
            break
        size = max(side(query, min(height, width)), 3)
        size = min(size + (size % 2 == 0), height, width)
        drawn = draws.uniform(left, first + query * (5 + channels), 5 + channels, torch.float64)
        delta = best[left] - x[left]
        for change, numbers in zip(delta, drawn):
            corner = lambda draw, extent: int(draw * (extent - size))
            place = lambda r, c: (slice(None), slice(r, r + size), slice(c, c + size))
            one = place(corner(numbers[0], height), corner(numbers[1], width))
            two = place(corner(numbers[2], height), corner(numbers[3], width))
            union = torch.zeros_like(change)
            union[one] = union[two] = 1
            square_of = lambda v: v.square().sum((1, 2), keepdim=True)
            unused = (eps**2 - change.square().sum()).clamp(min=0) / channels
            here = change[one]
            new = lying(bump(size).to(x.dtype), numbers[4]) * sign(numbers[5:]) + here / (1e-12 + square_of(here).sqrt())
            new = new / (1e-12 + square_of(new).sqrt()) * (unused + square_of(change * union)).sqrt()
            change[two] = 0
            change[one] = new
        moved = (x[left] + eps * unit(delta)).clamp(0, 1)
        value = margin(forward(moved), y[left])
        accepted = (value < best_margin[left]) | (value <= 0)
        best[left] = torch.where(accepted[:, None, None, None], moved, best[left])
        best_margin[left] = torch.where(accepted, value, best_margin[left])
        if trace is not None:
            trace.append(best_margin.clone())
    return best
