"""A random detector or segmentation network on one target: its bundle's answers judged.

The file is run by ONNX Runtime unoptimised and read by `task_reading`. fp32: the same boxes, or the
same class of each pixel, but for what lies within rounding of a threshold. int8: what is clear in
float is there in int8 too, and the reverse, for 8 of 10; else it must have been told.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

from benchmarks.random_nets import onnx_nets, task_nets, task_reading
from benchmarks.random_nets.judging import _refusal, in_process, normalised, tree
from benchmarks.random_nets.pictures import MEAN, STD, pictures
from benchmarks.random_nets.verdicts import CRASH, KEPT, LOSSY, RIGHT, WRONG
from edgecv import quick_export
from edgecv.bundling import remarks
from edgecv.errors import EdgecvError
from edgecv.runtime import open_bundle

JUDGED = 16
SLACK = {"fp32": 2e-3, "tflite": 1e-2}  # of a score, between float engines
CLEAR = 0.2  # of a score or a share: what int8 must keep
SAME = {"fp32": 0.98, "int8": 0.8}


class Network:
    """Network `number` of a seed, with what it answers to pictures of several sizes.

    images: uint8 (H, W, 3); raw: its outputs to each
    """

    def __init__(self, number: int, seed: int, room: Path) -> None:
        self.number, own = number, seed * 1_000_003 + number
        self._store = tempfile.TemporaryDirectory(prefix="random-network-")
        self.store = Path(self._store.name)
        self.made = task_nets.build(own)
        self.kind = self.made.kind
        self.path = room / f"task{number}.onnx"
        onnx.save(self.made.model, str(self.path))
        self.labels = room / f"task{number}.txt"
        self.labels.write_text("".join(f"class{k}\n" for k in range(self.made.classes)))
        rng = np.random.default_rng(own)
        squares, _ = pictures(JUDGED, 140, own % 1000 + 1)
        sizes = rng.integers(40, 140, (JUDGED, 2))
        self.images = [p[:h, :w] for p, (h, w) in zip(squares, sizes.tolist(), strict=True)]
        self.session = onnx_nets.session_of(self.made.model)
        self.calibration = room / "task-pictures"
        if not self.calibration.is_dir():
            self.calibration.mkdir()
            for i, pixels in enumerate(pictures(48, 140, 1)[0]):
                Image.fromarray(pixels[: 60 + i, : 140 - i]).save(self.calibration / f"{i:03}.png")

    @property
    def model(self) -> str:
        return str(self.path)

    def raw(self, x: np.ndarray) -> dict[str, np.ndarray]:
        names = [o.name for o in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {"input": x}), strict=True))


def judged(network: Network, target: str, precision: str, apart: bool = False) -> dict[str, Any]:
    """The verdict on one export. apart: engines in processes of their own, as for users."""
    made = network.made
    result = {"network": network.number, "source": network.kind, "target": target,
              "precision": precision, "tree": tree()}  # fmt: skip
    request = quick_export.Request(
        model=network.model, targets=(target,), precision=precision, task=made.task,
        decode=dict(made.decode), labels=network.labels, calibration=network.calibration,
        resize=made.resize, pad_at=made.pad_at if made.resize == "letterbox" else None,
        mean=(MEAN,), std=(STD,), interpolation="bilinear",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        try:
            if apart:
                found = quick_export.export(request, Path(out), store=network.store)
            else:
                with in_process():
                    found = quick_export.export(request, Path(out), store=network.store)
            (bundle,) = found.values()
            if isinstance(bundle, EdgecvError):
                raise bundle
        except EdgecvError as e:
            return {**result, **_refusal(e)}
        except Exception as e:
            last = e.__traceback__
            while last and last.tb_next:
                last = last.tb_next
            at = f"{Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}" if last else ""
            return {**result, "verdict": CRASH, "reason": f"{type(e).__name__} at {at}: {e}"[:300]}
        try:
            return {**result, **_compared(network, bundle, target, precision)}
        except EdgecvError as e:
            return {**result, "verdict": CRASH, "reason": str(e)[:300]}


def _compared(network: Network, made: Any, target: str, precision: str) -> dict[str, Any]:
    slack = SLACK["tflite" if target == "tflite" else "fp32"]
    bundle = open_bundle(made.bundle)
    try:
        if network.kind == "segmentation":
            same, of = _pixels(network, bundle, precision)
        elif precision == "int8":
            same, of = _clear_boxes(network, bundle)
        else:
            same, of = _boxes(network, bundle, slack)
    finally:
        bundle.close()
    right = same >= SAME[precision] * of or of - same <= 1
    note = "; ".join(made.facts.notes)[:300]
    kept = precision == "int8" and not set(made.facts.executed) & {"int8"}
    verdict = WRONG if not right else KEPT if kept or "float" in note else RIGHT
    reason = normalised(note) if verdict == KEPT else ""
    lossy = next((w for w in made.facts.warnings if w.startswith(remarks.LOSSY)), "")
    if not right and lossy:
        verdict, reason = LOSSY, normalised(lossy)
    return {"verdict": verdict, "reason": reason, "figures": [int(same), int(of)], "note": note}


def _boxes(network: Network, bundle: Any, slack: float) -> tuple[int, int]:
    """(boxes that both have, boxes of either): scores within the slack, boxes within a pixel."""
    same = of = 0
    for image in network.images:
        size = image.shape[:2]
        raw = network.raw(_float(bundle, image))
        wanted = task_reading.suppressed(
            network.made, task_reading.candidates(network.made, raw, size), size
        )
        found, _ = bundle.read(image)
        pairs = (found.boxes, found.scores, found.index), wanted
        for a, b in (pairs, pairs[::-1]):
            sure = a[1] >= network.made.decode["confidence"] + slack
            near = np.abs(a[0][:, None] - b[0]).max(2, initial=0) <= 1 + 10 * slack * max(size)
            near &= (np.abs(a[1][:, None] - b[1]) <= slack) & (a[2][:, None] == b[2])
            of += int(sure.sum())
            same += int((near.any(1) & sure).sum())
    return same, of


def _clear_boxes(network: Network, bundle: Any) -> tuple[int, int]:
    """The same of boxes that are clear: some place says nearly so on the other side."""
    same, of, least = 0, 0, network.made.decode["confidence"]
    ask = {"confidence": max(0.01, least - CLEAR), "iou": 1.0, "max_detections": 10_000}
    for image in network.images:
        size = image.shape[:2]
        raw = network.raw(_float(bundle, image))
        wanted = task_reading.candidates(network.made, raw, size)
        high, wide = size
        wanted = (wanted[0].clip(0, [wide, high, wide, high]), *wanted[1:])
        on = (wanted[0][:, 2:] > wanted[0][:, :2]).all(1)
        wanted = tuple(v[on] for v in wanted)
        found, _ = bundle.read(image, **ask)
        pairs = (found.boxes, found.scores, found.index), wanted
        for a, b in (pairs, pairs[::-1]):
            for i in np.flatnonzero(a[1] >= least + CLEAR):
                of += 1
                there = np.flatnonzero((b[2] == a[2][i]) & (b[1] >= ask["confidence"]))
                same += any(task_reading.overlap(a[0][i], b[0][k]) >= 0.5 for k in there)
    return same, of


def _pixels(network: Network, bundle: Any, precision: str) -> tuple[int, int]:
    """(pixels of the same class, pixels whose class is clear in float)."""
    same = of = 0
    for image in network.images:
        raw = network.raw(_float(bundle, image))
        wanted, ahead = task_reading.labelled(network.made, raw, image.shape[:2])
        least = 1e-3 if precision == "fp32" else CLEAR * max(float(np.std(ahead)) * 3, 1e-9)
        clear = ahead >= min(least, float(ahead.max()))
        found = bundle(image)
        of += int(clear.sum())
        same += int(((found == wanted) & clear).sum())
    return same, of


def _float(bundle: Any, image: np.ndarray) -> np.ndarray:
    """The input as the file takes it, whatever the bundle's own is."""
    pixels = bundle.preprocess.geometry(image).astype(np.float32)
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)[None]
