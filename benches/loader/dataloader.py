"""Images a second of a PyTorch DataLoader with 2 workers that pads, crops and flips as our loader does.

Usage: python dataloader.py RUNS
Prints a number for each run. The images are in memory, as those of torchvision's CIFAR-10 are, and stay bytes.
"""

import sys
import time

import numpy
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    def __init__(self, count):
        generator = numpy.random.default_rng(1)
        self.images = torch.from_numpy(generator.integers(0, 256, (count, 3, 32, 32), dtype=numpy.uint8))
        self.labels = torch.arange(count) % 10

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, sample):
        down, right = torch.randint(0, 9, (2,)).tolist()
        image = F.pad(self.images[sample], [4] * 4)[:, down : down + 32, right : right + 32]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return image, self.labels[sample]


def main(runs):
    torch.set_num_threads(1)
    loader = DataLoader(
        Images(50_000), batch_size=128, shuffle=True, num_workers=2, prefetch_factor=4, persistent_workers=True
    )
    for run in range(runs + 1):
        began, images = time.perf_counter(), 0
        for pixels, _ in loader:
            images += len(pixels)
        if run:
            print(images / (time.perf_counter() - began))


if __name__ == "__main__":
    main(int(sys.argv[1]))
