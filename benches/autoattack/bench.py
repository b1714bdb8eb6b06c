"""Times the attacks of `iad-launch eval` against plain.py, in turn, each in a process of its own on one core and one thread.

    python benches/autoattack/bench.py runs/fashion_mnist_iad1 --core 1 > raw.csv

Processor seconds are those of the whole process less those of the same program for the natural pass alone, so that start-up
and loading do not count. Wall seconds are the programs' own clocks around the attack.
"""

import argparse
import csv
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

here = pathlib.Path(__file__).resolve().parent


def processor_seconds(command, core):
    """Runs it, and returns its processor seconds and what it printed."""
    usage = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before = usage()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["taskset", "-c", str(core), *map(str, command)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command} failed:\n{done.stderr}")
    return usage() - before, done.stdout


def ours(options, attack, images):
    with tempfile.TemporaryDirectory() as out:
        command = [options.program, "eval", options.run, "--suite", attack, "--images", images, "--batch", options.batch]
        seconds, _ = processor_seconds([*command, "--ranks", 1, "--device", "cpu", "--out", out], options.core)
        (file,) = pathlib.Path(out).glob("*.json")
        found = json.loads(file.read_text())
    (correct,) = (entry["correct"] for entry in found["attacks"] if entry["name"] == attack)
    return seconds, found["seconds"][attack], correct


def plain(options, attack, images):
    command = [sys.executable, here / "suite.py", options.run, "--suite", attack, "--images", images]
    seconds, text = processor_seconds([*command, "--batch", options.batch, "--draws", options.draws], options.core)
    found = json.loads(text)[attack]
    return seconds, found["seconds"], found["correct"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--program", type=pathlib.Path, default=here.parent.parent / "target/release/iad-launch")
    parser.add_argument("--attacks", default="pgd20=1024,cw_inf=1024,apgd_ce=572,apgd_t=143,fab_t=143,square=143")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--draws", choices=("program", "torch"), default="torch")
    options = parser.parse_args()

    table = csv.writer(sys.stdout)
    table.writerow(["attack", "images", "repeat", "side", "processor_seconds", "wall_seconds", "correct"])
    sides = {"ours": ours, "plain": plain}
    for entry in options.attacks.split(","):
        attack, images = entry.split("=")
        spent = {side: [] for side in sides}
        for repeat in range(options.repeats):
            for side in sorted(sides, reverse=repeat % 2 == 1):
                idle, _, _ = sides[side](options, "natural", images)
                seconds, wall, correct = sides[side](options, attack, images)
                spent[side].append(seconds - idle)
                table.writerow([attack, images, repeat, side, f"{seconds - idle:.3f}", f"{wall:.3f}", correct])
                sys.stdout.flush()
        ratios = [plain / ours for plain, ours in zip(spent["plain"], spent["ours"])]
        speed = {side: int(images) / statistics.median(seconds) for side, seconds in spent.items()}
        print(
            f"{attack}: ours {speed['ours']:.1f}, plain {speed['plain']:.1f} images/s; plain / ours median "
            f"{statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
