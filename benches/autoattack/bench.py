"""Times the attacks of `iad-launch eval` against plain.py, in turn, each in a process of its own on one core and one thread.

    python benches/autoattack/bench.py runs/fashion_mnist_iad1 --core 1 > raw.csv
    python benches/autoattack/bench.py runs/fashion_mnist_iad1 --core 1 --attacks autoattack=256 --eps 24/255 > suite.csv

Of a suite, each attack has a line of its own besides the whole: its wall seconds, on the images that the attacks before it left.

Processor seconds are those of the whole process less those of the same program for the natural pass alone, so that start-up
and loading do not count. Wall seconds are the programs' own clocks around the attack.
"""

import argparse
import collections
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
    """Its processor seconds; wall seconds and images left of the attack and, where it is a suite, of each of its attacks."""
    with tempfile.TemporaryDirectory() as out:
        command = [options.program, "eval", options.run, "--suite", attack, "--images", images, "--batch", options.batch]
        command += ["--ranks", 1, "--device", "cpu", "--out", out, *options.radius]
        seconds, _ = processor_seconds(command, options.core)
        (file,) = pathlib.Path(out).glob("*.json")
        found = json.loads(file.read_text())
    left = {entry["name"]: entry["correct"] for entry in found["attacks"]}
    left |= {f"{attack}/{entry['name']}": entry["correct"] for entry in found["components"].get(attack, [])}
    names = [name for name in left if name.split("/")[0] == attack]
    return seconds, {name: (found["seconds"][name], left[name]) for name in names}


def plain(options, attack, images):
    command = [sys.executable, here / "suite.py", options.run, "--suite", attack, "--images", images]
    command += ["--batch", options.batch, "--draws", options.draws, *options.radius]
    seconds, text = processor_seconds(command, options.core)
    parts = {name: (found["seconds"], found["correct"]) for name, found in json.loads(text).items()}
    whole = sum(wall for wall, _ in parts.values()), list(parts.values())[-1][1]
    return seconds, parts | {attack: whole}


def ratio(seconds):
    """The ratios of the repeats, in words."""
    ratios = [plain / ours for plain, ours in zip(seconds["plain"], seconds["ours"])]
    return f"plain / ours median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--program", type=pathlib.Path, default=here.parent.parent / "target/release/iad-launch")
    parser.add_argument("--attacks", default="pgd20=1024,cw_inf=1024,apgd_ce=572,apgd_t=143,fab_t=143,square=143")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--eps", help="radius of the attacks, as in 4/255; default: the run's")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--draws", choices=("program", "torch"), default="torch")
    options = parser.parse_args()
    options.radius = ["--eps", options.eps] if options.eps else []

    table = csv.writer(sys.stdout)
    table.writerow(["attack", "images", "repeat", "side", "processor_seconds", "wall_seconds", "correct"])
    sides = {"ours": ours, "plain": plain}
    for entry in options.attacks.split(","):
        attack, images = entry.split("=")
        spent = {side: [] for side in sides}
        walls = collections.defaultdict(lambda: {side: [] for side in sides})
        for repeat in range(options.repeats):
            for side in sorted(sides, reverse=repeat % 2 == 1):
                idle, _ = sides[side](options, "natural", images)
                seconds, parts = sides[side](options, attack, images)
                spent[side].append(seconds - idle)
                for name, (wall, correct) in parts.items():
                    walls[name][side].append(wall)
                    processor = f"{seconds - idle:.3f}" if name == attack else ""
                    table.writerow([name, images, repeat, side, processor, f"{wall:.3f}", correct])
                sys.stdout.flush()
        speed = {side: int(images) / statistics.median(seconds) for side, seconds in spent.items()}
        told = f"ours {speed['ours']:.1f}, plain {speed['plain']:.1f} images/s of processor time; {ratio(spent)}"
        print(f"{attack}: {told}", file=sys.stderr)
        for name, seconds in walls.items():
            if name != attack:
                medians = {side: statistics.median(values) for side, values in seconds.items()}
                told = f"ours {medians['ours']:.2f} s, plain {medians['plain']:.2f} s; {ratio(seconds)}"
                print(f"{name}: {told}", file=sys.stderr)


if __name__ == "__main__":
    main()
