"""One-bit layers on every road: PyTorch, kernels, ONNX Runtime, OpenVINO, generated C.

    python benchmarks/binary_equal.py --work DIR [--layers 1000]

Random layers (odd channel counts, strides, paddings, dilations, groups, ternary weights) with
shortcuts, slopes and signs behind; and two networks of one-bit layers alone. Sums and floats are
compared bit for bit with PyTorch's; generated C also on aarch64, arm and riscv64 under qemu, where
their compilers are here; OpenVINO's own kernels on as many layers of the shapes that it takes, and
on two networks of such. Writes benchmarks/results/binary_equal.{json,md}.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import record
import torch
from torch import nn

from edgecv.backends.c import codegen
from edgecv.backends.c.read import read
from edgecv.backends.onnxruntime.run import Session
from edgecv.backends.openvino import compile as ov_compile
from edgecv.backends.openvino import run as ov_run
from edgecv.backends.openvino.one_bit import BLOCK
from edgecv.benchmark.machine import load_average
from edgecv.binary import build, library
from edgecv.binary.lowering import lower
from edgecv.binary.reference import Shape, packed
from edgecv.methods.binary.constants_for_export import frozen
from edgecv.methods.binary.modules import OneBit, RPReLU
from edgecv.methods.export.onnx import export_onnx
from edgecv.target import load

CROSS = {"aarch64": "aarch64-linux-gnu-gcc", "arm": "arm-linux-gnueabihf-gcc",
         "riscv64": "riscv64-linux-gnu-gcc"}  # fmt: skip
SIMDE = Path("/usr/include/simde/x86/avx512.h")  # apt install libsimde-dev


def some_layer(rng: np.random.Generator, block: int = 1) -> tuple[nn.Module, tuple[int, int, int]]:
    """A one-bit layer with what may stand behind it, and its input's size.

    block: channels are multiples of it; where it is not 1, there are no groups and no zeros
    """
    while True:
        groups = int(rng.choice([1, 1, 1, 2, 3])) if block == 1 else 1
        most = 90 // block + (block > 1)
        channels, filters = (groups * block * int(rng.integers(1, most)) for _ in range(2))
        if rng.random() < 0.3:
            filters = channels * int(rng.choice([1, 2]))
        kernel = int(rng.choice([1, 3, 5]))
        conv = nn.Conv2d(
            channels, filters, kernel, int(rng.choice([1, 1, 2])),
            kernel // 2 if rng.random() < 0.7 else int(rng.integers(0, 3)),
            int(rng.choice([1, 1, 2])), groups, bool(rng.integers(0, 2)),
        )  # fmt: skip
        size = tuple(map(int, rng.integers(3, 12, 2)))
        try:
            with torch.no_grad():
                conv(torch.zeros(1, channels, *size))
        except RuntimeError:
            continue
        norm = nn.BatchNorm2d(filters)
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
            assert tensor is not None
            tensor.copy_(torch.from_numpy(rng.normal(size=filters).astype(np.float32)))
        assert norm.running_var is not None
        norm.running_var.copy_(torch.from_numpy(rng.uniform(0.1, 2, filters).astype(np.float32)))
        layer = OneBit(conv, norm, "ternary" if block == 1 and rng.random() < 0.3 else "binary",
                       shortcut=bool(rng.integers(0, 2)))  # fmt: skip
        assert layer.shift is not None
        layer.shift.data = torch.from_numpy(rng.normal(size=channels).astype(np.float32) / 3)
        parts: list[nn.Module] = [layer]
        if rng.random() < 0.5:
            act = RPReLU(filters)
            for part in act.parameters():
                part.data = torch.from_numpy(rng.normal(size=filters).astype(np.float32))
            parts.append(act)
        return nn.Sequential(*parts, nn.Flatten()).eval(), (channels, *size)


def networks(width: int = 24) -> dict[str, tuple[nn.Module, tuple[int, int, int]]]:
    """Two networks of one-bit layers alone, so that every bit of their answers is decided."""
    torch.manual_seed(0)
    residual: list[nn.Module] = []
    for fewer, more, stride in ((1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1)):
        inputs, outputs = fewer * width, more * width
        conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        residual += [OneBit(conv, nn.BatchNorm2d(outputs)), RPReLU(outputs)]
    dense: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in ((width * 121, 200), (200, 130), (130, 10)):
        dense.append(OneBit(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs)))
    made = {"residual": nn.Sequential(*residual, nn.Flatten()), "dense": nn.Sequential(*dense)}
    for module in made.values():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
                part.weight.data.normal_()
                part.bias.data.normal_()
    return {name: (module.eval(), (width, 11, 11)) for name, module in made.items()}


def plain(width: int = 32) -> tuple[nn.Module, tuple[int, int, int]]:
    """A network of one-bit convolutions without a pooled shortcut."""
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for inputs, outputs in ((1, 1), (1, 2), (2, 2), (2, 3)):
        conv = nn.Conv2d(inputs * width, outputs * width, 3, 1, 1)
        parts += [OneBit(conv, nn.BatchNorm2d(outputs * width)), RPReLU(outputs * width)]
    return nn.Sequential(*parts, nn.Flatten()).eval(), (width, 11, 11)


def roads(module: nn.Module, size: tuple[int, int, int], room: Path,
          compilers: dict[str, str]) -> dict[str, bool]:  # fmt: skip
    """road -> whether its answers are PyTorch's, bit for bit."""
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(1, *size)).astype(np.float32))
    with torch.no_grad():
        wanted = module(x).numpy()
    graph = export_onnx(frozen(module), x, room)
    model = onnx.load_model(str(graph.path))
    lower(model)
    content = model.SerializeToString()
    session = Session({"model.onnx": content})
    (got,) = session.run({session.inputs[0].name: x.numpy()}).values()
    found = {"ONNX Runtime": bool(np.array_equal(got, wanted))}
    steps = read(onnx.load_model_from_string(content), "c")
    order = wanted
    last = steps.tensors[steps.result]
    if last.order:  # C has channels last
        high, wide, channels = last.order
        order = wanted.reshape(channels, high, wide).transpose(1, 2, 0)
    golden = (x.numpy().transpose(0, 2, 3, 1), order.reshape(1, -1))
    for name, text in codegen.files(steps, golden, "layer", "y").items():
        (room / name).write_text(text)
    for family, cc in compilers.items():
        out = room / f"test-{family}"
        static = ["-static"] if family != "here" else []
        command = [cc, "-std=c99", "-O1", "-ffp-contract=off", *static,
                   str(room / "main.c"), str(room / "model.c"), "-o", str(out)]  # fmt: skip
        subprocess.run(command, check=True)
        run = [str(out)] if family == "here" else [f"qemu-{family}", str(out)]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        exact = "#define GOLDEN_EXACT 1" in (room / "golden.h").read_text()
        found[f"C, {family}"] = done.returncode == 0 and exact
    return found


def openvino(module: nn.Module, size: tuple[int, int, int], room: Path) -> bool | None:
    """Whether OpenVINO's own kernels give PyTorch's bits; None: refused, and said."""
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(1, *size)).astype(np.float32))
    with torch.no_grad():
        wanted = module(x).numpy()
    made = ov_compile.compile(export_onnx(frozen(module), x, room), load("openvino"), room / "ir")
    session = ov_run.Session({n: (room / "ir" / n).read_bytes() for n in made.files})
    ran, layers = session.executed(), sum(isinstance(m, OneBit) for m in module.modules())
    if ran != {"binary": layers} or made.counted != layers:
        return None
    (got,) = session.run({session.inputs[0].name: x.numpy()}).values()
    return bool(np.array_equal(got, wanted))


def kernels(module: nn.Module, size: tuple[int, int, int]) -> dict[str, bool]:
    """Each instruction set: sums of the layer against PyTorch's."""
    layer = module[0]
    assert isinstance(layer, OneBit)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(1, *size)).astype(np.float32))
    with torch.no_grad():
        w, _ = layer.quantized()
        signed = layer.signed(x)
        wanted = nn.functional.conv2d(signed, w, **layer.how)[0].numpy().transpose(1, 2, 0)
    how = layer.how
    shape = Shape(
        *size[1:], size[0], len(w), tuple(w.shape[2:]), tuple(how["stride"]),
        tuple(how["dilation"]), (*how["padding"], *how["padding"]), how["groups"],
    )  # fmt: skip
    taps = w.numpy().transpose(0, 2, 3, 1)
    mask = None if (taps != 0).all() else packed(taps != 0)
    ones = packed(signed[0].numpy().transpose(1, 2, 0) > 0)
    found = {}
    for name in library.sets():
        counted = library.Layer(shape, packed(taps > 0), mask, name).dots(ones)
        found[name] = bool(np.array_equal(counted, wanted))
    return found


def simulate(work: Path, cc: str) -> bool:
    """Take kernels whose AVX-512 unit is loops (SIMDe), where this processor has no AVX-512."""
    sets = library.sets()
    if build.machine() != "x86_64" or "avx512" in sets or not SIMDE.is_file():
        return False
    build.UNITS["x86_64"]["avx512"] = [
        "-mavx2", "-mpopcnt", "-DSIMDE_ENABLE_NATIVE_ALIASES", "-include", str(SIMDE),
        "-D__builtin_cpu_supports(x)=1", "-w",
    ]  # fmt: skip
    made = build.build(work / build.NAME, cc)
    os.environ |= {"EDGECV_KERNELS": str(made), "EDGECV_KERNEL_SET": sets[0]}
    library.library.cache_clear()
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    before, rng = load_average(), np.random.default_rng(0)
    cc = build.compiler()
    if cc is None:
        raise SystemExit("no C compiler")
    simulated = simulate(options.work, cc)
    cross = {f: c for f, c in CROSS.items() if shutil.which(c) and shutil.which(f"qemu-{f}")}
    equal: dict[str, list[int]] = {}

    def note(answers: dict[str, bool], which: int) -> None:
        for road, good in answers.items():
            told = "avx512, simulated" if simulated and road == "avx512" else road
            row = equal.setdefault(told, [0, 0, 0, 0])
            row[2 * which] += good
            row[2 * which + 1] += 1

    for i in range(options.layers):
        module, size = some_layer(rng)
        with tempfile.TemporaryDirectory(dir=options.work) as room:
            note(kernels(module, size), 0)
            # one layer in ten under emulation: a compiler takes longer than the layer
            chosen = {"here": cc} | (cross if i % 10 == 0 else {})
            note(roads(module, size, Path(room), chosen), 0)
        if i % 50 == 49:
            print(f"{i + 1} layers: {equal}", flush=True)
    refused, done = 0, 0
    while done < options.layers:  # shapes that OpenVINO takes: the others stay float there
        module, size = some_layer(rng, BLOCK)
        with tempfile.TemporaryDirectory(dir=options.work) as room:
            alike = openvino(module, size, Path(room))
        if alike is None:
            refused += 1
            continue
        done += 1
        note({"OpenVINO": alike}, 0)
        if done % 50 == 0:
            print(f"{done} layers, {refused} refused: {equal}", flush=True)
    for module, size in (networks(32)["residual"], plain()):
        with tempfile.TemporaryDirectory(dir=options.work) as room:
            note({"OpenVINO": bool(openvino(module, size, Path(room)))}, 1)
    for module, size in networks().values():
        with tempfile.TemporaryDirectory(dir=options.work) as room:
            note(roads(module, size, Path(room), {"here": cc} | cross), 1)
    good = all(row[0] == row[1] and row[2] == row[3] for row in equal.values())
    lines = [
        [road, f"{a} of {b}", f"{c} of {d}" if d else ""] for road, (a, b, c, d) in equal.items()
    ]
    page = [
        "# One-bit layers on every road", "",
        f"{options.layers} random layers and two networks of one-bit layers alone: how many give "
        "PyTorch's answer bit for bit. Instruction sets: the sums (simulated: the same source, its "
        "instructions from loops, SIMDe); ONNX Runtime and generated C: "
        "floats behind the batch norm, the shortcut and the slope. Every tenth layer under qemu. "
        f"OpenVINO: layers of their own, with channels that are multiples of {BLOCK}, ungrouped, "
        f"without zeros, and networks of such; {refused} more were refused when compiled (large "
        "pads on small images) and stayed float; other shapes are not counted there.",
        "", *record.table(["road", "layers", "networks"], lines), "",
        f"Equal everywhere: {record.verdict(good)}.",
    ]  # fmt: skip
    data: dict[str, Any] = {"circumstances": record.circumstances(1, 0, before), "equal": equal}
    record.write("binary_equal", options.out, data, page)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
