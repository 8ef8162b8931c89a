"""What networks in generated C need: flash and memory on a Cortex-M4.

    python benchmarks/c_sizes.py --work DIR

Small networks in float, int8 and one bit, exported for the targets c and cortex-m4; compiled with
arm-none-eabi-gcc for a Cortex-M4F (-Os): bytes of code and constants, bytes of the arena. Golden
vectors are run on this machine, and on aarch64, arm and riscv64 under qemu where their compilers
are here. Nothing is run on a microcontroller. Writes benchmarks/results/c_sizes.{json,md}.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

from edgecv import target
from edgecv.backends.c.compile import compile
from edgecv.benchmark.machine import load_average
from edgecv.binary.build import compiler
from edgecv.graph import Graph
from edgecv.methods.binary.constants_for_export import frozen, one_bit
from edgecv.methods.binary.replacing import binarize
from edgecv.methods.binary.selection import choose
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.models import zoo

NETS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "resnet8": ({"width": 8, "channels": 1}, (1, 28, 28)),
    "mobilenet_v2_small": ({"width": 8, "channels": 1}, (1, 28, 28)),
    "lenet5": ({"width": 0.4}, (1, 28, 28)),
}
M4 = ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard",
      "-Os", "-std=c99", "-ffp-contract=off"]  # fmt: skip
CROSS = {"aarch64": "aarch64-linux-gnu-gcc", "arm": "arm-linux-gnueabihf-gcc",
         "riscv64": "riscv64-linux-gnu-gcc"}  # fmt: skip


def graph(name: str, kind: str, room: Path) -> Graph:
    args, shape = NETS[name]
    torch.manual_seed(0)
    net = zoo.build(name, classes=10, **args).eval()
    example = torch.zeros(1, *shape)
    if kind == "one bit":
        layers, _ = choose(net, example, kind, None)
        binarize(net, {"op": "binarize", "step": kind, "form": "react", "weights": "binary",
                       "real_inputs": False, "estimator": "polynomial",
                       "layers": layers})  # fmt: skip
        net = frozen(net.eval())
    made = export_onnx(net, example, room / "float")
    if kind == "one bit":
        made.facts["one_bit"] = one_bit(net)
    if kind == "fp32":
        return made
    samples = np.random.default_rng(0).normal(size=(32, *shape)).astype(np.float32)
    return quantize_onnx(made, samples, target.load("c").grid, room / kind)


def row(name: str, kind: str, work: Path) -> dict[str, Any]:
    folder = work / f"{name}-{kind.replace(' ', '-')}"
    out = folder / "c"
    compile(graph(name, kind, folder), target.load("c"), out)
    header = (out / "model.h").read_text()
    arena, constants = (int(re.findall(rf"MODEL_{n} (\d+)", header)[0]) for n in ("ARENA", "FLASH"))
    found: dict[str, Any] = {"name": name, "kind": kind, "arena": arena, "constants": constants}
    said = subprocess.run(["make", "-s", f"CC={compiler()}", "check"], cwd=out, check=True,
                          capture_output=True, text=True).stdout  # fmt: skip
    found["golden"] = {"here": said.splitlines()[-1]}
    for family, cc in CROSS.items():
        if shutil.which(cc) and shutil.which(f"qemu-{family}"):
            subprocess.run(["make", "-s", "clean"], cwd=out, check=True)
            made = ["make", "-s", f"CC={cc}", "CFLAGS=-O2 -static", "model_test"]
            subprocess.run(made, cwd=out, check=True)
            done = subprocess.run([f"qemu-{family}", str(out / "model_test")], check=False,
                                  capture_output=True, text=True)  # fmt: skip
            found["golden"][family] = done.stdout.splitlines()[-1]
    if shutil.which(M4[0]):
        subprocess.run([*M4, "-c", "model.c", "-o", "m4.o"], cwd=out, check=True)
        command = ["arm-none-eabi-size", "m4.o"]
        said = subprocess.run(command, cwd=out, check=True, capture_output=True, text=True).stdout
        sizes = said.splitlines()[1].split()
        found["flash"] = int(sizes[0]) + int(sizes[1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    before, rows = load_average(), []
    for name in NETS:
        for kind in ("fp32", "int8", "one bit"):
            rows.append(row(name, kind, options.work))
            print(rows[-1], flush=True)
    good = all("golden 4 of 4" in said for r in rows for said in r["golden"].values())
    head = ["network", "", "flash on Cortex-M4, bytes", "of it constants", "arena, bytes",
            "golden vectors"]  # fmt: skip
    lines = [
        [r["name"], r["kind"], f"{r['flash']:,}" if "flash" in r else "not measured",
         f"{r['constants']:,}", f"{r['arena']:,}",
         "; ".join(f"{where}: {said.removeprefix('golden ')}" for where, said in
                   r["golden"].items())]
        for r in rows
    ]  # fmt: skip
    page = [
        "# Generated C: flash and memory", "",
        "Networks of the zoo, 28x28, 10 classes, random weights. one bit: react, what stays float "
        "in int8. Flash: code and constants, arm-none-eabi-gcc -Os for a Cortex-M4F, **not run** "
        "on one. aarch64, arm and riscv64 under qemu.",
        "", *record.table(head, lines), "",
        f"Golden vectors everywhere: {record.verdict(good)}.",
    ]  # fmt: skip
    data = {"circumstances": record.circumstances(1, 0, before), "rows": rows}
    record.write("c_sizes", options.out, data, page)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
