"""Attacks a run's network in plain PyTorch, as `iad-launch eval` does: accuracies as JSON, outcomes of each image as CSV.

    python benches/autoattack/suite.py runs/fashion_mnist_iad1 --images 256 --csv plain.csv

Needs torch, numpy and h5py, and nothing of the program but its files.
"""

import argparse
import csv
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


def purpose(name):
    """The number of an attack's stream: 2^32 and the name read as a number."""
    return (1 << 32) + functools.reduce(lambda number, byte: (number * 31 + byte) % 2**32, name.encode(), 0)


def searches(name, classes):
    """An attack as the searches that it makes one after the other: (forward, x, y, draws) to candidates."""
    eps = 8 / 255
    ranks = range(2, min(classes, 10) + 1)
    match name:
        case "natural":
            return [lambda f, x, y, draws: x]
        case "fgsm":
            return [lambda f, x, y, draws: plain.pgd(f, x, y, eps, None, steps=1, step=eps)]
        case "fgsm_rs":
            return [lambda f, x, y, draws: plain.pgd(f, x, y, eps, draws, steps=1, step=eps)]
        case "pgd20":
            return [lambda f, x, y, draws: plain.pgd(f, x, y, eps, draws)]
        case "cw_inf":
            return [lambda f, x, y, draws: plain.pgd(f, x, y, eps, draws, plain.cw, steps=30)]
        case "apgd_ce":
            return [lambda f, x, y, draws: plain.apgd(f, x, y, eps, draws)]
        case "apgd_t":
            return [
                lambda f, x, y, draws, r=r: plain.apgd(f, x, y, eps, draws, plain.targeted_dlr(plain.targets(f, x, r)))
                for r in ranks
            ]
        case "fab_t":
            return [lambda f, x, y, draws, r=r: plain.fab(f, x, y, eps, plain.targets(f, x, r)) for r in ranks]
        case "square":
            return [lambda f, x, y, draws: plain.square(f, x, y, eps, draws)]
    raise SystemExit(f"unknown attack {name}")


def attack(model, name, x, y, alive, draws_of, batch):
    """The images of `alive` that stay right under an attack, and the smallest margins that it left to each."""
    margins = torch.full(y.shape, torch.inf)
    for number, search in enumerate(searches(name, model.linear.out_features)):
        wrong = torch.zeros_like(y, dtype=torch.bool)
        for samples in alive.split(batch):
            candidates = search(model, x[samples], y[samples], draws_of(name, number, samples.tolist()))
            assert (candidates - x[samples]).abs().max() <= 8 / 255 + 1e-6, "a candidate outside the ball"
            with torch.no_grad():
                logits = model(candidates)
            margins[samples] = margins[samples].minimum(plain.margin(logits, y[samples]))
            wrong[samples] = logits.argmax(1) != y[samples]
        alive = alive[~wrong[alive]]
    return alive, margins


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--weights", default="best")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--suite", default="natural,autoattack", help="attacks, by commas; autoattack is the four in turn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--draws", choices=("program", "torch"), default="program")
    parser.add_argument("--csv", type=pathlib.Path, help="outcomes of each image")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    model = network(options.run, options.weights)
    x, y, seed = test_images(options.run, options.images)
    generated = plain.Generated(seed)
    keyed = lambda name, number, samples: plain.Keyed(seed, purpose(name), samples)
    draws_of = keyed if options.draws == "program" else lambda *_: generated

    results, outcomes = {}, []
    for entry in options.suite.split(","):
        began = time.perf_counter()
        # Of AutoAttack, each attack sees the images that all before left right; other attacks see every image.
        names = ("natural", *AUTOATTACK) if entry == "autoattack" else (entry,)
        alive, parts = torch.arange(len(x)), {}
        for name in names:
            started, before = time.perf_counter(), alive
            alive, margins = attack(model, name, x, y, alive, draws_of, options.batch)
            parts[name] = {"correct": len(alive), "seconds": time.perf_counter() - started}
            right = set(alive.tolist())
            outcomes += [(entry, name, i, int(i in right), margins[i].item()) for i in before.tolist()]
        results[entry] = {"correct": len(alive), "of": len(x), "seconds": time.perf_counter() - began, "parts": parts}
    if options.csv:
        with options.csv.open("w", newline="") as file:
            csv.writer(file).writerows([("suite", "attack", "image", "right", "margin"), *outcomes])
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
