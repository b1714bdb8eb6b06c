"""Judges the adversarial images of `iad-launch eval --save-adversarial` by the network in plain PyTorch.

    python benches/autoattack/judge.py runs/fashion_mnist_iad1 adversarial.h5 [l2 0.5]
"""

import pathlib
import sys

import h5py
import torch

import plain
import suite

run, path = map(pathlib.Path, sys.argv[1:3])
norm, eps = (sys.argv[3], float(sys.argv[4])) if len(sys.argv) > 3 else ("linf", suite.EPS["linf"])
model = suite.network(run, "best")
with h5py.File(path) as file:
    images, labels, predictions = (torch.from_numpy(file[name][:]) for name in ("images", "labels", "predictions"))
natural, expected, _ = suite.test_images(run, len(images))
assert labels.equal(expected), "the labels are not those of the test set"

torch.set_num_threads(1)
with torch.no_grad():
    logits = torch.cat([model(part) for part in images.split(500)])
distance = plain.distance(norm, images - natural).max().item()
assert distance <= eps + 1e-6 and images.min() >= 0 and images.max() <= 1, "an image outside the ball or [0, 1]"
found = logits.argmax(1)
differ = (found != predictions).nonzero()[:, 0].tolist()
margins = plain.margin(logits, labels)[differ].tolist()
print(f"farthest image: {distance * 255:.6f} / 255 in {norm}")
print(f"right on {(found == labels).sum()} of {len(labels)} images; the program says {(predictions == labels).sum()}")
print(f"other predictions on {len(differ)} images: " + ", ".join(f"{i} (margin {m:.2g})" for i, m in zip(differ, margins)))
