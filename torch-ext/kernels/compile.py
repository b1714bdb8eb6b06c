"""Compiles the kernels of this folder for GPUs that need not be here. The build calls it:

    python compile.py FOLDER    cubins into FOLDER, with kernels.rs, the table of them that the program contains
    python compile.py --table   the table of registers, spills and shared memory in docs/performance.md
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

FILES = ["attack_step", "sgd", "divergence", "batch_norm"]
TARGETS = [80, 90, 100]
KINDS = {"*fp32": "Values(Float)", "*bf16": "Values(BFloat16)", "*i64": "Values(Int64)", "*i8": "Values(Bool)"} | {
    "i32": "I32",
    "i64": "I64",
    "fp32": "F32",
}

os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # no paths of this machine in the program
sys.dont_write_bytecode = True  # the build looks at what changes in this folder
sys.path.insert(0, str(Path(__file__).parent))

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


def compiled(variant, target):
    """The compiled kernel for one target. Addresses, and the arguments named `divisible`, are multiples of 16."""
    kernel, arguments, constants = variant["kernel"], variant["arguments"], variant["constants"]
    assert list(kernel.arg_names) == [*arguments, *constants], kernel.arg_names
    divisible = [name for name, kind in arguments.items() if kind.startswith("*")] + variant.get("divisible", [])
    places = [list(arguments).index(name) for name in divisible]
    source = ASTSource(
        kernel,
        arguments | {name: "constexpr" for name in constants},
        constexprs=constants,
        attrs={(place,): [["tt.divisibility", 16]] for place in places},
    )
    options = {"num_warps": variant["warps"]}
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)


def resources(cubin):
    """Registers of a thread and bytes of its spills, as NVIDIA's tool reads them from the cubin."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    said = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", said)}
    return found["REG"], found["STACK"] + found["LOCAL"]


def all_kernels(folder):
    """Name, target, parameters, constants and resources of each kernel, whose cubin is written to the folder."""
    for file in FILES:
        for name, variant in importlib.import_module(file).VARIANTS.items():
            for target in TARGETS:
                kernel = compiled(variant, target)
                path = folder / f"{name}.sm_{target}.cubin"
                path.write_bytes(kernel.asm["cubin"])
                metadata = kernel.metadata
                # Triton adds places for memory of its own, of which these kernels use none.
                entry = kernel.asm["ptx"].split(".entry")[1].split("{")[0]
                added = re.findall(r"\.param \.(\w+)", entry)[len(variant["arguments"]) :]
                assert all(kind == "u64" for kind in added), entry
                assert not metadata.global_scratch_size and not metadata.profile_scratch_size
                registers, spills = resources(path)
                yield {
                    "name": name,
                    "target": target,
                    "path": path,
                    "symbol": metadata.name,
                    "parameters": list(variant["arguments"].values()),
                    "added": len(added),
                    "block": list(variant["constants"].values()),
                    "threads": 32 * variant["warps"],
                    "shared": metadata.shared,
                    "registers": registers,
                    "spills": spills,
                }


def rust(kernels):
    """The table as Rust: a slice of `Compiled`, within whose names it stands."""
    lines = ["&["]
    for kernel in kernels:
        kinds = ", ".join(KINDS[kind] for kind in kernel["parameters"])
        lines.append(
            f'    Compiled {{ name: "{kernel["name"]}", target: {kernel["target"]}, symbol: c"{kernel["symbol"]}", '
            f"parameters: &[{kinds}], added: {kernel['added']}, block: &{kernel['block']}, threads: {kernel['threads']}, "
            f"shared: {kernel['shared']}, registers: {kernel['registers']}, spills: {kernel['spills']}, "
            f'image: include_bytes!("{kernel["path"].name}") }},'
        )
    return "\n".join([*lines, "]\n"])


def table(kernels):
    """The table as Markdown: registers of a thread / bytes of spills / bytes of shared memory of a block."""
    rows = {}
    for kernel in kernels:
        cell = f"{kernel['registers']} / {kernel['spills']} / {kernel['shared']:,}"
        rows.setdefault(kernel["name"], {})[kernel["target"]] = cell
    lines = ["| kernel | " + " | ".join(f"sm_{target}" for target in TARGETS) + " |", "|---" * (len(TARGETS) + 1) + "|"]
    lines += [f"| `{name}` | " + " | ".join(cells[target] for target in TARGETS) + " |" for name, cells in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        import tempfile

        with tempfile.TemporaryDirectory() as scratch:
            os.environ["TRITON_CACHE_DIR"] = scratch
            print(table(all_kernels(Path(scratch))))
    else:
        out = Path(sys.argv[1])
        os.environ["TRITON_CACHE_DIR"] = str(out / "triton")
        out.joinpath("kernels.rs").write_text(rust(all_kernels(out)))
