"""How long a run takes from its launch to the end of its first step.

    python3 benches/start/start.py CONFIG.toml [--ranks 2] [--repeats 5] [--json FILE]

The data and teachers of CONFIG must be there. Each repeat begins a new run under mpirun, waits for the first `step` in its
metrics, and stops it; the page cache is warm from the first one on, which is told apart.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/release/iad-launch"


def seconds_to_first_step(config, ranks, folder):
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // ranks))
    mpirun = environment.get("IAD_MPIRUN", "mpirun")
    command = [mpirun, "-n", str(ranks), "--oversubscribe", "--bind-to", "none", str(PROGRAM), str(config)]
    command += ["--run", str(folder), "--stop-after-steps", "1"]
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        metrics = folder / "metrics.jsonl"
        first = None
        while first is None and run.poll() is None:
            if metrics.exists() and '"event":"step"' in metrics.read_text():
                first = time.perf_counter() - began
            time.sleep(0.002)
        _, said = run.communicate()
    if first is None:
        # It stopped between two looks: its end is after its first step.
        first = time.perf_counter() - began
    if run.returncode != 85:
        raise SystemExit(f"{' '.join(command)} ended with {run.returncode}:\n{said}")
    return first


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("config", type=Path)
    options.add_argument("--ranks", type=int, default=2)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--json", type=Path)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = [
            seconds_to_first_step(options.config.resolve(), options.ranks, Path(folder) / f"run-{repeat}")
            for repeat in range(options.repeats + 1)
        ]
    result = {
        "config": options.config.name,
        "ranks": options.ranks,
        "first_s": round(times[0], 3),
        "median_s": round(statistics.median(times[1:]), 3),
        "all_s": [round(seconds, 3) for seconds in times],
    }
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
