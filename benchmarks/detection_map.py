"""mAP of detectors' bundles beside their .onnx files evaluated without edgecv.

    python benchmarks/detection_map.py FILE... --set DIR --calibration DIR --work DIR

FILE: .onnx detectors with a name of `detection_own.NETWORKS`. DIR of --set has images/ and YOLO's
labels/. Each file is exported in fp32 for cpu, openvino and tflite and in int8 for cpu, each
bundle judged by `edgecv export --evaluate`; then `edgecv predict --json` answers the pictures and
pycocotools judges these boxes with no code of edgecv. The times are of `edgecv predict` in a
process that can import NumPy and the engine alone. A detector is kept in DIR of --work as soon as
it is known: the next call goes on from there. Writes
benchmarks/results/detection_map.{json,md}; exits 1 where a bundle in fp32 is more than 0.1 point
from its file, or a metric more than 1e-6 from pycocotools.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detection_own as own
import numpy as np
import record
from PIL import Image

from edgecv.benchmark.machine import load_average

WANTED, SAME = 0.1, 1e-6  # points of mAP and AP50; of a metric in 0..1
FP32 = ("cpu", "openvino", "tflite")
PREPARED = {
    "yolox_nano": ("--resize", "letterbox", "--pad-at", "corner", "--color", "bgr",
                   "--mean", "0", "--std", "1"),
    "fastestdet": ("--resize", "stretch", "--color", "bgr", "--mean", "0", "--std", "255"),
}  # fmt: skip
TIMED = 64  # pictures
DEPLOYED, JUDGED = (), ("--confidence", str(own.LEAST), "--max-detections", str(own.MOST))
BLOCKED = ("torch", "PIL", "pycocotools", "onnx", "scipy", "cv2", "pydantic", "yaml", "nncf")
# A process in which these are not installed, and which says afterwards what it imported
CHILD = """
import sys
for name in %r:
    sys.modules[name] = None
from edgecv.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
tops = sorted({m.partition(".")[0] for m, v in sys.modules.items() if v is not None})
print(*(t for t in tops if t not in sys.stdlib_module_names and t[0] != "_"), file=sys.stderr)
sys.exit(code)
"""


def bundles(file: Path, options: argparse.Namespace) -> dict[tuple[str, str], dict[str, Any]]:
    """What `edgecv export --json` says of each (target, precision)."""
    common = (
        "--task", "detection", "--interpolation", "bilinear", *PREPARED[file.stem],
        "--evaluate", f"yolo:{options.set}",
    )  # fmt: skip
    found = {}
    for precision, targets, more in (
        ("fp32", FP32, ()),
        ("int8", ("cpu",), ("--calibration", str(options.calibration))),
    ):
        print(f"export {file.stem} {precision}", file=sys.stderr, flush=True)
        out = options.work / f"{file.stem}-{precision}"
        shutil.rmtree(out, ignore_errors=True)
        said = json.loads(record.edgecv(
            "export", str(file), "--target", ",".join(targets), "--precision", precision,
            "--out", str(out), "--json", *common, *more,
        ))  # fmt: skip
        found |= {(one["target"], precision): one for one in said.get("targets", [said])}
    return found


def predicted(bundle: str, true: own.Truth) -> list[own.Rows]:
    """The boxes that `edgecv predict` gives, as its JSON says them."""
    folder = str(true.pictures[0].parent)
    lines = record.edgecv("predict", bundle, folder, "--json", *JUDGED).splitlines()
    rows = {}
    for said in map(json.loads, lines):
        found = said["predictions"]
        rows[Path(said["image"]).name] = own.Rows(
            np.array([f["box"] for f in found], np.float64).reshape(-1, 4),
            np.array([f["score"] for f in found]),
            np.array([f["index"] for f in found], int),
        )
    return [rows[path.name] for path in true.pictures]


def times(bundle: str, arrays: Path, asked: Sequence[str]) -> dict[str, Any]:
    """Medians in ms of `edgecv predict` on .npy pictures, with NumPy and the engine alone."""
    command = [sys.executable, "-c", CHILD % (BLOCKED,), "predict", bundle, str(arrays), "--json"]
    done = subprocess.run(
        [*command, *asked], cwd=record.ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"edgecv predict {bundle}: {done.stderr[-2000:]}")
    rows = [json.loads(line)["latency_ms"] for line in done.stdout.splitlines()]
    medians = {part: round(statistics.median(r[part] for r in rows), 3) for part in rows[0]}
    return {**medians, "imported": done.stderr.strip().splitlines()[-1].split()}


def judged(file: Path, true: own.Truth, options: argparse.Namespace) -> dict[str, Any]:
    """One detector: its file evaluated apart, and a row for each bundle."""
    whole = own.evaluated(file, true.pictures)
    cut = [own.clipped(rows, size) for rows, size in zip(whole, true.sizes, strict=True)]
    found: dict[str, Any] = {"file": file.name, "own": own.figures(true, cut),
                             "own_not_cut": own.figures(true, whole), "bundles": []}  # fmt: skip
    arrays = options.work / "arrays"
    shutil.rmtree(arrays, ignore_errors=True)
    arrays.mkdir(parents=True)
    for path in true.pictures[:TIMED]:
        np.save(arrays / f"{path.stem}.npy", np.asarray(Image.open(path).convert("RGB")))
    for (target, precision), said in bundles(file, options).items():
        if "error" in said:
            raise SystemExit(f"{file.name} for {target}: {said['error']}")
        metric = said["metric"]
        values = (metric["value"], metric["more"]["ap50"])
        apart = own.figures(true, predicted(said["bundle"], true))
        found["bundles"].append({
            "target": target, "precision": precision, "map": values[0], "ap50": values[1],
            "pycocotools": apart, "size_bytes": said["size_bytes"],
            "points": [100 * (a - b) for a, b in zip(values, found["own"], strict=True)],
            "apart": max(abs(a - b) for a, b in zip(values, apart, strict=True)),
            "deployed_ms": times(said["bundle"], arrays, DEPLOYED),
            "judged_ms": times(said["bundle"], arrays, JUDGED),
        })  # fmt: skip
        print(found["bundles"][-1], file=sys.stderr, flush=True)
    return found


def met(rows: Sequence[dict[str, Any]]) -> tuple[bool, bool]:
    """(fp32 is as its file, metrics are pycocotools')"""
    every = [b for row in rows for b in row["bundles"]]
    off = [abs(p) for b in every if b["precision"] == "fp32" for p in b["points"]]
    return max(off) <= WANTED, max(b["apart"] for b in every) <= SAME


def page(rows: Sequence[dict[str, Any]], images: int) -> list[str]:
    same, exact = map(record.verdict, met(rows))
    figures, clocks = [], []
    for row in rows:
        (value, ap50), (uncut, uncut50) = row["own"], row["own_not_cut"]
        name = row["file"].removesuffix(".onnx")
        figures += [
            (name, "the file, evaluated apart", *_points(value, ap50), "", "", ""),
            (name, "the same, boxes not cut at the edge", *_points(uncut, uncut50),
             *(f"{100 * d:+.3f}" for d in (uncut - value, uncut50 - ap50)), ""),
        ]  # fmt: skip
        for b in row["bundles"]:
            who = f"{b['target']} {b['precision']}"
            figures.append((name, who, *_points(b["map"], b["ap50"]),
                            *(f"{p:+.3f}" for p in b["points"]), f"{b['apart']:.0e}"))  # fmt: skip
            used, all_of_it = b["deployed_ms"], b["judged_ms"]
            clocks.append((name, who, f"{used['preprocess']:.2f}", f"{used['engine']:.2f}",
                           f"{used['decode']:.2f}", f"{all_of_it['decode']:.2f}"))  # fmt: skip
    imported = sorted({n for r in rows for b in r["bundles"] for n in b["deployed_ms"]["imported"]})
    return [
        "# mAP of detectors' bundles", "",
        f"{images} pictures of COCO train2017 (coco128), which these networks may have been "
        "trained on: the figures are to be compared with one another alone. Each .onnx file is "
        "evaluated by `benchmarks/detection_own.py`, which imports nothing of edgecv; the "
        "bundles by `edgecv export --task detection --evaluate yolo:...` "
        "(`benchmarks/detection_map.py`). Confidence 0.001, IoU 0.45, the best class of a place, "
        "300 boxes a picture.", "",
        f"- fp32 within {WANTED} point of the file, mAP and AP50: {same}.",
        f"- The bundle's metric within {SAME:g} of pycocotools on the boxes that `edgecv predict "
        f"--json` gives: {exact}.", "",
        *record.table(("detector", "", "mAP", "AP50", "mAP - file's", "AP50 - file's",
                       "from pycocotools"), figures), "",
        "int8 is as it comes, calibrated on photographs that are no part of the set: no limit, "
        "no search, no layer kept by hand.", "",
        f"Medians in ms of `edgecv predict` on {TIMED} .npy pictures, one thread, in a process "
        f"where {', '.join(BLOCKED)} cannot be imported; it imported {', '.join(imported)}. "
        "decode is reading, suppression and placing back.", "",
        *record.table(("detector", "", "preprocess", "network", "decode", "decode as judged "
                       "(0.001, 300)"), clocks),
    ]  # fmt: skip


def _points(*values: float) -> list[str]:
    return [f"{100 * v:.3f}" for v in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--set", type=Path, required=True, help="folder with images/ and labels/")
    parser.add_argument("--calibration", type=Path, required=True, help="pictures for int8")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is kept")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    before = load_average()
    true = own.truth(options.set)
    rows = []
    for file in options.files:
        kept = options.work / f"{file.stem}.json"
        if not kept.is_file():
            made = judged(file, true, options)
            kept.write_text(json.dumps(made, indent=1))
        rows.append(json.loads(kept.read_text()))
    data = {"circumstances": record.circumstances(1, 0, before), "images": len(true.pictures),
            "rows": rows}  # fmt: skip
    record.write("detection_map", options.out, data, page(rows, len(true.pictures)))
    raise SystemExit(0 if all(met(rows)) else 1)


if __name__ == "__main__":
    main()
