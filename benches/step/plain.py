"""One side of the comparison: takes a step for each line of standard input, or --steps of them, and prints JSON lines."""

import argparse
import json
import os
import pathlib
import sys
import time

import torch
import torch.distributed as distributed

import methods
from methods import ReferenceStep, Step
from network import load, read


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=pathlib.Path, help="written by `iad-launch bench step --save`")
    parser.add_argument("--method", choices=("at", "trades", "iad-1", "iad-2"), default="iad-1")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", choices=("default", "max-autotune", "reduce-overhead"))
    parser.add_argument("--reference", action="store_true", help="in the way of the published scripts")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--attack-steps", type=int, default=10)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    rank = int(os.environ.get("RANK", 0))
    device = torch.device(options.device, rank if options.device == "cuda" else None)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
    torch.backends.cudnn.benchmark = True
    methods.STEPS = options.attack_steps
    wrap = None
    if ranks > 1:
        distributed.init_process_group("nccl" if options.device == "cuda" else "gloo")
        settings = dict(gradient_as_bucket_view=True, broadcast_buffers=False)
        wrap = lambda network: torch.nn.parallel.DistributedDataParallel(network, **settings)

    tensors = read(options.state)
    names = [name for name in ("robust", "standard") if f"{name}/conv1.weight" in tensors]
    student, teachers = load(tensors, "student", device), {name: load(tensors, name, device) for name in names}
    x, y, start = (tensors[name][rank::ranks].to(device) for name in ("images", "labels", "start"))
    if options.channels_last:
        x, start = (images.contiguous(memory_format=torch.channels_last) for images in (x, start))
        for network in (student, *teachers.values()):
            network.to(memory_format=torch.channels_last)
    make = ReferenceStep if options.reference else Step
    step = make(options.method, student, teachers, bfloat16=options.bfloat16, compile=options.compile, wrap=wrap)

    def tell(value):
        if rank == 0:
            print(json.dumps(value), flush=True)

    tell({"ready": str(device), "ranks": ranks, "threads": torch.get_num_threads(), "libraries": f"torch {torch.__version__}"})
    for _ in range(options.steps) if options.steps else sys.stdin:
        began = time.perf_counter()
        loss = step.run(x, y, start)
        value = loss.item()
        if options.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        if ranks > 1:
            distributed.all_reduce(loss)
            value = loss.item() / ranks
        tell({"loss": value, "seconds": seconds})
    if ranks > 1:
        distributed.destroy_process_group()


main()
