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
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from library_defaults import LIBRARIES, Library
from photographs import SURE, Judged, described, halves, judge, share, unpack
from record import RESULTS, circumstances, export, load_average, table, verdict, write

from edgecv.benchmark.measure import Plan, measure
from edgecv.data.decode import decode
from edgecv.data.files import calibration_images
from edgecv.graphs.tflite import flatbuffer

ENGINES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO", "tflite": "LiteRT"}
INPUT = ("--arg", "pretrained=true", "--input-size", "224", "--mean", "127", "--std", "128")
AGREE, FASTER = 0.98, 1.8
OPS = {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "AVERAGE_POOL_2D", "FULLY_CONNECTED"}
SEED, ROUNDS, BURST_MS = 0, 60, 40.0
PLAN = Plan(rounds=ROUNDS, budget_s=1.0, burst_ms=BURST_MS, seed=SEED)  # ROUNDS and no more


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder or a .zip of photographs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        return run(options.photographs, options.out, Path(room))


def run(source: Path, out: Path, room: Path) -> int:
    load = load_average()
    photographs = unpack(source, room / "photographs")
    split = halves(photographs, room, SEED)
    fp32 = {t: _export(t, "fp32", split[0], room / f"fp32-{t}") for t in ENGINES}
    int8 = {t: _both(split, room / f"int8-{t}", _by_edgecv(t)) for t in ENGINES}
    theirs = {
        name: _both(split, room / f"library-{i}", _by_library(library, fp32[library.target]))
        for i, (name, library) in enumerate(LIBRARIES.items())
    }

    others = [calibration_images(split[1]), calibration_images(split[0])]
    reference = [Judged(fp32["cpu"], p) for p in others]
    rows = [
        _row(f"{ENGINES[t]} fp32", "edgecv", "fp32", [path, path], others, reference)
        for t, path in fp32.items()
    ]
    rows += [
        _row(ENGINES[t], "edgecv", "int8", paths, others, reference) for t, paths in int8.items()
    ]
    rows += [
        _row(name, "library", "int8", paths, others, reference) for name, paths in theirs.items()
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
        "photographs": described(photographs, reference),
        "timing": {"rounds": ROUNDS, "burst_ms": BURST_MS, "reference": rows[0]["name"]},
        "required": {"sure_agreement": AGREE, "faster": FASTER, "operators": sorted(OPS)},
        "met": met,
        "tflite_operators": operators,
        "results": rows,
    }
    write("efficientnet_lite0", out, data, _markdown(data))
    return 0 if all(met.values()) else 1


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
    photographs: list[list[Path]],
    reference: list[Judged],
) -> dict[str, Any]:
    found = judge(paths, photographs, reference)
    return {"name": name, "made_by": made_by, "precision": precision, **found}


def _operators(bundle: Path) -> dict[str, int]:
    (path,) = bundle.parent.glob("*.tflite")
    return flatbuffer.op_counts(flatbuffer.read(path))


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
            f"{r['name']}{precision}{by}", share(r["sure"]), _halves_text(r), share(r["all"]),
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


def _halves_text(row: dict[str, Any]) -> str:
    return ", ".join(f"{h['sure']['agree']}/{h['sure']['count']}" for h in row["halves"])


if __name__ == "__main__":
    raise SystemExit(main())
