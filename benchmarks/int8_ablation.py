"""Why a detector loses its mAP in int8, by `edgecv why`: mechanism, tensors, what each costs.

    python benchmarks/int8_ablation.py FILE --set DIR --work DIR [--only ort-minmax]

FILE: an .onnx detector with a name of `detection_map.PREPARED`. DIR of --set: a YOLO folder, whose
pictures of even place calibrate and those of odd place judge. The file is quantized as ONNX
Runtime's own quantizer leaves it (u8s8, per channel; min-max and percentile), and `edgecv why`
compares that with edgecv's fp32 export. Writes results/int8_ablation.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
from detection_map import PREPARED
from int8_detectors import EVEN, ODD, halves
from int8_rivals import RIVALS

from edgecv.benchmark.machine import load_average
from edgecv.diagnosis.why.rounding.report import images_of
from edgecv.diagnosis.why.rounding.words import CALLED, told
from edgecv.runtime.archive import read_bundle
from edgecv.samples import Feeds

WAYS = ("ort-minmax", "ort-percentile")


def fp32(file: Path, work: Path) -> Path:
    """The float bundle, made once."""
    out = work / "fp32"
    found = next(iter(out.glob("*.edgecv")), None)
    options = ("--task", "detection", "--interpolation", "bilinear", *PREPARED[file.stem])
    return found or record.export(str(file), "cpu", "fp32", out, *options)


def quantized(file: Path, bundle: Path, work: Path, way: str) -> Path:
    """The file as a quantizer leaves it, made once."""
    out = work / f"{way}.onnx"
    if out.is_file():
        return out
    contents = read_bundle(bundle)
    with tempfile.TemporaryDirectory() as room:
        images = images_of(contents, f"yolo:{work / EVEN}", Path(room), 1_000_000)
        feeds = Feeds(images.samples, contents.inputs, contents.preprocess)
        samples = [next(iter(feed.values())) for feed in feeds]
    name = contents.inputs[0].name
    rival = RIVALS[way]
    (content,) = rival.make({file.name: file.read_bytes()}, samples, name, _unasked).values()
    out.write_bytes(content)
    return out


def _unasked(*_: Any) -> float:
    raise AssertionError("no quantizer here asks for the metric")


def page(found: dict[str, Any], file: str) -> list[str]:
    lines = [
        f"# Why {file} loses its mAP in int8",
        "",
        "What `edgecv why QUANTIZED --against FP32 --evaluate SET` says "
        "(`benchmarks/int8_ablation.py`), of the file as ONNX Runtime's quantizer leaves it (u8s8, "
        "weights per channel). Pictures of even place calibrated, those of odd place judge. Only "
        "these: everything else is float; all but these: everything else is int8.",
    ]
    for way, data in found.items():
        real = data["float"]["points"]
        rows = [("float", "", f"{real:.1f}", "")]
        rows.append(("weights", data["weights"]["layers"], f"{data['weights']['points']:.1f}", ""))
        rows += [
            (CALLED[g["kind"]] + (", guilty" if g["guilty"] else ""), g["count"],
             f"{g['alone']['points']:.1f}", f"{g['without']['points']:.1f}")
            for g in data["groups"]
        ]  # fmt: skip
        rows.append(("all", "", f"{data['all']['points']:.1f}", ""))
        head = ("in int8", "tensors", "mAP, only these", "mAP, all but these")
        lines += ["", f"## {RIVALS[way].label}", "", *record.table(head, rows)]
        for group in (g for g in data["groups"] if g["guilty"]):
            worst = told(data, group)
            lines += ["", f"{CALLED[group['kind']].capitalize()}:", ""]
            lines += [f"- {w['what']}: alone {w['points']:.1f} mAP" for w in worst]
            lines += [] if worst else ["- no tensor alone costs a point"]
            lines += [f"- change: {group['change']}"]
        lines += ["", *(f"Note: {note}." for note in data["notes"])]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=WAYS)
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    load = load_average()
    options.work.mkdir(parents=True, exist_ok=True)
    halves(options.set, options.work)
    bundle = fp32(options.file, options.work)
    found = {}
    for way in [options.only] if options.only else WAYS:
        kept = options.work / f"{way}.json"
        if not kept.is_file():
            print(way, file=sys.stderr, flush=True)
            made = quantized(options.file, bundle, options.work, way)
            kept.write_text(record.edgecv(
                "why", str(made), "--against", str(bundle), "--evaluate",
                f"yolo:{options.work / ODD}", "--json",
            ))  # fmt: skip
        found[way] = json.loads(kept.read_text())["rounding"] | {"source": f"yolo:{ODD}"}
    facts = record.circumstances(threads=1, seed=0, load_before=load)
    data = {"file": options.file.name, "ways": found, "circumstances": facts}
    record.write("int8_ablation", options.out, data, page(found, options.file.name))


if __name__ == "__main__":
    main()
