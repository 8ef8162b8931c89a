"""Every way of post-training quantization that edgecv has, on EfficientNet-Lite0, three engines.

    python benchmarks/ptq_methods.py PHOTOS_DIR_OR_ZIP [--work DIR] [--only NAMES] [--out RESULTS]

Needs the extras [all,zoo]. Photographs, halves and agreement as in efficientnet_lite0.py; beside
them stand the engines' own quantizers, at their defaults and at what served them best. All bundles
are timed in one run, interleaved. --work keeps the bundles, and what they said of the photographs:
run again with the same DIR, they are only timed.

Exit code 1 when a requirement is missed: 4-bit weights per channel agree with fp32 on at least 80%
of the photographs of which fp32 is sure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from library_defaults import LIBRARIES, TUNED, Library, pack
from photographs import Judged, described, halves, judge, share, unpack
from record import RESULTS, circumstances, export, load_average, table, verdict, write

from edgecv import target as targets
from edgecv.backends import compile_module
from edgecv.benchmark.measure import Plan, measure
from edgecv.data.decode import decode
from edgecv.data.files import calibration_images
from edgecv.graph import Graph
from edgecv.methods.quantize._tflite_measured import measure_tflite
from edgecv.methods.quantize.onnx_measured import measure_onnx
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from edgecv.runtime.archive import Contents, read_bundle

ENGINES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO", "tflite": "LiteRT"}
INPUT = ("--arg", "pretrained=true", "--input-size", "224", "--mean", "127", "--std", "128")
PLAIN = Options(calibration="minmax", rounding="nearest", bias_correction=False)
METHODS = {
    "min-max, nearest, no bias correction": PLAIN,
    "min-max": Options(calibration="minmax"),
    "percentile": Options(calibration="percentile"),
    "entropy": Options(calibration="entropy"),
    "nearest": Options(rounding="nearest"),
    "no bias correction": Options(bias_correction=False),
    "default (mse, gptq, bias correction)": Options(),
    "descent": Options(rounding="descent"),
    "adaround": Options(rounding="adaround"),
    "equalization": Options(equalization=True),
    "reconstruction": Options(reconstruction="network"),
    "equalization, descent, reconstruction": Options(
        rounding="descent", equalization=True, reconstruction="network"
    ),
    "W4 nearest": Options(rounding="nearest", weight_bits=4),
    "W4 gptq": Options(weight_bits=4),
    "W4 descent": Options(rounding="descent", weight_bits=4),
    "W4 adaround": Options(rounding="adaround", weight_bits=4),
    "W4 adaround, reconstruction": Options(
        rounding="adaround", weight_bits=4, reconstruction="network"
    ),
}
FEW_ON = "cpu"  # the rows of 4 bits; every engine keeps them in int8
FOUR_BITS = 0.8
SEED, ROUNDS, BURST_MS = 0, 60, 40.0
PLAN = Plan(rounds=ROUNDS, budget_s=1.0, burst_ms=BURST_MS, seed=SEED)
SHARED = {"cpu": ("cpu", "openvino"), "tflite": ("tflite",)}  # targets of one grid: one graph


@dataclass
class Room:
    """Where the bundles are kept, the two halves, and the fp32 bundles by target."""

    folder: Path
    split: tuple[Path, Path]
    fp32: dict[str, Path]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder or a .zip of photographs")
    parser.add_argument("--work", type=Path, help="keep the bundles here, and use those there are")
    parser.add_argument("--only", default="", help="methods whose name holds one of these, by ';'")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    wanted = [w for w in options.only.split(";") if w]
    chosen = {n: o for n, o in METHODS.items() if not wanted or any(w in n for w in wanted)}
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
        return run(options.photographs, options.out, options.work, chosen)
    with tempfile.TemporaryDirectory() as room:
        return run(options.photographs, options.out, Path(room), chosen)


def run(source: Path, out: Path, folder: Path, methods: dict[str, Options]) -> int:
    load = load_average()
    photographs = unpack(source, folder / "photographs")
    split = halves(photographs, folder, SEED)
    room = Room(folder, split, {t: _fp32(t, split[0], folder) for t in ENGINES})
    others = [calibration_images(split[1]), calibration_images(split[0])]
    reference = [Judged(room.fp32["cpu"], p) for p in others]
    rows = [
        _row(room, f"fp32 {t}", _about("fp32", t), [path] * 2, others, reference)
        for t, path in room.fp32.items()
    ]
    for kind, same in SHARED.items():
        paths = _make(room, kind, same, methods)
        rows += [
            _row(room, f"{method} {t}", _about(method, t), both, others, reference)
            for (method, t), both in paths.items()
        ]
    for name, library in {**LIBRARIES, **TUNED}.items():
        about = {**_about(name, library.target), "library": True}
        rows.append(_row(room, name, about, _theirs(room, name, library), others, reference))

    timed = measure([Path(r.pop("path")) for r in rows], PLAN, starts=False)
    for row, times in zip(rows, timed["bundles"], strict=True):
        row |= {k: v for k, v in times.items() if k not in ("bundle", "size_bytes")}
    few = [r for r in rows if r["name"].startswith("W4") and "nearest" not in r["name"]]
    met = {"four_bits": not few or max(r["sure"]["agreement"] for r in few) >= FOUR_BITS}
    data = {
        "schema": 1,
        "circumstances": circumstances(1, SEED, load),
        "photographs": described(photographs, reference),
        "timing": {"rounds": ROUNDS, "burst_ms": BURST_MS, "reference": rows[0]["name"]},
        "options": {name: o.to_json() for name, o in methods.items()},
        "required": {"four_bits_sure_agreement": FOUR_BITS},
        "met": met,
        "results": rows,
    }
    write("ptq_methods", out, data, _markdown(data))
    return 0 if all(met.values()) else 1


def _about(name: str, target: str) -> dict[str, Any]:
    return {"name": name, "engine": ENGINES[target]}


def _fp32(target: str, half: Path, folder: Path) -> Path:
    out = folder / f"fp32-{target}"
    if found := list(out.glob("*.edgecv")):
        return found[0]
    options = (*INPUT, "--calibration", str(half))
    return export("efficientnet_lite0", target, "fp32", out, *options)


def _row(
    room: Room,
    key: str,
    about: dict[str, Any],
    paths: list[Path],
    others: list[list[Path]],
    reference: list[Judged],
) -> dict[str, Any]:
    """What the pair of bundles says of the photographs it did not see, kept beside them."""
    kept = room.folder / "judged" / f"{_slug(key)}.json"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(judge(paths, others, reference)))
    row = {**about, **json.loads(kept.read_text()), "path": str(paths[0])}
    took = paths[0].parent / "seconds.json"
    if took.exists():
        row |= json.loads(took.read_text())
    return row


def _make(
    room: Room, kind: str, same: tuple[str, ...], methods: dict[str, Options]
) -> dict[tuple[str, str], list[Path]]:
    """By method and target, the bundles calibrated on the first and on the second half."""
    made: dict[tuple[str, str], list[Path]] = {}
    for half in range(2):
        graph, samples, first = _float(room, kind, half)
        measured: dict[bool, Any] = {}
        for name, options in methods.items():
            if options.weight_bits == 4 and kind != FEW_ON:
                continue
            outs = {t: room.folder / "bundles" / _slug(f"{name} {t}") / str(half) for t in same}
            outs = {t: out for t, out in outs.items() if options.weight_bits == 8 or t == FEW_ON}
            for t, out in outs.items():
                made.setdefault((name, t), []).append(out / "library.edgecv")
            if all((out / "library.edgecv").exists() for out in outs.values()):
                continue
            even = options.equalization
            if even not in measured:  # not a part of any method's time
                look = measure_onnx if kind == "cpu" else measure_tflite
                measured[even] = look(graph, samples, even)
            _say(f"{name} on {', '.join(outs)}, half {half}")
            start = time.process_time()
            int8 = _quantize(kind, graph, samples, options, measured, room.folder / "graph")
            facts = {
                "cpu_s": round(time.process_time() - start, 1),
                "reconstruction": int8.facts.get("reconstruction"),
            }
            for t, out in outs.items():
                _pack(read_bundle(room.fp32[t]), int8, t, first, out)
                (out / "seconds.json").write_text(json.dumps(facts))
    return made


def _float(room: Room, kind: str, half: int) -> tuple[Graph, np.ndarray, np.ndarray]:
    """The float graph, the calibration samples and one image."""
    contents = read_bundle(room.fp32[kind])
    name, content = next(iter(contents.files.items()))
    folder = room.folder / f"float-{kind}"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    form = "tflite" if kind == "tflite" else "onnx"
    graph = Graph(path, form, "fp32", contents.inputs, contents.outputs)
    images = [decode(p, 3) for p in calibration_images(room.split[half])]
    return graph, np.concatenate([contents.preprocess(i) for i in images]), images[0]


def _quantize(
    kind: str, graph: Graph, samples: np.ndarray, options: Options, measured: Any, out: Path
) -> Graph:
    profile = targets.load(kind)
    if kind == "tflite":
        return quantize_tflite(graph, samples, profile.grid, profile.io, out, options, measured)
    return quantize_onnx(graph, samples, profile.grid, out, options, measured)


def _pack(contents: Contents, graph: Graph, target: str, image: np.ndarray, out: Path) -> None:
    profile = targets.load(target)
    with tempfile.TemporaryDirectory() as place:
        compiled = compile_module(profile.backend).compile(graph, profile, Path(place))
        files = {name: (Path(place) / name).read_bytes() for name in compiled.files}
    pack(contents, files, image, out)


def _theirs(room: Room, name: str, library: Library) -> list[Path]:
    paths = []
    for half in range(2):
        out = room.folder / "libraries" / _slug(name) / str(half)
        if not (out / "library.edgecv").exists():
            _say(f"{name}, half {half}")
            images = [decode(p, 3) for p in calibration_images(room.split[half])]
            library.make(room.fp32[library.target], images, out)
        paths.append(out / "library.edgecv")
    return paths


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _markdown(data: dict[str, Any]) -> list[str]:
    head = ["", "engine", "sure: agree", "all: agree", "SQNR dB", "by half", "time × fp32", "95%",
            "CPU s", "engine MB", "layers"]  # fmt: skip
    lines = []
    for r in data["results"]:
        low, high = r["latency_ratio_interval"]
        same = r["sqnr_db"] >= 200
        lines.append([
            r["name"] + (" *" if r.get("library") else ""), r["engine"],
            share(r["sure"]), share(r["all"]), "same" if same else f"{r['sqnr_db']:.1f}",
            "" if same else ", ".join(f"{v:.1f}" for v in r["sqnr_db_by_half"]),
            f"{r['latency_ratio']:.2f}", f"{low:.2f}-{high:.2f}", r.get("cpu_s", ""),
            f"{r['engine_bytes'] / 1e6:.1f}",
            ", ".join(f"{n} {p}" for p, n in sorted(r["executed"].items())),
        ])  # fmt: skip
    photographs = data["photographs"]
    return [
        "# Post-training quantization of EfficientNet-Lite0, method by method",
        "",
        *table(head, lines),
        "",
        "\\* the library's own quantizer on the same photographs.",
        "",
        f"{photographs['count']} photographs; fp32 on ONNX Runtime is sure (softmax above "
        f"{photographs['sure_above']}) of {photographs['sure']}. Each photograph is judged by a "
        "network that was calibrated on the other half. SQNR is of the logits against fp32 on ONNX "
        "Runtime. Unless its name says otherwise a method has ranges of least squared error, GPTQ "
        "and bias correction; W4 is 4-bit weights per channel, kept in int8, with 8-bit "
        "activations. CPU s: what one quantization took, after the samples were measured.",
        "",
        f"Times: one run, all bundles interleaved, {data['timing']['rounds']} rounds; the ratio is "
        "to fp32 on ONNX Runtime in the same round (median, with its 95% interval).",
        "",
        f"- 4-bit weights agree on at least {FOUR_BITS:.0%} of the sure photographs: "
        f"{verdict(data['met']['four_bits'])}",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
