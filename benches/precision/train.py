"""Trains one configuration in each number format and layout, with the same seeds, and prints what came of it."""

import argparse
import json
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KINDS = [("float32", False), ("float32", True), ("bfloat16", False), ("bfloat16", True)]


def train(options, dtype, channels_last, seed):
    """One run, and its numbers."""
    run = options.out / f"{dtype}{'-channels-last' if channels_last else ''}-seed{seed}"
    changes = {
        "precision.dtype": dtype, "precision.channels_last": str(channels_last).lower(), "seed": seed,
        "epochs": options.epochs, "evaluation.suite": '["natural", "pgd20"]',
    }
    command = [options.program, options.config, "--run", run, "--ranks", options.ranks]
    for key, value in changes.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run([*map(str, command)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [event for event in events if event["event"] == "epoch"]
    attacks = json.loads((run / "evaluation.json").read_text())["attacks"]
    accuracy = {attack["name"]: attack["correct"] / attack["of"] for attack in attacks}
    seconds = sum(event["timing"]["seconds"] for event in epochs)
    return {"dtype": dtype, "channels_last": channels_last, "seed": seed, "loss": epochs[-1]["loss"], "seconds": seconds, **accuracy}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=pathlib.Path, default=pathlib.Path("configs/quickstart/quickstart.toml"))
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/iad-launch")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs/precision")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--tf32", action="store_true", help="TF32 too, which is float32 on a CPU")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    found = []
    print("| dtype | channels last | seed | natural | PGD-20 | loss | seconds |\n|---|---|---|---|---|---|---|")
    for seed in range(1, options.seeds + 1):
        for dtype, channels_last in [*KINDS, *([("tf32", False)] if options.tf32 else [])]:
            row = train(options, dtype, channels_last, seed)
            found.append(row)
            accuracies = f"{row['natural']:.4f} | {row['pgd20']:.4f}"
            print(f"| {dtype} | {channels_last} | {seed} | {accuracies} | {row['loss']:.4f} | {row['seconds']:.1f} |", flush=True)
            (options.out / "precision.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
