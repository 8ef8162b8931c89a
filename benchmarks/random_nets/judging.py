"""One network on one target in one precision: exported in this process, its bundle judged.

What the engines do is done by the package's own functions for child processes, called here, since a
process for each of thousands of jobs would take days; a crash ends this process, which the driver
(`benchmarks/random_networks.py`) notes and starts again.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.random_nets import onnx_nets, torch_nets
from benchmarks.random_nets.pictures import (
    CLASSES,
    MEAN,
    STD,
    arrays,
    extras,
    folder,
    inputs,
    pictures,
)
from benchmarks.random_nets.verdicts import CRASH, KEPT, LOSSY, REFUSED, RIGHT, UNCLEAR, WRONG
from edgecv import child, quick_export
from edgecv.bundling import remarks
from edgecv.errors import EdgecvError, ParityError
from edgecv.fidelity import SEEN_DB
from edgecv.graphs.onnx.pins import Pins
from edgecv.outputs import outputs_of
from edgecv.runtime import open_bundle

FLOAT_DB, TFLITE_DB, INT8_DB = 60.0, 50.0, 15.0
SIDES = (16, 20, 24, 28, 32)
JUDGED = 128  # as many as the exporter takes: one picture of 32 was 43% of an error
CLEAR = 0.15  # a float margin above this share of the logits' spread is one that int8 must keep
# Hints of the fidelity gates that leave a user alone: no layer, nothing to change.
NO_WAY_OUT = ("report this", "inspect it before shipping")


def source(number: int) -> str:
    """Where a network comes from: a torch module, an old or foreign file, torch's own export."""
    return ("torch", "onnx", "torch.onnx")[number % 3]


class Network:
    """Network `number` of a seed, ready for `quick_export`, with what it answers in float.

    model, args, pins, calibration: as in `quick_export.Request`
    feeds: float32 (JUDGED, ...) by input; batch: how many of them a call takes
    wanted: float32 (JUDGED, ...) by output, in the network's order
    """

    def __init__(self, number: int, seed: int, room: Path) -> None:
        self.number, self.kind = number, source(number)
        self._store = tempfile.TemporaryDirectory(prefix="random-network-")
        self.store = Path(self._store.name)  # what its exports share
        own = seed * 1_000_003 + number
        self.side = SIDES[own % len(SIDES)]
        self.pixels, _ = pictures(JUDGED, self.side, 10_000 + own)
        x, self.args, self.pins, self.batch = inputs(self.pixels), dict[str, Any](), Pins(), 1
        if self.kind == "torch":
            self.model, self.args = "benchmarks.random_nets.torch_nets:build", {
                "seed": own, "side": self.side}  # fmt: skip
            module = torch_nets.build(own, self.side)
            more = self._extras(room, module.extra, "x")
            if more:
                sizes = {name: (1, *v.shape[1:]) for name, v in {"x": x, **more}.items()}
                self.pins = Pins(inputs=sizes)
            self.feeds = {"x": x, **more} if more else {"input": x}
            given = [torch.from_numpy(v) for v in self.feeds.values()]
            with torch.inference_mode():
                answers = [outputs_of(module(*(v[i : i + 1] for v in given))).values
                           for i in range(JUDGED)]  # fmt: skip
            self.wanted = [np.concatenate([a[j].numpy() for a in answers])
                           for j in range(len(answers[0]))]  # fmt: skip
            return
        path = room / f"net{number}.onnx"
        if self.kind == "onnx" or not exported(own, self.side, path):
            self.kind = "onnx"
            onnx.save(onnx_nets.build(own, self.side), str(path))
        self.model = str(path)
        session = onnx_nets.session_of(onnx.load(str(path)))
        image, *others = session.get_inputs()
        extra = next((o.name for o in others if o.name in ("numbers", "mask")), None)
        self.batch = image.shape[0]
        self.feeds = {image.name: x, **self._extras(room, extra, image.name)}
        calls = [session.run(None, {k: v[i : i + self.batch] for k, v in self.feeds.items()})
                 for i in range(0, JUDGED, self.batch)]  # fmt: skip
        self.wanted = [np.concatenate([r[j] for r in calls]) for j in range(len(calls[0]))]

    def _extras(self, room: Path, name: str | None, image: str) -> dict[str, np.ndarray]:
        """What it takes beside the image; what it is calibrated on follows from that."""
        if name is None:
            self.calibration = folder(room, self.side)
            return {}
        self.calibration = arrays(room, self.side, name, image)
        return extras(name, JUDGED, self.side, 10_000 + self.number)


def exported(seed: int, side: int, path: Path) -> bool:
    """A torch network as torch.onnx writes it (TorchScript), of an opset of its own; whether
    ONNX Runtime can run what it wrote."""
    module, opset = torch_nets.build(seed, side), 11 + seed % 7
    x = torch.zeros(1, 3, side, side)
    more = {k: torch.from_numpy(v) for k, v in extras(module.extra, 1, side, 0).items()}
    for wanted in (opset, 18):  # some operators can be written in later opsets alone
        try:
            torch.onnx.export(module, (x, *more.values()), str(path), dynamo=False,
                              opset_version=wanted, input_names=["x", *more])  # fmt: skip
            session = onnx_nets.session_of(onnx.load(str(path)))
            session.run(None, {k: v.numpy() for k, v in {"x": x, **more}.items()})
            return True
        except Exception:
            continue
    return False


@cache
def tree() -> str:
    """The commit that judges, marked where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


@contextmanager
def in_process() -> Iterator[None]:
    """`edgecv.child.call` does its work here."""

    def call(module: str, job: dict[str, Any], *given: Any, **named: Any) -> dict[str, Any]:
        # (where, progress, environment), as `edgecv.child.call` takes them
        environment = named.get("environment") or (given[2] if len(given) > 2 else None)
        kept = dict(os.environ)
        os.environ.update(environment or {})
        try:
            answer = importlib.import_module(module).work(json.loads(json.dumps(job)))
            return dict(json.loads(json.dumps(answer)))
        finally:
            os.environ.clear()
            os.environ.update(kept)

    before = child.call
    child.call = call  # type: ignore[assignment]
    try:
        yield
    finally:
        child.call = before


def judged(network: Network, target: str, precision: str,
           apart: bool = False) -> dict[str, Any]:  # fmt: skip
    """The verdict on one export. apart: engines in processes of their own, as for users."""
    result: dict[str, Any] = {"network": network.number, "source": network.kind,
                              "target": target, "precision": precision,
                              "tree": tree()}  # fmt: skip
    alone = network.kind == "torch" and not network.pins.inputs
    size = (network.side, network.side) if alone else None
    request = quick_export.Request(
        model=network.model, args=network.args, targets=(target,), precision=precision, size=size,
        pins=network.pins, calibration=network.calibration, crop_pct=1.0, mean=(MEAN,), std=(STD,),
        interpolation="bilinear",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        try:
            if apart:
                found = quick_export.export(request, Path(out), store=network.store)
            else:
                with in_process():
                    found = quick_export.export(request, Path(out), store=network.store)
            (made,) = found.values()
        except EdgecvError as e:
            return {**result, **_refusal(e)}
        except Exception as e:
            last = e.__traceback__
            while last and last.tb_next:
                last = last.tb_next
            at = f"{Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}" if last else ""
            return {**result, "verdict": CRASH, "reason": f"{type(e).__name__} at {at}: {e}"[:300]}
        try:
            return {**result, **_compared(network, made, target, precision)}
        except EdgecvError as e:  # a bundle that was handed over and does not run is no refusal
            return {**result, "verdict": CRASH, "reason": str(e)[:300]}


def _refusal(error: EdgecvError) -> dict[str, Any]:
    refused = error.exit_code in (2, 3) or isinstance(error, ParityError)
    lost = isinstance(error, ParityError) and any(h in error.hint for h in NO_WAY_OUT)
    said = f"{type(error).__name__} {error.where}: {error.what} ({error.hint})"
    return {
        "verdict": CRASH if not refused else UNCLEAR if lost else REFUSED,
        "reason": normalised(said),
        "said": said[:400],
    }


def normalised(said: str) -> str:
    """A sentence without what is this network's own: names, numbers, files."""
    said = re.sub(r"\S*(/|\.onnx)\S*", "FILE", said)
    said = re.sub(r"\S+-(fp32|int8)\.", "", said)  # the bundle's own name
    said = re.sub(r"'[^']*'|\"[^\"]*\"", "'X'", said)
    said = re.sub(r"\bnet\d+\S*|\b(?:n|c|node_\w*?|body\.|head)\d[\w.]*", "X", said)
    return re.sub(r"-?\d+(\.\d+)?", "#", said)[:160]


def _compared(network: Network, made: Any, target: str, precision: str) -> dict[str, Any]:
    got = _answers(network, made.bundle)
    least = INT8_DB if precision == "int8" else TFLITE_DB if target == "tflite" else FLOAT_DB
    figures, right = [], len(got) == len(network.wanted)
    for wanted, found in zip(network.wanted, got, strict=False):
        db, same = compared(wanted, found)
        figures.append([round(db, 1), round(same, 3)])
        right &= db >= least and same >= 7 / 8
    kept = precision == "int8" and not set(made.facts.executed) & {"int8"}
    note = "; ".join(made.facts.notes)[:300]
    verdict = WRONG if not right else KEPT if kept or "float" in note else RIGHT
    reason = normalised(note) if verdict == KEPT else ""
    lossy = next((w for w in made.facts.warnings if w.startswith(remarks.LOSSY)), "")
    told = made.facts.parity["float"]["sqnr_db"] if lossy else np.inf
    if not right and min(f[0] for f in figures) >= told - SEEN_DB:  # as bad as it said, no worse
        verdict, reason = LOSSY, normalised(lossy)
    return {"verdict": verdict, "reason": reason, "figures": figures, "note": note}


def _answers(network: Network, path: Path) -> list[np.ndarray]:
    """(JUDGED, ...) of every output, in the graph's own order, shape and layout."""
    bundle, step = open_bundle(path), network.batch
    try:
        names = [s.name for s in bundle.inputs]
        feeds = dict(zip(names, network.feeds.values(), strict=True))
        if set(names) == network.feeds.keys():
            feeds = network.feeds
        calls = [bundle.run({k: v[i : i + step] for k, v in feeds.items()})
                 for i in range(0, JUDGED, step)]  # fmt: skip
        return [np.concatenate([c[s.name] for c in calls]) for s in bundle.outputs]
    finally:
        bundle.close()


def compared(wanted: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    """dB of what varies between the pictures over the error; share of clear best classes kept, of a
    row of classes. Shapes must be the same: an output that lies otherwise is another."""
    if wanted.shape != got.shape:
        return -np.inf, 0.0
    a, b = (v.astype(np.float64).reshape(len(wanted), -1) for v in (wanted, got))
    varies = ((a - a.mean(0)) ** 2).sum()
    error = ((a - b) ** 2).sum()
    db = 10 * np.log10(max(varies, 1e-30) / max(error, 1e-30))
    if wanted.ndim not in (2, 4) or not 2 <= wanted.shape[1] == a.shape[1] <= CLASSES:
        return float(db), 1.0
    order = np.sort(a, 1)
    clear = order[:, -1] - order[:, -2] > CLEAR * a.std()
    same = (a.argmax(1) == b.argmax(1)) | ~clear
    return float(db), float(same.mean())
