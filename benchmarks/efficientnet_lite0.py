"""EfficientNet-Lite0 in int8 on three engines: how often it agrees with fp32, how much faster.

    python benchmarks/efficientnet_lite0.py PHOTOS_DIR_OR_ZIP [--out benchmarks/results]

Needs the extras [all,zoo]. The photographs need no labels: fp32 on ONNX Runtime is the reference.
They are cut in two halves; a network calibrated on one is judged on the other, and the other way
round, so every photograph is judged once, by a network that did not see it. Everything is made with
`edgecv export` and judged through `open_bundle` on the decoded photographs. Beside it stand the
engines' own quantizers at their defaults, calibrated on the same photographs.

Exit code 1 when a requirement is missed: on photographs of which fp32 is sure (softmax above 0.3)
at least 98% agreement, pooled and in each half; at least 1.8 times faster than fp32 on ONNX
Runtime; every compute layer in int8; the expected operators.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from library_defaults import LIBRARIES, Library
from record import RESULTS, circumstances, export, load_average, table, verdict, write

from edgecv.backends.tflite import flatbuffer
from edgecv.bench.measure import Plan, measure
from edgecv.data.decode import calibration_images, decode
from edgecv.parity import compare
from edgecv.runtime import open_bundle

ENGINES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO", "tflite": "LiteRT"}
INPUT = ("--arg", "pretrained=true", "--input-size", "224", "--mean", "127", "--std", "128")
SURE = 0.3
AGREE, FASTER = 0.98, 1.8
OPS = {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "AVERAGE_POOL_2D", "FULLY_CONNECTED"}
SEED, ROUNDS, BURST_MS = 0, 60, 40.0
PLAN = Plan(rounds=ROUNDS, budget_s=1.0, burst_ms=BURST_MS, seed=SEED)  # ROUNDS and no more


class Judged:
    """What a bundle says of photographs: logits (N, classes), best class and its score."""

    def __init__(self, path: Path, photographs: list[Path]) -> None:
        bundle = open_bundle(path)
        logits, best, scores = [], [], []
        for photograph in photographs:
            image = decode(photograph, 3)
            (first,) = bundle(image, top=1)
            best.append(first.index)
            scores.append(first.score)
            (source,), (result,) = bundle.inputs, bundle.outputs
            feeds = {source.name: bundle.preprocess(image)}
            logits.append(bundle.run(feeds)[result.name].reshape(-1))
        bundle.close()
        self.logits, self.best, self.scores = map(np.array, (logits, best, scores))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder or a .zip of photographs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        return run(options.photographs, options.out, Path(room))


def run(source: Path, out: Path, room: Path) -> int:
    load = load_average()
    photographs = _photographs(source, room / "photographs")
    halves = _halves(photographs, room)
    fp32 = {t: _export(t, "fp32", halves[0], room / f"fp32-{t}") for t in ENGINES}
    int8 = {t: _both(halves, room / f"int8-{t}", _by_edgecv(t)) for t in ENGINES}
    theirs = {
        name: _both(halves, room / f"library-{i}", _by_library(library, fp32[library.target]))
        for i, (name, library) in enumerate(LIBRARIES.items())
    }

    judge = [calibration_images(halves[1]), calibration_images(halves[0])]
    reference = [Judged(fp32["cpu"], p) for p in judge]
    rows = [
        _row(f"{ENGINES[t]} fp32", "edgecv", "fp32", [path, path], judge, reference)
        for t, path in fp32.items()
    ]
    rows += [
        _row(ENGINES[t], "edgecv", "int8", paths, judge, reference) for t, paths in int8.items()
    ]
    rows += [
        _row(name, "library", "int8", paths, judge, reference) for name, paths in theirs.items()
    ]

    timed = measure([Path(r.pop("path")) for r in rows], PLAN, starts=False)
    for row, times in zip(rows, timed["bundles"], strict=True):
        row |= {k: v for k, v in times.items() if k not in ("bundle", "size_bytes")}
        row["faster"] = 1 / times["latency_ratio"]
        row["faster_cpu_time"] = 1 / times["cpu_time_ratio"]

    ours = [r for r in rows if r["made_by"] == "edgecv" and r["precision"] == "int8"]
    operators = _operators(int8["tflite"][0])
    met = {
        "agreement": all(r["sure"]["agreement"] >= AGREE for r in ours),
        "agreement_in_each_half": all(
            h["sure"]["agreement"] >= AGREE for r in ours for h in r["halves"]
        ),
        "speed": all(r["faster"] >= FASTER for r in ours),
        "operators": set(operators) <= OPS,
        "all_layers_int8": all(set(r["executed"]) == {"int8"} for r in ours),
    }
    data = {
        "schema": 1,
        "circumstances": circumstances(1, SEED, load),
        "photographs": {
            "count": len(photographs),
            "sha256": _digest(photographs),
            "sure": int(sum((r.scores > SURE).sum() for r in reference)),
            "sure_above": SURE,
            "halves": [len(p) for p in judge],
        },
        "timing": {"rounds": ROUNDS, "burst_ms": BURST_MS, "reference": rows[0]["name"]},
        "required": {"sure_agreement": AGREE, "faster": FASTER, "operators": sorted(OPS)},
        "met": met,
        "tflite_operators": operators,
        "results": rows,
    }
    write("efficientnet_lite0", out, data, _markdown(data))
    return 0 if all(met.values()) else 1


def _photographs(source: Path, folder: Path) -> list[Path]:
    """The image files of a folder, or of a zip (its names are not trusted: base names only)."""
    if source.is_dir():
        return calibration_images(source)
    folder.mkdir()
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                (folder / Path(info.filename).name).write_bytes(archive.read(info))
    return calibration_images(folder)


def _halves(photographs: list[Path], room: Path) -> tuple[Path, Path]:
    """Two folders: every second photograph, in an order drawn by the seed."""
    folders = (room / "half-0", room / "half-1")
    order = np.random.default_rng(SEED).permutation(len(photographs))
    for place, j in enumerate(order):
        folders[place % 2].mkdir(exist_ok=True)
        shutil.copy(photographs[j], folders[place % 2] / f"{j:06}{photographs[j].suffix}")
    return folders


def _export(target: str, precision: str, half: Path, out: Path) -> Path:
    calibration = ("--calibration", str(half))
    return export("efficientnet_lite0", target, precision, out, *INPUT, *calibration)


def _by_edgecv(target: str) -> Callable[[Path, Path], Path]:
    return lambda half, out: _export(target, "int8", half, out)


def _by_library(library: Library, fp32: Path) -> Callable[[Path, Path], Path]:
    def make(half: Path, out: Path) -> Path:
        images = [decode(p, 3) for p in calibration_images(half)]
        return library.make(fp32, images, out)

    return make


def _both(halves: tuple[Path, Path], out: Path, make: Callable[[Path, Path], Path]) -> list[Path]:
    """The bundles calibrated on the first and on the second half."""
    return [make(half, out / str(i)) for i, half in enumerate(halves)]


def _row(
    name: str,
    made_by: str,
    precision: str,
    paths: list[Path],
    judge: list[list[Path]],
    reference: list[Judged],
) -> dict[str, Any]:
    """What a pair of bundles (one for each split) says of the photographs it did not see."""
    seen = [Judged(path, photographs) for path, photographs in zip(paths, judge, strict=True)]
    splits, missed = [], []
    for a, b in zip(reference, seen, strict=True):
        same, sure = a.best == b.best, a.scores > SURE
        splits.append({"all": _agreement(same), "sure": _agreement(same[sure])})
        missed += [_miss(a, i) for i in np.flatnonzero(sure & ~same)]
    total = {key: _pooled([s[key] for s in splits]) for key in ("all", "sure")}
    logits = [np.concatenate([s.logits for s in side]) for side in (reference, seen)]
    manifest = open_bundle(paths[0]).manifest
    return {
        "name": name, "made_by": made_by, "precision": precision, "path": str(paths[0]),
        **total, "halves": splits, "sure_missed": missed,
        "sqnr_db": round(compare(*logits).sqnr_db, 2),
        "executed": manifest["executed"],
        "bundle_bytes": paths[0].stat().st_size, "engine_bytes": manifest["size_bytes"],
    }  # fmt: skip


def _agreement(same: np.ndarray) -> dict[str, Any]:
    return _share(int(same.sum()), len(same))


def _pooled(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return _share(sum(p["agree"] for p in parts), sum(p["count"] for p in parts))


def _share(agree: int, count: int) -> dict[str, Any]:
    return {"agree": agree, "count": count, "agreement": agree / max(1, count)}


def _miss(reference: Judged, i: int) -> dict[str, float]:
    """How sure fp32 was of a photograph: its confidence, and by how much the best logit led."""
    second, best = np.sort(reference.logits[i])[-2:]
    return {
        "confidence": round(float(reference.scores[i]), 3),
        "margin": round(float(best - second), 3),
    }


def _operators(bundle: Path) -> dict[str, int]:
    (path,) = bundle.parent.glob("*.tflite")
    return flatbuffer.op_counts(flatbuffer.read(path))


def _digest(photographs: list[Path]) -> str:
    return hashlib.sha256(b"".join(p.read_bytes() for p in photographs)).hexdigest()


def _markdown(data: dict[str, Any]) -> list[str]:
    head = ["", "sure: agree", "by half", "all: agree", "SQNR dB", "times faster", "95%",
            "in CPU time", "p50 ms", "engine MB", "layers"]  # fmt: skip
    lines = []
    for r in data["results"]:
        by = "" if r["made_by"] == "edgecv" else " *"
        precision = "" if "fp32" in r["name"] else " int8"
        low, high = (1 / v for v in reversed(r["latency_ratio_interval"]))
        layers = ", ".join(f"{n} {p}" for p, n in sorted(r["executed"].items()))
        lines.append([
            f"{r['name']}{precision}{by}", _text(r["sure"]), _halves_text(r), _text(r["all"]),
            f"{r['sqnr_db']:.1f}" if r["sqnr_db"] < 200 else "same",
            f"{r['faster']:.2f}", f"{low:.2f}-{high:.2f}", f"{r['faster_cpu_time']:.2f}",
            f"{r['latency_ms']['p50']:.2f}", f"{r['engine_bytes'] / 1e6:.1f}", layers,
        ])  # fmt: skip
    met, photographs = data["met"], data["photographs"]
    ours = [r for r in data["results"] if r["made_by"] == "edgecv"]
    least = min(h["sure"]["agreement"] for r in ours for h in r["halves"])
    leads = ", ".join(sorted({f"{m['margin']:.2f}" for r in ours for m in r["sure_missed"]}))
    ops = ", ".join(f"{k} x{v}" for k, v in data["tflite_operators"].items())
    return [
        "# EfficientNet-Lite0, 224x224, batch 1",
        "",
        *table(head, lines),
        "",
        "\\* the library's own quantizer, beside edgecv's on the same photographs.",
        "",
        f"{photographs['count']} photographs; fp32 on ONNX Runtime is sure (softmax above "
        f"{SURE}) of {photographs['sure']}. Each photograph is judged by a network that was "
        "calibrated on the other half. SQNR is of the logits against fp32 on ONNX Runtime.",
        "",
        f"Times: one run, all bundles interleaved, {data['timing']['rounds']} rounds; the ratio "
        "is to fp32 on ONNX Runtime in the same round (median, with its 95% interval).",
        "",
        f"- At least {AGREE:.0%} agreement on sure photographs: {verdict(met['agreement'])}",
        f"- The same in each half by itself (the least: {least:.1%}): "
        f"{verdict(met['agreement_in_each_half'])}. Where int8 differs, fp32's best logit led by "
        f"{leads}",
        f"- At least {FASTER} times faster on every engine: {verdict(met['speed'])}",
        f"- Every compute layer in int8, read back from the engine: "
        f"{verdict(met['all_layers_int8'])}",
        f"- Operators of the .tflite ({ops}): {verdict(met['operators'])}",
    ]


def _text(part: dict[str, Any]) -> str:
    return f"{part['agree']}/{part['count']} ({part['agreement']:.1%})"


def _halves_text(row: dict[str, Any]) -> str:
    return ", ".join(f"{h['sure']['agree']}/{h['sure']['count']}" for h in row["halves"])


if __name__ == "__main__":
    raise SystemExit(main())
