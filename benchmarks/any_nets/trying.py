"""One network on one target in one precision: exported, its bundle judged output by output.

A row is {"network", "target", "precision", "verdict", "reason", "figures"}; figures: dB of each
output, what varies between the pictures over the error. Rows are kept in a file as they come, with
a line before each that begins: one that never ended is a CRASH.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.random_nets.judging import FLOAT_DB, INT8_DB, TFLITE_DB, compared, in_process, tree
from benchmarks.random_nets.verdicts import CRASH, KEPT, LOSSY, REFUSED, RIGHT, WRONG
from edgecv import quick_export
from edgecv.bundling import remarks
from edgecv.errors import EdgecvError, ParityError
from edgecv.runtime import open_bundle

TARGETS = ("cpu", "openvino", "tflite", "edgetpu", "c")
BEGUN = "begun"


@dataclass(frozen=True)
class Network:
    """name: a row of the table; model, args: as in `quick_export.Request`; side: of its picture

    feeds: arrays (N, ...) by the name of an input, float, in ONNX's layout; wanted: what the graph
    itself makes of them, (N, ...) by output; pixels: (N, side, side, 3), where one input is image
    """

    name: str
    model: str
    feeds: dict[str, np.ndarray]
    wanted: list[np.ndarray]
    args: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def places(targets: Sequence[str] = TARGETS) -> list[tuple[str, str]]:
    """(target, precision), of the Edge TPU in int8 alone."""
    return [(t, p) for t in targets for p in ("fp32", "int8") if (t, p) != ("edgetpu", "fp32")]


def answers(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime makes of a file without its optimiser, picture by picture: (N, ...)."""
    import onnx

    from benchmarks.random_nets.onnx_nets import session_of

    session = session_of(onnx.load(str(path)))
    count = len(next(iter(feeds.values())))
    rows = [session.run(None, {k: v[i : i + 1] for k, v in feeds.items()}) for i in range(count)]
    return [np.stack([row[j] for row in rows]) for j in range(len(rows[0]))]


def tried(network: Network, target: str, precision: str, store: Path) -> dict[str, Any]:
    """The verdict on one export. store: what exports of this network share"""
    row = {"network": network.name, "target": target, "precision": precision, "tree": tree()}
    request = quick_export.Request(
        model=network.model, args=network.args, targets=(target,), precision=precision,
        **network.options,
    )  # fmt: skip
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        try:
            with in_process():
                (made,) = quick_export.export(request, Path(out), store=store).values()
            row |= _judged(network, made, target, precision)
        except EdgecvError as e:
            told = e.exit_code in (2, 3) or isinstance(e, ParityError)
            said = f"{e.where}: {e.what}" + (f" ({e.hint})" if e.hint else "")
            row |= {"verdict": REFUSED if told else CRASH, "figures": [], "reason": said}
        except Exception as e:
            row |= {"verdict": CRASH, "figures": [], "reason": f"{type(e).__name__}: {e}"[:400]}
    return {**row, "seconds": round(time.monotonic() - begun, 1)}


def _judged(network: Network, made: Any, target: str, precision: str) -> dict[str, Any]:
    least = INT8_DB if precision == "int8" else TFLITE_DB if target == "tflite" else FLOAT_DB
    facts = made.facts
    bundle = open_bundle(made.bundle)
    try:
        count = len(next(iter(network.feeds.values())))
        runs = [_run(bundle, {k: v[i : i + 1] for k, v in network.feeds.items()})
                for i in range(count)]  # fmt: skip
    finally:
        bundle.close()
    figures = []
    for j, wanted in enumerate(network.wanted):
        got = np.stack([run[j] for run in runs]) if len(runs[0]) > j else np.zeros(0)
        figures.append(round(compared(wanted, got)[0], 1))
    right = len(runs[0]) == len(network.wanted) and min(figures) >= least
    kept = precision == "int8" and "int8" not in facts.executed
    lossy = next((w for w in facts.warnings if w.startswith(remarks.LOSSY)), "")
    note = "; ".join(facts.notes)
    verdict = (
        (KEPT if kept else RIGHT) if right else LOSSY if lossy and precision == "int8" else WRONG
    )
    return {"verdict": verdict, "reason": lossy if verdict == LOSSY else "", "note": note,
            "figures": figures, "executed": dict(facts.executed)}  # fmt: skip


def _run(bundle: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of one run, in the graph's order and layout."""
    given = {}
    for spec, value in zip(bundle.inputs, feeds.values(), strict=True):
        turned = spec.layout == "NHWC" and value.ndim == 4 and value.shape[1:] != spec.shape[1:]
        given[spec.name] = value.transpose(0, 2, 3, 1) if turned else value
    made = bundle.run(given)
    return [
        made[s.name].transpose(0, 3, 1, 2) if s.layout == "NHWC" and made[s.name].ndim == 4
        else made[s.name] for s in bundle.outputs
    ]  # fmt: skip


class Tally:
    """Rows in a file, so that a run goes on where it stopped."""

    def __init__(self, file: Path, again: Iterable[str] = ()) -> None:
        self.file, self.rows = file, dict[tuple[str, str, str], dict[str, Any]]()
        for line in file.read_text().splitlines() if file.exists() else []:
            row = json.loads(line)
            self.rows[row["network"], row["target"], row["precision"]] = row
        for row in self.rows.values():
            if row["verdict"] == BEGUN:
                row |= {"verdict": CRASH, "reason": "the process ended", "figures": []}
        self.rows = {k: r for k, r in self.rows.items() if r["verdict"] not in again}
        self.file.write_text("".join(json.dumps(r) + "\n" for r in self.rows.values()))

    def take(self, network: Network, targets: Sequence[str], store: Path) -> None:
        """What is not known of a network yet, on these targets."""
        for target, precision in places(targets):
            key = (network.name, target, precision)
            if key in self.rows:
                continue
            self._add({"network": key[0], "target": target, "precision": precision,
                       "verdict": BEGUN})  # fmt: skip
            self.rows[key] = row = tried(network, target, precision, store)
            self._add(row)
            print(*key, row["verdict"], row["figures"], row["reason"], flush=True)

    def known(self, name: str, targets: Sequence[str]) -> bool:
        """Whether all of a network's rows are there."""
        return all((name, t, p) in self.rows for t, p in places(targets))

    def _add(self, row: dict[str, Any]) -> None:
        with self.file.open("a") as out:
            out.write(json.dumps(row) + "\n")


MARKS = {RIGHT: "", KEPT: " in float", LOSSY: " lossy, told", REFUSED: "refused",
         CRASH: "**crash**", WRONG: " **wrong**"}  # fmt: skip


def mark(row: dict[str, Any] | None) -> str:
    """A cell of the table: dB of the worst output, or what happened instead."""
    if row is None:
        return ""
    said = MARKS[row["verdict"]]
    return f"{min(row['figures']):.0f}{said}" if row["figures"] else said
