"""Detectors as files, through `edgecv export` for every target in one command each.

    python benchmarks/detectors.py --work DIR --images DIR FILE... [--only cpu-int8 ...]

FILE: .onnx detectors with a name of `DETECTORS`. Each is exported for each target in fp32 and int8
(calibrated on the pictures but the last 16) with its own preprocessing; the bundle and the file
itself, run by ONNX Runtime without its optimiser, are given the last 16 pictures, prepared here by
NumPy and Pillow. fp32: the largest error of an output, of its largest value. int8: SQNR of each
group of channels without what is the same for all pictures, as `edgecv export` prints it. A row is
kept as soon as it is known: the next call goes on from there. Writes
benchmarks/results/detectors.{json,md}; exits 1 where fp32 is off by more than 1e-3.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import record
from foreign_files import last_words, timed
from foreign_judge import onnx_runner
from PIL import Image

from edgecv.benchmark.machine import load_average
from edgecv.runtime import open_bundle

TARGETS = ("cpu", "openvino", "tflite", "edgetpu", "c")
PRECISIONS = ("fp32", "int8")
WANTED = 1e-3
JUDGED = 16  # pictures


@dataclass(frozen=True)
class Detector:
    """options: of `edgecv export`. axis, groups: which channels of its output are what.

    scale: of pixels
    """

    options: tuple[str, ...]
    letterbox: bool
    axis: int
    groups: dict[str, slice]
    scale: float = 1.0


DETECTORS = {
    "yolox_nano": Detector(
        ("--resize", "letterbox", "--pad-at", "corner", "--pad-value", "114", "--color", "bgr",
         "--mean", "0", "--std", "1"),
        letterbox=True, axis=2,
        groups={"boxes": slice(4), "objectness": slice(4, 5), "classes": slice(5, None)},
    ),
    "fastestdet": Detector(
        ("--resize", "stretch", "--color", "bgr"), letterbox=False, axis=1,
        groups={"objectness": slice(1), "boxes": slice(1, 5), "classes": slice(5, None)},
        scale=1 / 255,
    ),
}  # fmt: skip


def prepared(path: Path, how: Detector, size: tuple[int, int]) -> np.ndarray:
    """float32 (1, 3, H, W), BGR."""
    height, width = size
    image = Image.open(path).convert("RGB")
    if how.letterbox:
        ratio = min(height / image.height, width / image.width)
        inner = (round(image.width * ratio), round(image.height * ratio))
        canvas = Image.new("RGB", (width, height), (114, 114, 114))
        canvas.paste(image.resize(inner, Image.Resampling.BILINEAR), (0, 0))
    else:
        canvas = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(canvas, np.float32)[..., ::-1].transpose(2, 0, 1) * np.float32(how.scale)
    return np.ascontiguousarray(pixels[None])


def row(file: Path, target: str, precision: str, room: Path, images: Path) -> dict[str, Any]:
    """One file to one bundle, judged."""
    how = DETECTORS[file.stem]
    pictures = sorted(p for p in images.rglob("*") if p.suffix.lower() in (".jpg", ".png"))
    options = [*how.options]
    if precision == "int8":
        calibration = room / "calibration"
        shutil.rmtree(room, ignore_errors=True)
        calibration.mkdir(parents=True)
        for path in pictures[:-JUDGED]:
            shutil.copy(path, calibration)
        options += ["--calibration", str(calibration)]
    ended = timed([
        sys.executable, "-m", "edgecv", "export", str(file), "--target", target,
        "--precision", precision, "--out", str(room / "out"), *options,
    ], 3600)  # fmt: skip
    found: dict[str, Any] = {"code": ended.code, "seconds": round(ended.seconds, 1)}
    if ended.code:
        return {**found, "said": last_words(ended)}
    ran = re.search(r"^ran: (.*)$", ended.out, re.MULTILINE)
    (bundle,) = (room / "out").glob("*.edgecv")
    opened = open_bundle(bundle)
    spec = opened.inputs[0]
    original = onnx_runner(str(file))
    feeds = [{spec.name: prepared(p, how, spec.shape[2:])} for p in pictures[-JUDGED:]]
    name = opened.outputs[0].name
    wanted, got = (
        np.stack(answers).astype(np.float64).swapaxes(1 + how.axis, -1)
        for answers in ([original(f)[name] for f in feeds], [opened.run(f)[name] for f in feeds])
    )
    shutil.rmtree(room)
    return {
        **found, "ran": ran.group(1) if ran else "",
        "error": float(np.abs(wanted - got).max() / np.abs(wanted).max()),
        "sqnr_db": {
            group: round(_sqnr(wanted[..., some], got[..., some]), 1)
            for group, some in how.groups.items()
        },
    }  # fmt: skip


def _sqnr(wanted: np.ndarray, got: np.ndarray) -> float:
    """dB of what varies between pictures."""
    noise = float(((wanted - got) ** 2).sum())
    return 10 * np.log10(float(((wanted - wanted.mean(0)) ** 2).sum()) / max(noise, 1e-30))


def page(rows: Sequence[dict[str, Any]]) -> list[str]:
    head = ("detector", "target", "precision", "layers", "error", "int8: dB of its groups")
    lines = [
        (r["file"], r["target"], r["precision"], r.get("ran", ""),
         f"{r['error']:.1e}" if "error" in r else "refused",
         ", ".join(f"{g} {db}" for g, db in r["sqnr_db"].items())
         if r["precision"] == "int8" and "sqnr_db" in r else "")
        for r in rows
    ]  # fmt: skip
    refused = [f"- {r['file']}, {r['target']} {r['precision']}: {r['said']}"
               for r in rows if "said" in r]  # fmt: skip
    return [
        "# Detectors from file to bundle", "",
        "One `edgecv export` each, with the detector's own resizing, padding and colour "
        f"(`benchmarks/detectors.py`), judged on {JUDGED} pictures that nobody calibrated on "
        "against ONNX Runtime without its optimiser. Error: the largest, of the output's largest "
        f"value; in fp32 {WANTED:g} is allowed ({record.verdict(met(rows))}). int8 is as it comes, "
        "with no task and no labels: dB of what varies between pictures, and how much of a "
        "detector's mAP that leaves only labels can tell.", "",
        *record.table(head, lines), "",
        *(["What was refused, in its own words:", "", *refused] if refused else []),
    ]  # fmt: skip


def met(rows: Sequence[dict[str, Any]]) -> bool:
    found = [r.get("error", 1.0) for r in rows if r["precision"] == "fp32"]
    return bool(found) and max(found) <= WANTED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is kept")
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--only", nargs="+", default=[f"{t}-{p}" for p in PRECISIONS
                                                      for t in TARGETS])  # fmt: skip
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    os.environ["EDGECV_TRUST_SOURCE"] = "1"  # the C bundles are ours
    before = load_average()
    rows = []
    for precision, target, file in (
        (p, t, f) for p in PRECISIONS for t in TARGETS for f in options.files
        if (t, p) != ("edgetpu", "fp32")  # it has integers alone
    ):  # fmt: skip
        kept = options.work / f"{file.stem}-{target}-{precision}.json"
        if not kept.is_file():
            if f"{target}-{precision}" not in options.only:
                continue
            room = options.work / "room"
            made = row(file, target, precision, room, options.images)
            made = {"file": file.name, "target": target, "precision": precision, **made}
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(made, indent=1))
            print(made, file=sys.stderr, flush=True)
        rows.append(json.loads(kept.read_text()))
    rows.sort(key=lambda r: r["file"])
    data = {"circumstances": record.circumstances(1, 0, before), "rows": rows}
    record.write("detectors", options.out, data, page(rows))
    raise SystemExit(0 if met(rows) else 1)


if __name__ == "__main__":
    main()
