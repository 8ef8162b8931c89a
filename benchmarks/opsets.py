"""Every family of operators at every opset that has it, through the door of .onnx files.

    python benchmarks/opsets.py

`opset_nets.py` writes one small network for each of opsets 7 to 26; each goes through `load_onnx`,
and what comes of it is compared with the file as it was, both by ONNX Runtime with all
optimisations off: ‖a − b‖ / ‖a‖ on random numbers, at most 1e-5. Exits 1 where one is more, or does
not come in. Writes benchmarks/results/opsets.{json,md}.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import record

from benchmarks.opset_nets import SHAPE, cases, make
from edgecv.errors import EdgecvError
from edgecv.methods.export._proof import plain_runner
from edgecv.methods.export.onnx import load_onnx

LIMIT, SEED = 1e-5, 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    before, began = record.load_average(), time.perf_counter()
    x = np.random.default_rng(SEED).normal(size=SHAPE).astype(np.float32)
    with tempfile.TemporaryDirectory() as room:
        rows = [judged(name, opset, x, Path(room)) for name, opset in cases()]
    good = [row for row in rows if row["met"]]
    data = {
        "circumstances": record.circumstances(1, SEED, before),
        "seconds": round(time.perf_counter() - began, 1),
        "limit": LIMIT,
        "rows": rows,
    }
    passed = record.verdict(len(good) == len(rows))
    said = f"{len(good)} of {len(rows)} networks came in and answer within {LIMIT:g}: {passed}."
    record.write("opsets", options.out, data, [*table(rows), "", said])
    if len(good) < len(rows):
        raise SystemExit(1)


def judged(name: str, opset: int, x: np.ndarray, room: Path) -> dict[str, Any]:
    """One network's row: its error, its opset behind the door, or why it did not come in."""
    path = room / "net.onnx"
    onnx.save(make(name, opset), str(path))
    row: dict[str, Any] = {"family": name, "opset": opset, "met": False}
    (a,) = plain_runner(onnx.load(str(path)), name)({"x": x})
    try:
        graph = load_onnx(path, room / "out")
    except EdgecvError as e:
        return row | {"refused": str(e)}
    (b,) = plain_runner(onnx.load(str(graph.path)), name)({"x": x})
    error = float(np.linalg.norm(a - b) / np.linalg.norm(a)) if a.shape == b.shape else np.inf
    return row | {"error": error, "becomes": graph.facts["opset"], "met": error <= LIMIT}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each family: from which opset to which, what they become, the largest error."""
    of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        of[row["family"]].append(row)
    lines = [
        "# Opsets", "",
        "One network of each family of operators at every opset that has it, through the door of "
        ".onnx files: the largest ‖a − b‖ / ‖a‖ against the file as it was, ONNX Runtime with all "
        "optimisations off.", "",
        "| family | opsets | become | networks | came in | largest error |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, those in of.items():
        came = [row for row in those if "error" in row]
        opsets = [row["opset"] for row in those]
        becomes = sorted({row["becomes"] for row in came})
        worst = max((row["error"] for row in came), default=float("nan"))
        lines.append(f"| {name} | {min(opsets)} to {max(opsets)} | {becomes[0]} to {becomes[-1]} | "
                     f"{len(those)} | {len(came)} | {worst:.1e} |")  # fmt: skip
    refused = [row for row in rows if "refused" in row]
    lines += [f"- {row['family']} at {row['opset']}: {row['refused']}" for row in refused]
    return lines


if __name__ == "__main__":
    main()
