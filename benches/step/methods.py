"""The steps of AT, TRADES, IAD-I and IAD-II (after their warm-up) in plain PyTorch.

`Step` is what somebody who knows PyTorch writes: gradients of the images alone in the attack, each prediction once, no
value brought to the host, a fused optimizer. `ReferenceStep` is the same mathematics in the way of the published scripts:
full backward passes in the attack, predictions made again, the trust computed sample by sample.
"""

import contextlib

import torch
import torch.nn.functional as F

EPS, LENGTH, STEPS, EXPONENT = 8 / 255, 2 / 255, 10, 0.1


def kl(guide, student):
    """KL(softmax(guide) || softmax(student)), the mean over the batch."""
    guide, student = F.log_softmax(guide, 1), F.log_softmax(student, 1)
    return (guide.exp() * (guide - student)).sum(1)


class Step:
    def __init__(self, method, student, teachers, rate=0.001, bfloat16=False, compile=None, wrap=None):
        self.method, self.student, self.teachers = method, student, teachers
        self.device = next(student.parameters()).device.type
        self.bfloat16 = bfloat16
        for teacher in teachers.values():
            teacher.eval().requires_grad_(False)
        fused = dict(fused=True) if not isinstance(self, ReferenceStep) else {}
        self.optimizer = torch.optim.SGD(student.parameters(), rate, momentum=0.9, weight_decay=2e-4, **fused)
        self.trained = wrap(student) if wrap else student
        self.asked = dict(teachers)
        if bfloat16:
            # Frozen weights are cast once; autocast would do it at every use.
            for teacher in teachers.values():
                for module in teacher.modules():
                    if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                        module.to(torch.bfloat16)
        if compile:
            options = {} if compile == "default" else {"mode": compile}
            self.trained = torch.compile(self.trained, **options)
            self.asked = {name: torch.compile(teacher, **options) for name, teacher in teachers.items()}

    def autocast(self):
        return torch.autocast(self.device, torch.bfloat16) if self.bfloat16 else contextlib.nullcontext()

    def network(self):
        """The student without the wrapper that sends gradients: the attack has none to send."""
        return self.trained.module if isinstance(self.trained, torch.nn.parallel.DistributedDataParallel) else self.trained

    def logits(self, network, x):
        with self.autocast():
            logits = network(x)
        return logits.float()

    @torch.no_grad()
    def teacher(self, name, *batches):
        logits = self.logits(self.asked[name], torch.cat(batches) if len(batches) > 1 else batches[0])
        return logits.chunk(len(batches)) if len(batches) > 1 else logits

    def attack(self, x, start, objective):
        lowest, highest = (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
        point, network = start, self.network()
        for _ in range(STEPS):
            point = point.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(self.logits(network, point)), point)
            point = torch.clamp(point.detach() + LENGTH * gradient.sign(), lowest, highest)
        return point

    def loss(self, x, y, start):
        student, method = self.trained, self.method
        if method in ("at", "trades"):
            self.student.eval()
            if method == "at":
                objective = lambda logits: F.cross_entropy(logits, y, reduction="sum")
            else:
                with torch.no_grad():
                    natural = self.logits(self.network(), x)
                objective = lambda logits: kl(natural, logits).sum()
            adversarial = self.attack(x, start, objective)
            self.student.train()
            if method == "at":
                return F.cross_entropy(self.logits(student, adversarial), y)
            natural = self.logits(student, x)
            return F.cross_entropy(natural, y) + 6 * kl(natural, self.logits(student, adversarial)).mean()
        self.student.train()
        adversarial = self.attack(x, start, lambda logits: F.cross_entropy(logits, y, reduction="sum"))
        found = self.logits(student, adversarial)
        if method == "iad-1":
            on_natural, on_adversarial = self.teacher("robust", x, adversarial)
            alpha = F.log_softmax(on_adversarial, 1).gather(1, y[:, None])[:, 0].mul(EXPONENT).exp()
            own = kl(self.logits(student, x), found)
            return (kl(on_natural, found) + (1 - alpha) * own).mean()
        robust, standard = self.teacher("robust", adversarial), self.teacher("standard", adversarial)
        alpha = F.log_softmax(robust, 1).gather(1, y[:, None])[:, 0].mul(EXPONENT).exp()
        own = kl(self.logits(student, x), found)
        label = F.cross_entropy(found, y)
        return 0.25 * label + (0.5 * alpha * kl(robust, found) + 0.5 * (1 - alpha) * own).mean() + 0.25 * kl(standard, found).mean()

    def run(self, x, y, start):
        """The loss before the update."""
        loss = self.loss(x, y, start)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class ReferenceStep(Step):
    """The same step by the ways of the published scripts."""

    def attack(self, x, start, objective):
        point = start
        for _ in range(STEPS):
            point = point.detach().requires_grad_()
            objective(self.logits(self.student, point)).backward()  # Gradients of all weights come along.
            point = point.detach() + LENGTH * point.grad.sign()
            point = torch.clamp(torch.min(torch.max(point, x - EPS), x + EPS), 0, 1)
        return point

    def trust(self, logits, y):
        alpha = torch.empty(len(y), device=y.device)
        for sample in range(len(y)):
            alpha[sample] = F.softmax(logits, 1)[sample][y[sample].item()].item() ** EXPONENT
        return alpha

    def loss(self, x, y, start):
        if self.method not in ("iad-1", "iad-2"):
            return super().loss(x, y, start)
        self.student.train()
        adversarial = self.attack(x, start, lambda logits: F.cross_entropy(logits, y, reduction="sum"))
        self.student.zero_grad()
        found = self.logits(self.student, adversarial)
        if self.method == "iad-1":
            on_natural, on_adversarial = self.teacher("robust", x), self.teacher("robust", adversarial)
            self.logits(self.student, adversarial).detach()  # "basicop"
            unused = F.cross_entropy(self.logits(self.student, x), y)
            own = kl(self.logits(self.student, x), found)
            alpha = self.trust(on_adversarial, y)
            return (kl(on_natural, found) + (1 - alpha) * own).mean() + 0 * unused
        robust, standard = self.teacher("robust", adversarial), self.teacher("standard", adversarial)
        again = self.teacher("robust", adversarial)
        own = kl(self.logits(self.student, x), found)
        alpha = self.trust(again, y)
        label = F.cross_entropy(found, y)
        return 0.25 * label + (0.5 * alpha * kl(robust, found) + 0.5 * (1 - alpha) * own).mean() + 0.25 * kl(standard, found).mean()
