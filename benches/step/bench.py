"""Times the step of `iad-launch` against PyTorch, side by side, and writes the numbers down.

    python benches/step/bench.py               # all of it: some 20 minutes on two cores
    python benches/step/bench.py --quick       # about 4 minutes
    python benches/step/bench.py --device cuda # the same on a GPU

Both sides begin with the same weights and images, which the program writes to a file. Before anything is timed the losses
of two steps must agree. Then each side takes a step in turn, in an order that is reversed each round; all processes but one
wait meanwhile. A section that is done is kept: the same command goes on after an interruption. Needs torch and numpy.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = HERE.parent.parent / "target/release/iad-launch"
# How far the losses of the first two steps may be from those of plain float32. Ten steps along signs of gradients, some of
# them close to zero, lie between the two; `parity` compares two steps with one attack step each more closely.
TOLERANCE = {"float32": (1e-3, 5e-2), "bfloat16": (2e-2, 1e-1), "tf32": (5e-3, 5e-2)}
PARITY = 1e-4


# Without TF32, as plain.py computes.
FLOAT32 = ["precision.dtype=float32", "precision.name=strict"]


def ours(dtype, *changes):
    return ["ours", dtype, [*(FLOAT32 if dtype == "float32" else [f"precision.dtype={dtype}"]), *changes]]


def plain(dtype, *options):
    return ["plain", dtype, [*(["--bfloat16"] if dtype == "bfloat16" else []), *options]]


LAST = "precision.channels_last=true"
BOTH = {
    "ours float32": ours("float32"),
    "plain float32": plain("float32"),
    "ours bfloat16 channels last": ours("bfloat16", LAST),
    "plain bfloat16 channels last": plain("bfloat16", "--channels-last"),
}
MORE = {
    "ours float32 channels last": ours("float32", LAST),
    "ours bfloat16": ours("bfloat16"),
    "plain float32 channels last": plain("float32", "--channels-last"),
    "ours float32, all diagnostics": ours("float32", "metrics.diagnostics=full"),
    "reference float32": plain("float32", "--reference"),
}
COMPILED = {
    "ours bfloat16 channels last": BOTH["ours bfloat16 channels last"],
    "ours float32": BOTH["ours float32"],
    "plain float32": BOTH["plain float32"],
    "compiled float32": plain("float32", "--compile", "default"),
    "compiled bfloat16 channels last": plain("bfloat16", "--channels-last", "--compile", "default"),
    "compiled bfloat16 channels last, max-autotune": plain("bfloat16", "--channels-last", "--compile", "max-autotune"),
}
GPU = {
    "ours bfloat16 channels last, graphs": ours("bfloat16", LAST, "precision.cuda_graphs=true"),
    "ours tf32": ours("tf32", LAST),
    "plain tf32": plain("tf32", "--tf32", "--channels-last"),
    "compiled bfloat16 channels last, reduce-overhead": plain("bfloat16", "--channels-last", "--compile", "reduce-overhead"),
}


class Bench:
    def __init__(self, options):
        self.options = options
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="iad-bench-"))
        self.environment = {
            **os.environ, "OMP_NUM_THREADS": str(options.threads), "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }

    def our_command(self, method, changes, *more):
        settings = [f"loss.preset={method}", f"batch.size={self.options.batch}", *changes]
        settings = [word for setting in settings for word in ("--set", setting)]
        device = ["--device", "cpu"] if self.options.device == "cpu" else []
        return [self.options.program, "bench", "step", HERE / "step.toml", "--epoch", 199, *device, *settings, *more]

    def plain_command(self, state, method, words, *more):
        command = [sys.executable, HERE / "plain.py", state, "--method", method, "--device", self.options.device]
        return [*command, "--threads", self.options.threads, *words, *more]

    def state(self, method):
        """The file with which both sides begin."""
        path = self.folder / f"{method}.safetensors"
        if not path.exists():
            command = self.our_command(method, [], "--save", path, "--steps", 1, "--ranks", 1)
            subprocess.run([*map(str, command)], check=True, env=self.environment, stdout=subprocess.PIPE)
        return path

    def command(self, side, method, *more):
        kind, _, words = side
        if kind == "ours":
            return self.our_command(method, words, "--ranks", 1, *more)
        return self.plain_command(self.state(method), method, words, *more)

    def parity(self, method):
        """Ends the program unless two steps in float32, each with one attack step, have the same losses on both sides."""
        changes = [*FLOAT32, "attack.steps=1"]
        both = (
            self.our_command(method, changes, "--ranks", 1, "--steps", 2),
            self.plain_command(self.state(method), method, ["--attack-steps", 1, "--steps", 2]),
        )
        losses = [[line["loss"] for line in run([(command, self.environment)])[0][1:]] for command in both]
        print(f"  with one attack step, ours {losses[0]}, plain {losses[1]}", file=sys.stderr, flush=True)
        if any(abs(one - other) > PARITY * abs(other) for one, other in zip(*losses)):
            raise SystemExit(f"{method}: other losses than in PyTorch: {losses}")

    def steps(self, method, sides, rounds):
        """Wall and processor seconds of each side's steps, taken in turn."""
        self.parity(method)
        workers = {}
        try:
            found = {}
            for name, side in sides.items():
                workers[name] = Worker(self.command(side, method), self.environment)
                # Both steps warm up, the first one compiles; they are compared and not timed.
                found[name] = {"losses": [workers[name].step()["loss"] for _ in range(2)], "seconds": [], "processor": []}
                print(f"  {name}: losses {found[name]['losses']}", file=sys.stderr, flush=True)
            check(method, sides, found)
            if self.options.device == "cuda":
                # Graphs are recorded, and caches filled, in the first steps.
                [worker.step() for worker in workers.values() for _ in range(4)]
            take_turns(workers, found, rounds)
            return found
        finally:
            for worker in workers.values():
                worker.end()

    def ranks(self, method, rounds, ranks=2):
        """Steps of one batch on two ranks of one thread each: a process group of its own every time."""
        found = {}
        ours_local = ["precision.dtype=float32", "batch_norm.across_ranks=local"]
        jobs = {
            "ours float32, batch norm of each rank": lambda: self.our_command(method, ours_local),
            "ours float32, batch norm across ranks": lambda: self.our_command(method, ["precision.dtype=float32"]),
            "plain float32, DistributedDataParallel": None,
        }
        state = self.state(method)
        for turn in range(rounds):
            for name in sorted(jobs, reverse=turn % 2 == 1):
                if jobs[name]:
                    command = [*jobs[name](), "--ranks", ranks, "--steps", 4]
                    environment = {**self.environment, "OMP_NUM_THREADS": "1"}
                    lines, processor = run([(command, environment)])
                else:
                    with socket.socket() as free:
                        free.bind(("127.0.0.1", 0))
                        port = str(free.getsockname()[1])
                    group = {**self.environment, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                    command = self.plain_command(state, method, ["--threads", 1, "--steps", 4])
                    each = [(command, {**group, "RANK": str(rank), "WORLD_SIZE": str(ranks)}) for rank in range(ranks)]
                    lines, processor = run(each)
                entry = found.setdefault(name, {"losses": [], "seconds": [], "processor": []})
                entry["losses"] = [line["loss"] for line in lines[1:3]]
                entry["seconds"] += [line["seconds"] for line in lines[3:]]
                entry["processor"].append(processor)
        names = [name for name in jobs if "across" not in name]
        check(method, {name: (None, "float32") for name in names}, found, against=names[-1])
        return found

    def evaluation(self, rounds):
        """PGD-20 in evaluation mode, batch norm folded and not."""
        workers, found = {}, {}
        try:
            for fold in ("false", "true"):
                name = f"ours float32, folded {fold}"
                command = self.our_command("at", ["precision.dtype=float32"], "--evaluate", fold, "--ranks", 1)
                workers[name] = Worker(command, self.environment)
                workers[name].step()
                found[name] = {"seconds": [], "processor": []}
            take_turns(workers, found, rounds)
            return found
        finally:
            for worker in workers.values():
                worker.end()


class Worker:
    """A process that takes a step for each line it gets."""

    def __init__(self, command, environment):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [*map(str, command)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.about = self.line()

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended:\n{self.log.read()[-3000:]}")
        return json.loads(line)

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        taken = self.line()
        if "warning" in taken:
            raise SystemExit(f"{' '.join(map(str, self.process.args))}: {taken['warning']}")
        return taken

    def processor_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def take_turns(workers, found, rounds):
    """A step of each worker, round after round, in an order that is reversed each time."""
    for turn in range(rounds):
        for name in sorted(workers, reverse=turn % 2 == 1):
            time.sleep(0.2)  # Threads of the side before may still spin.
            before = workers[name].processor_seconds()
            found[name]["seconds"].append(workers[name].step()["seconds"])
            found[name]["processor"].append(workers[name].processor_seconds() - before)


def run(jobs):
    """Runs processes together; the JSON lines of the first, and the processor seconds of all."""
    usage = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before = usage()
    started = [
        subprocess.Popen([*map(str, command)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command, environment in jobs
    ]
    texts = [process.communicate() for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("\n".join(error[-3000:] for _, error in texts))
    return [json.loads(line) for line in texts[0][0].splitlines() if line.startswith("{")], usage() - before


def check(method, sides, found, against="plain float32"):
    """Ends the program where a side computes something else. Layouts round differently, and ten attack steps take the sign of
    gradients close to zero: float32 with channels last is compared with PyTorch's in the same layout."""
    last = "plain float32 channels last"
    for name, side in sides.items():
        same = last if name.endswith("float32 channels last") and last in found else against
        expected = found[same]["losses"]
        for place, (loss, right, tolerance) in enumerate(zip(found[name]["losses"], expected, TOLERANCE[side[1]])):
            if not abs(loss - right) <= tolerance * abs(right):
                raise SystemExit(f"{method}, {name}: the loss of step {place + 1} is {loss}, that of {same} {right}")


def sections(options):
    full = not options.quick
    rounds = 1 if options.quick else options.rounds
    gpu = GPU if options.device == "cuda" else {}
    yield "iad-1", lambda bench: bench.steps("iad-1", {**BOTH, **(MORE if full else {}), **gpu}, rounds)
    yield "at", lambda bench: bench.steps("at", BOTH if full else dict(list(BOTH.items())[:2]), rounds)
    if full:
        reference = {"reference float32": MORE["reference float32"]}
        yield "iad-2", lambda bench: bench.steps("iad-2", {**BOTH, **reference}, rounds)
        yield "trades", lambda bench: bench.steps("trades", BOTH, rounds)
        yield "iad-1 compiled", lambda bench: bench.steps("iad-1", COMPILED, rounds)
    if options.device == "cpu":
        yield "iad-1 on 2 ranks", lambda bench: bench.ranks("iad-1", 1 if options.quick else 2)
        yield "evaluation attack", lambda bench: bench.evaluation(rounds)


def machine(device):
    """What it is called by its kind: no host names."""
    if device == "cuda":
        import torch

        name = torch.cuda.get_device_name()
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"), name
    found = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    name = re.sub(r"\(.*?\)|@.*|\d+-Core Processor|CPU|Processor", "", found[1] if found else platform.machine()).strip()
    short = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{short}-{len(os.sched_getaffinity(0))}-cores", name


def table(found):
    """Medians, and how many times as long as plain float32."""
    base = next((name for name in found if name.startswith("plain float32")), next(iter(found)))
    lines = ["| side | seconds | range | of plain float32 | processor seconds |", "|---|---|---|---|---|"]
    middle = {name: statistics.median(entry["seconds"]) for name, entry in found.items()}
    for name, entry in found.items():
        spread = f"{min(entry['seconds']):.3f} to {max(entry['seconds']):.3f}"
        share, processor = middle[name] / middle[base], statistics.median(entry["processor"])
        lines.append(f"| {name} | {middle[name]:.3f} | {spread} | {share:.3f} | {processor:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--program", type=pathlib.Path, default=PROGRAM)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", help="a section by its name; may be repeated")
    parser.add_argument("--records", type=pathlib.Path, default=HERE.parent / "records")
    options = parser.parse_args()

    short, name = machine(options.device)
    folder = options.records / f"{datetime.date.today()}-{short}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ("step-quick.json" if options.quick else "step.json")
    settings = {"batch": options.batch, "threads": options.threads, "device": options.device}
    record = json.loads(file.read_text()) if file.exists() else {"machine": name, **settings, "sections": {}}
    if any(record[key] != value for key, value in settings.items()):
        raise SystemExit(f"{file} was made with other settings; choose another folder by --records")
    bench = Bench(options)
    for section, measure in sections(options):
        if options.only and section not in options.only:
            continue
        if section not in record["sections"]:
            print(section, file=sys.stderr, flush=True)
            began = time.monotonic()
            sides = measure(bench)
            load = os.getloadavg()[0]
            record["sections"][section] = {"sides": sides, "took": time.monotonic() - began, "load": load}
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps(record, indent=1) + "\n")
            partial.rename(file)
        print(f"\n{section}\n\n{table(record['sections'][section]['sides'])}", flush=True)
    print(f"\nwritten to {file}", file=sys.stderr)


if __name__ == "__main__":
    main()
