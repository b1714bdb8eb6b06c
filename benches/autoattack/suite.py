"""Attacks a run's network in plain PyTorch, as `iad-launch eval` does: accuracies as JSON, what became of each image as CSV.

    python benches/autoattack/suite.py runs/fashion_mnist_iad1 --images 256 --csv plain.csv

Needs torch, numpy and h5py, and nothing of the program but its files.
"""

import argparse
import csv
import fractions
import functools
import json
import pathlib
import struct
import sys
import time
import tomllib

import h5py
import torch

root = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.append(str(root / "tests" / "fixtures"))
import common
import plain

# What the fixtures' module sets for itself.
torch.set_default_dtype(torch.float32)

EPS = {"linf": 8 / 255, "l2": 0.5}
STEP = {"linf": 2 / 255, "l2": 15 / 255}
AUTOATTACK = ("apgd_ce", "apgd_t", "fab_t", "square")


def read_weights(path):
    """The header and the tensors of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8 : 8 + length])
    header = json.loads(entries.pop("__metadata__")["iad"])
    dtypes = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
    tensors = {}
    for name, entry in entries.items():
        first, end = (8 + length + offset for offset in entry["data_offsets"])
        values = torch.frombuffer(bytearray(data[first:end]), dtype=dtypes[entry["dtype"]])
        tensors[name.removeprefix("student/")] = values.view(entry["shape"])
    return header, tensors


def network(run, weights):
    header, tensors = read_weights(run / "checkpoints" / f"{weights}.safetensors")
    form = header["form"]
    assert form["architecture"] == "resnet8", f"no plain network for {form['architecture']}"
    model = common.ResNet8(form["image"][0], form["classes"])
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def test_images(run, count):
    config = tomllib.loads((run / "run.toml").read_text())
    with h5py.File(root / config["data"]["test"]) as file:
        pixels, labels = file["test/images"][:count], file["test/labels"][:count]
    return torch.from_numpy(pixels).float() / 255, torch.from_numpy(labels), config["seed"]


def draws_of(name, rank, seed, samples):
    """The program's numbers for an attack: its name, read as a number, is the purpose, and the target's rank the epoch."""
    number = functools.reduce(lambda number, byte: (number * 31 + byte) % 2**32, name.encode(), 0)
    return plain.Keyed(seed, (1 << 32) + number, rank, samples)


def searches(name, classes, eps, norm):
    """What an attack does, one search after the other: the target's rank (else 0), and (forward, x, y, draws) to candidates."""
    ranks = range(2, min(classes, 10) + 1)
    step = STEP[norm]
    match name:
        case "natural":
            return [(0, lambda f, x, y, draws: x)]
        case "fgsm":
            return [(0, lambda f, x, y, draws: plain.pgd(f, x, y, eps, None, steps=1, step=eps, norm=norm))]
        case "fgsm_rs":
            return [(0, lambda f, x, y, draws: plain.pgd(f, x, y, eps, draws, steps=1, step=eps, norm=norm))]
        case "pgd20":
            return [(0, lambda f, x, y, draws: plain.pgd(f, x, y, eps, draws, step=step, norm=norm))]
        case "cw_inf" if norm == "linf":
            return [(0, lambda f, x, y, draws: plain.pgd(f, x, y, eps, draws, plain.cw, steps=30))]
        case "apgd_ce":
            return [(0, lambda f, x, y, draws: plain.apgd(f, x, y, eps, draws, norm=norm))]
        case "apgd_t":
            dlr = lambda f, x, rank: plain.targeted_dlr(plain.targets(f, x, rank))
            return [(r, lambda f, x, y, draws, r=r: plain.apgd(f, x, y, eps, draws, dlr(f, x, r), norm=norm)) for r in ranks]
        case "fab_t":
            fab = lambda f, x, y, rank: plain.fab(f, x, y, eps, plain.targets(f, x, rank), norm=norm)
            return [(r, lambda f, x, y, draws, r=r: fab(f, x, y, r)) for r in ranks]
        case "square":
            search = plain.square_l2 if norm == "l2" else plain.square
            return [(0, lambda f, x, y, draws: search(f, x, y, eps, draws))]
    raise SystemExit(f"unknown attack {name} in {norm}")


def attack(model, name, x, y, alive, draws, batch, eps, norm):
    """What became of the images `alive`: `stands` or `fell`, where there are targets with the rank; and smallest margins."""
    outcomes, margins = dict.fromkeys(alive.tolist(), "stands"), torch.full(y.shape, torch.inf)
    for rank, search in searches(name, model.linear.out_features, eps, norm):
        wrong = torch.zeros_like(y, dtype=torch.bool)
        for samples in alive.split(batch):
            candidates = search(model, x[samples], y[samples], draws(name, rank, samples.tolist()))
            assert plain.distance(norm, candidates - x[samples]).max() <= eps + 1e-6, "a candidate outside the ball"
            with torch.no_grad():
                logits = model(candidates)
            margins[samples] = margins[samples].minimum(plain.margin(logits, y[samples]))
            wrong[samples] = logits.argmax(1) != y[samples]
        outcomes |= dict.fromkeys(alive[wrong[alive]].tolist(), f"fell:{rank}" if rank else "fell")
        alive = alive[~wrong[alive]]
    return alive, outcomes, margins


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--weights", default="best")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--suite", default="autoattack", help="attacks, by commas; autoattack is its four, one after another")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--norm", choices=EPS, default="linf")
    parser.add_argument("--eps", type=lambda text: float(fractions.Fraction(text)), help="as in 4/255; default: 8/255, or 0.5")
    parser.add_argument("--seed", type=int, help="default: the run's")
    parser.add_argument("--draws", choices=("program", "torch", "shared"), default="program")
    parser.add_argument("--csv", type=pathlib.Path, help="a table of what became of each image")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    space = EPS[options.norm] if options.eps is None else options.eps, options.norm
    model = network(options.run, options.weights)
    x, y, seed = test_images(options.run, options.images)
    seed = seed if options.seed is None else options.seed
    generated = plain.Shared(seed) if options.draws == "shared" else plain.Generated(seed)
    keyed = lambda name, rank, samples: draws_of(name, rank, seed, samples)
    draws = keyed if options.draws == "program" else lambda *_: generated

    # Attacks of AutoAttack see the images that are right without them; after one another, those that are left.
    natural, _, _ = attack(model, "natural", x, y, torch.arange(len(x)), draws, options.batch, *space)
    table = {"index": range(len(x)), "label": y.tolist(), "prediction": model(x).argmax(1).tolist()}
    results, smallest = {}, torch.full(y.shape, torch.inf)
    for entry in options.suite.split(","):
        alive, names = natural, AUTOATTACK if entry == "autoattack" else (entry,)
        for name in names:
            label = f"{entry}/{name}" if len(names) > 1 else name
            before = alive if name in AUTOATTACK else torch.arange(len(x))
            began, cpu_began = time.perf_counter(), time.process_time()
            alive, outcomes, margins = attack(model, name, x, y, before, draws, options.batch, *space)
            seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
            smallest = smallest.minimum(margins)
            table[label] = [outcomes.get(i, "-") for i in range(len(x))]
            results[label] = {"attacked": len(before), "correct": len(alive), "seconds": seconds, "cpu_seconds": cpu_seconds}
    table["margin"] = [f"{value:.3g}" for value in smallest.tolist()]
    if options.csv:
        with options.csv.open("w", newline="") as file:
            csv.writer(file).writerows([table.keys(), *zip(*table.values())])
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
