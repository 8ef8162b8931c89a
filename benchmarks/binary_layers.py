"""Layers of one bit beside float and int8 ones: four alike in a chain, through the engines.

    python benchmarks/binary_layers.py [--rounds 60]

3x3 layers of 115.6 million products each, 56x56x64 to 7x7x512, batch 1, one thread. Float and int8
chains (ReLU between) on ONNX Runtime and OpenVINO, the better of the two; one-bit chains on ONNX
Runtime with the kernels of `edgecv.binary`: bits between layers ("packed"), or a real shortcut and
RPReLU around each ("react"). All in one interleaved run, process CPU time of each call; ratios are
medians over rounds. "of the roof": products a second against what registers alone give
(`xnor_peak.c`). EDGECV_KERNEL_SET=portable measures another instruction set. Writes
benchmarks/results/binary_layers.{json,md}.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from torch import nn

from edgecv import target
from edgecv.backends import compile_module, run_module
from edgecv.benchmark.machine import load_average, machine
from edgecv.binary import build, library
from edgecv.graph import Graph
from edgecv.methods.binary.constants_for_export import frozen
from edgecv.methods.binary.modules import OneBit, RPReLU
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.quantize.onnx_qdq import quantize_onnx

SHAPES = ((56, 64), (28, 128), (14, 256), (7, 512))
LAYERS = 4
WANTED = {"avx512": ((11, 13, 15, 15), (3.4, 3.8, 4.2, 4.2)), "avx2": ((5, 5, 5, 5), None)}


def chain(channels: int, kind: str) -> nn.Module:
    """`LAYERS` layers alike, and what makes their output small."""
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=kind == "float")
        if kind == "float":
            layers += [conv, nn.ReLU()]
            continue
        layers.append(OneBit(conv, shortcut=kind == "react", shift=kind == "react"))
        if kind == "react":
            layers.append(RPReLU(channels))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def sessions(side: int, channels: int, room: Path) -> dict[str, Any]:
    """name -> a session of each form."""
    torch.manual_seed(0)
    example = torch.zeros(1, channels, side, side)
    samples = np.random.default_rng(0).normal(size=(8, channels, side, side)).astype(np.float32)
    forms: dict[str, tuple[Graph, tuple[str, ...]]] = {}
    graph = export_onnx(chain(channels, "float"), example, room / "float")
    forms["fp32"] = graph, ("cpu", "openvino")
    made = quantize_onnx(graph, samples, target.load("cpu").grid, room / "int8")
    forms["int8"] = made, ("cpu", "openvino")
    for kind in ("packed", "react"):
        forms[kind] = (
            export_onnx(frozen(chain(channels, kind)), example, room / kind), ("cpu",)
        )  # fmt: skip
    found = {}
    for form, (graph, engines) in forms.items():
        for name in engines:
            wanted = target.load(name)
            out = room / f"{form}-{name}"
            done = compile_module(wanted.backend).compile(graph, wanted, out)
            files = {n: (out / n).read_bytes() for n in done.files}
            session = run_module(wanted.backend).Session(files, threads=1)
            if form in ("packed", "react") and session.executed().get("binary") != LAYERS:
                raise SystemExit(f"{form}: not counted, but {session.executed()}")
            found[f"{form} {name}"] = session
    return found


def measured(found: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Process CPU time of a call in ms, round by round; the order is drawn anew in each."""
    feeds, calls = {}, {}
    rng = np.random.default_rng(1)
    for name, session in found.items():
        (source,) = session.inputs
        feeds[name] = {source.name: rng.normal(size=source.shape).astype(np.float32)}
        start, count = time.process_time(), 0
        while time.process_time() - start < 0.05:
            session.run(feeds[name])
            count += 1
        calls[name] = max(1, round(count * 0.2))  # about 10 ms
    times: dict[str, list[float]] = {name: [] for name in found}
    order, dice = list(found), random.Random(0)
    for _ in range(rounds):
        dice.shuffle(order)
        for name in order:
            found[name].run(feeds[name])
            start = time.process_time_ns()
            for _ in range(calls[name]):
                found[name].run(feeds[name])
            times[name].append((time.process_time_ns() - start) / calls[name] / 1e6)
    return times


def roof() -> dict[str, float]:
    """GMAC/s of registers alone, by instruction set; {} without a compiler."""
    cc = build.compiler()
    if cc is None or build.machine() != "x86_64":
        return {}
    with tempfile.TemporaryDirectory() as room:
        program = Path(room) / "peak"
        source = Path(__file__).with_name("xnor_peak.c")
        subprocess.run([cc, "-O2", str(source), "-o", str(program)], check=True)
        said = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in map(str.split, said.splitlines())}


def compared(times: dict[str, list[float]]) -> dict[str, Any]:
    """Of each form the fastest engine, and how many times as fast one bit is."""
    typical = {name: float(np.median(v)) for name, v in times.items()}
    best = {form: min((n for n in typical if n.startswith(form)), key=typical.__getitem__)
            for form in ("fp32", "int8")}  # fmt: skip
    row: dict[str, Any] = {"ms": typical, "best": best}
    for kind in ("packed", "react"):
        own = np.array(times[f"{kind} cpu"])
        for form, name in best.items():
            ratios = np.array(times[name]) / own
            row[f"{kind} {form}"] = [float(q) for q in np.quantile(ratios, (0.5, 0.25, 0.75))]
    return row


def page(rows: list[dict[str, Any]], kernel: str, peak: float | None) -> tuple[list[str], bool]:
    wanted = WANTED.get(kernel)
    head = ["layer", "fp32 ms", "int8 ms", "packed ms", "react ms", "packed × fp32",
            "packed × int8", "react × fp32", "react × int8", "of the roof", "wanted"]  # fmt: skip
    lines, good = [], True
    for i, row in enumerate(rows):
        ms, best = row["ms"], row["best"]
        limits = [w[i] for w in wanted if w] if wanted else []
        got = [row["packed fp32"][0], row["packed int8"][0]]
        met = all(g >= w for g, w in zip(got, limits, strict=False))
        good &= met
        said = " and ".join(f"{w:g}x {n}" for w, n in zip(limits, ("fp32", "int8"), strict=False))
        lines.append([
            row["layer"],
            *(f"{ms[best[f]] / LAYERS:.3f} ({best[f].split()[1]})" for f in ("fp32", "int8")),
            *(f"{ms[f'{k} cpu'] / LAYERS:.3f}" for k in ("packed", "react")),
            *(_spread(row[f"{k} {f}"]) for k in ("packed", "react") for f in ("fp32", "int8")),
            f"{row['gmacs'] / peak:.2f}" if peak else "",
            f"{said}: {record.verdict(met)}" if said else "",
        ])  # fmt: skip
    return [
        "# Layers of one bit beside float and int8 ones",
        "",
        f"3x3, stride 1, {LAYERS} alike in a chain, time of one (the chain's by {LAYERS}, with "
        "packing and pooling at its ends); process CPU time, one thread, medians of interleaved "
        "rounds (quartiles in brackets). Kernels: "
        f"{kernel}; the better of ONNX Runtime (cpu) and OpenVINO for float and int8.",
        "",
        *record.table(head, lines),
        "",
        f"The roof: {peak:.0f} GMAC/s from registers alone ({kernel})." if peak else "",
    ], good


def _spread(values: list[float]) -> str:
    return f"{values[0]:.1f} [{values[1]:.1f}, {values[2]:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    before, rows = load_average(), []
    kernel = os.environ.get("EDGECV_KERNEL_SET") or library.sets()[0]
    peaks = roof()
    for side, channels in SHAPES:
        print(f"{side}x{side}x{channels}", flush=True)
        with tempfile.TemporaryDirectory() as room:
            times = measured(sessions(side, channels, Path(room)), options.rounds)
        row = compared(times) | {"layer": f"{side}x{side}x{channels}", "times_ms": times}
        products = side * side * channels * channels * 9 * LAYERS
        row["gmacs"] = products / row["ms"]["packed cpu"] / 1e6
        rows.append(row)
    lines, good = page(rows, kernel, peaks.get(kernel))
    data = {"circumstances": record.circumstances(1, 0, before), "kernel": kernel,
            "roof_gmacs": peaks, "features": machine()["features"], "rows": rows}  # fmt: skip
    record.write("binary_layers", options.out, data, lines)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
