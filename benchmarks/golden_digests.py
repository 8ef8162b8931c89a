"""SHA-256 of the engine files that fixed networks compile to: what a refactoring must not change.

    python benchmarks/golden_digests.py [--check] [--targets cpu openvino c] [--networks resnet8]

Networks of the zoo, of torch and of ONNX files (`random_nets/`) through every target that compiles
here, fp32 and int8, and one of one-bit layers. Digests hold for the versions and the processor that
the page names. Writes benchmarks/results/golden_digests.{json,md}; --check compares with that page
instead, of what is asked for, and exits 1 with any digest that is another.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
import record
import torch
from torch import nn

from benchmarks.random_nets import onnx_nets
from benchmarks.random_nets.judging import in_process
from benchmarks.random_nets.pictures import MEAN, STD, folder
from edgecv import quick_export, target
from edgecv.backends import compile_module
from edgecv.benchmark.machine import load_average
from edgecv.errors import EdgecvError
from edgecv.methods.binary.constants_for_export import frozen
from edgecv.methods.binary.modules import OneBit, RPReLU
from edgecv.methods.export.onnx import export_onnx
from edgecv.runtime.archive import read_bundle

PAGE = "golden_digests"
TARGETS = ("cpu", "openvino", "c", "tflite", "edgetpu", "rtx")
CLASSES, SIDE = 6, 24
ZOO: dict[str, dict[str, Any]] = {
    "resnet8": {"width": 8, "channels": 3},
    "mobilenet_v2_small": {"width": 8, "channels": 3},
}
# Seeds of random networks; LiteRT's converter takes long, so that not all go through it.
TORCH, ONNX = (3, 6, 9, 12), (1, 4, 7, 10)
CONVERTED = (*ZOO, "torch 3", "torch 6", "onnx 1")
BUILDER = "benchmarks.random_nets.torch_nets:build"
BINARY = "one bit"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the page")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--networks", nargs="+", default=names(), choices=names())
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    before, rows = load_average(), list[Row]()
    with tempfile.TemporaryDirectory() as room:
        for name in options.networks:
            for row in digests(name, options.targets, Path(room)):
                print(line(row), flush=True)
                rows.append(row)
    data = {"circumstances": record.circumstances(1, 0, before), "rows": rows}
    if options.check:
        raise SystemExit(compared(json.loads((options.out / f"{PAGE}.json").read_text()), data))
    record.write(PAGE, options.out, data, page(rows))


def names() -> list[str]:
    return [*ZOO, *(f"torch {n}" for n in TORCH), *(f"onnx {n}" for n in ONNX), BINARY]


def digests(name: str, targets: list[str], room: Path) -> Iterator[Row]:
    """A row for each target and precision: SHA-256 by file, or why there is none."""
    if name == BINARY:
        yield from one_bit_digests([t for t in targets if t in ("cpu", "openvino", "c")], room)
        return
    wanted = [t for t in targets if t in ("cpu", "openvino", "c") or name in CONVERTED]
    for precision in ("fp32", "int8"):
        able = [t for t in wanted if precision in target.load(t).precisions]
        found = exported(name, able, precision, room) if able else {}
        for profile in able:
            row = {"network": name, "target": profile, "precision": precision}
            made = found[profile]
            if isinstance(made, EdgecvError):
                yield {**row, "files": {}, "refused": f"{type(made).__name__}: {made.what}"[:200]}
            else:
                yield {**row, "files": shortened(read_bundle(made.bundle).files)}


def exported(name: str, targets: list[str], precision: str, room: Path) -> dict[str, Any]:
    """What `edgecv export` makes of a network, by target."""
    given: dict[str, Any] = {"model": name, "size": (SIDE, SIDE)}
    kind, _, number = name.partition(" ")
    if name in ZOO:
        given["args"] = ZOO[name] | {"classes": CLASSES}
    elif kind == "torch":
        given |= {"model": BUILDER, "args": {"seed": int(number), "side": SIDE}}
    else:
        path = room / f"net{number}.onnx"
        if not path.exists():
            onnx.save(onnx_nets.build(int(number), SIDE), str(path))
        given = {"model": str(path)}
    request = quick_export.Request(
        targets=tuple(targets), precision=precision, calibration=folder(room, SIDE),
        crop_pct=1.0, mean=(MEAN,), std=(STD,), interpolation="bilinear", **given,
    )  # fmt: skip
    out, store = room / f"{name}-{precision}", room / f"{name}-store"
    try:
        with in_process():
            return dict(quick_export.export(request, out, store=store))
    except EdgecvError as e:  # none of the targets got one
        return dict.fromkeys(targets, e)


def one_bit_digests(targets: list[str], room: Path) -> Iterator[Row]:
    """A network of one-bit layers, compiled from its float graph."""
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for width in (32, 48, 64):
        conv = nn.Conv2d(32 if not parts else width - 16, width, 3, padding=1)
        parts += [OneBit(conv, nn.BatchNorm2d(width)), RPReLU(width)]
    net = frozen(nn.Sequential(*parts, nn.Flatten()).eval())
    graph = export_onnx(net, torch.zeros(1, 32, 11, 11), room / BINARY)
    for name in targets:
        profile, out = target.load(name), room / f"{BINARY}-{name}"
        made = compile_module(profile.backend).compile(graph, profile, out)
        files = {f: (out / f).read_bytes() for f in made.files}
        yield {"network": BINARY, "target": name, "precision": "fp32", "files": shortened(files)}


def shortened(files: Any) -> dict[str, str]:
    """The first 16 hex digits of each file's SHA-256."""
    return {name: sha256(content).hexdigest()[:16] for name, content in sorted(files.items())}


def compared(page: Row, now: Row) -> int:
    """How many digests are others than the page's, said a line each."""
    for what in ("versions", "machine"):
        was, here = (d["circumstances"][what] for d in (page, now))
        for key in sorted(k for k in was if was[k] != here.get(k) and k != "edgecv"):
            print(f"note: {key} was {was[key]}, is {here.get(key)}: digests may differ by that")
    known = {identity(r): r for r in page["rows"]}
    apart = [r for r in now["rows"] if not same(known.get(identity(r), {}), r)]
    for row in apart:
        print(f"changed: {line(row)}\n   was:  {line(known.get(identity(row), row))}")
    print(f"{len(now['rows']) - len(apart)} of {len(now['rows'])} as on the page")
    return int(bool(apart))


def identity(row: Row) -> tuple[str, str, str]:
    return row["network"], row["target"], row["precision"]


def same(one: Row, other: Row) -> bool:
    return bool(one) and one["files"] == other["files"]


def line(row: Row) -> str:
    said = ", ".join(f"{n} {d}" for n, d in row["files"].items()) or row.get("refused", "")
    return f"{' '.join(identity(row))}: {said}"


def page(rows: list[Row]) -> list[str]:
    files = [
        [*identity(row), name, digest]
        for row in rows
        for name, digest in (row["files"] or {"refused": row.get("refused", "")}).items()
    ]
    return [
        "# Digests of engine files", "",
        f"Networks of {SIDE}x{SIDE} pixels through `edgecv export`; the first 16 hex digits of "
        "each file's SHA-256. A change that should not touch a bundle leaves every row as it is: "
        "`python benchmarks/golden_digests.py --check`.",
        "", *record.table(["network", "target", "precision", "file", "sha256"], files),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
