"""Networks of different kinds in int8 by the product's defaults, on every engine, beside fp32.

    python benchmarks/int8_networks.py PHOTOS --work DIR [--unet MODEL --camvid DIR] [--only NAMES]

- EfficientNet-Lite0, pretrained, on photographs without labels: one half calibrates, the other
  judges. The drop is what fp32's own probabilities expect (`edgecv.limits.expected_drop`).
- A MobileNetV3 (HardSwish, gates) and a ConvNeXt (depthwise 7x7, LayerNorm, GELU; `int8_nets.py`),
  trained here on `fashion-mnist-sample`: top-1 of its 3,000 test images.
- The U-Net that `compressed_tasks.py segmentation` leaves in models/dense, on CamVid: mIoU of the
  101 pictures of val, calibrated on its training pictures.

Everything is `edgecv export`, and a bundle is judged through its own engine; the Edge TPU's file,
which only the device runs once it is compiled, on LiteRT. Intervals are 90%, by the paired
bootstrap over images. What --work holds is used again, and the page is of all that it knows.

Exit code 1 where int8 is further below fp32 of the same engine than is promised: 0.3 point of
EfficientNet-Lite0, 0.5 of the others. What a target has no operator of is refused, and said below.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import record
import yaml
from photographs import Judged, halves, unpack

from edgecv import tasks
from edgecv.data.files import calibration_images
from edgecv.limits import expected_drop
from edgecv.runtime.archive import Contents, read_bundle

ENGINES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO", "tflite": "LiteRT",
           "edgetpu": "Edge TPU's file", "c": "C"}  # fmt: skip
SEED, ALPHA, DRAWN = 0, 0.05, 2000
HERE = Path(__file__).parent
FASHION_SOURCE = "fashion-mnist-sample"
FASHION = {"train": FASHION_SOURCE, "test": FASHION_SOURCE, "size": 28, "crop_pct": 1.0,
           "mean": [0.286], "std": [0.353]}  # fmt: skip
SMALL = ("--input-size", "28", "--channels", "1", "--color", "grey", "--crop-pct", "1",
         "--mean", "0.286", "--std", "0.353")  # fmt: skip
LITE0 = ("--arg", "pretrained=true", "--input-size", "224", "--mean", "127", "--std", "128")
# name -> what a recipe builds, and how it is trained
TRAINED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "MobileNetV3": ({"zoo": "mobilenet_v3_small", "width": 0.5, "stride": 16},
                    {"epochs": 8, "lr": 0.005, "shift": 1}),
    "ConvNeXt": ({"module": "int8_nets:convnext", "width": 24},
                 {"epochs": 12, "lr": 0.003, "shift": 1}),
}  # fmt: skip
NAMES = ("EfficientNet-Lite0", *TRAINED, "U-Net")


@dataclass(frozen=True)
class Case:
    """A network with what `edgecv export` is told of it.

    points: of the metric that int8 may lose. evaluate: "" where nobody knows what is right
    reads: how a file of it is fed, for the Edge TPU's that is judged on LiteRT
    """

    name: str
    model: str
    options: tuple[str, ...]
    reads: tuple[str, ...]
    calibration: Path
    evaluate: str
    points: float
    targets: Sequence[str] = tuple(ENGINES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder or a .zip of photographs")
    parser.add_argument("--work", type=Path, required=True, help="what is made here is kept here")
    parser.add_argument("--unet", type=Path, help="Model folder of a U-Net trained on CamVid")
    parser.add_argument("--camvid", type=Path, help="CamVid: train/ and val/, images and masks")
    parser.add_argument("--only", default="", help="networks whose name holds one of these, by ;")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = str(HERE)  # where int8_nets lies
    os.environ["EDGECV_TRUST_SOURCE"] = "1"  # bundles of C, made here
    load = record.load_average()
    unseen = halves(unpack(options.photographs, options.work / "photographs"), options.work, SEED)
    wanted = [w for w in options.only.split(";") if w]
    for name in NAMES:
        chosen = not wanted or any(w in name for w in wanted)
        if chosen and (case := case_of(name, options, unseen[0])):
            found = list(judged(case, options.work, calibration_images(unseen[1])))
            _kept(options.work, name).write_text(json.dumps(found))
    known = [path for name in NAMES if (path := _kept(options.work, name)).is_file()]
    rows = [row for path in known for row in json.loads(path.read_text())]
    data = {"circumstances": record.circumstances(1, SEED, load), "rows": rows}
    record.write("int8_networks", options.out, data, page(rows))
    return 0 if all(r["met"] is not False for r in rows) else 1


def _kept(work: Path, name: str) -> Path:
    """What was measured of a network: the page is of all that --work knows."""
    return work / f"{name}-rows.json"


def case_of(name: str, options: argparse.Namespace, photographs: Path) -> Case | None:
    """None where what it takes was not given."""
    if name in TRAINED:
        model, shown = trained(name, options.work), fashion(options.work)
        return Case(name, str(model), (*SMALL, "--trust"), SMALL, shown, FASHION_SOURCE, 0.5)
    if name == "U-Net":
        if not (options.unet and options.camvid):
            return None
        reads = ("--input-size", "176x240", "--resize", "stretch", "--task", "segmentation")
        shown, source = options.camvid / "train" / "images", f"masks:{options.camvid}"
        few = ("cpu", "openvino", "tflite")
        return Case(name, str(options.unet), (), reads, shown, source, 0.5, few)
    return Case(name, "efficientnet_lite0", LITE0, LITE0[2:], photographs, "", 0.3)


def trained(name: str, work: Path) -> Path:
    """The network's Model folder."""
    made = work / name / "models" / "dense"
    if (made / "model.json").is_file():
        return made
    model, training = TRAINED[name]
    recipe = {"model": model, "data": FASHION, "seed": SEED, "targets": ["cpu"],
              "stages": [{"train": {"name": "dense", "ship": True, **training}}]}  # fmt: skip
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    record.edgecv("run", str(path), "--out", str(work / name))
    return made


def fashion(work: Path) -> Path:
    """Its training images as one array, which `--calibration` takes."""
    from edgecv.data.fashion_mnist import SAMPLE

    path = work / "fashion.npy"
    if not path.is_file():
        np.save(path, np.load(SAMPLE / "train.npz")["images"])
    return path


# --- one network


def judged(case: Case, work: Path, photographs: list[Path]) -> Iterator[dict[str, Any]]:
    """A row for every engine; where it got no bundle, why."""
    fp32 = bundles(case, "fp32", [t for t in case.targets if t != "edgetpu"], work)
    int8 = bundles(case, "int8", case.targets, work)
    if "edgetpu" in int8:
        fp32["edgetpu"] = fp32["tflite"]
    for target in case.targets:
        row: dict[str, Any] = {"network": case.name, "engine": ENGINES[target]}
        row["points"] = case.points
        for held in (fp32, int8):
            if isinstance(held[target], str):
                row |= {"refused": held[target], "met": None}
        if "refused" in row:
            yield row
            continue
        before, after = Path(fp32[target]), Path(int8[target])
        ran = on_litert(case, after, work) if target == "edgetpu" else after
        compared = by_labels if case.evaluate else by_probabilities
        row |= {**compared(before, ran, photographs), **made(after)}
        yield row | {"met": row["drop"] <= case.points}


def bundles(
    case: Case, precision: str, targets: Sequence[str], work: Path
) -> dict[str, Path | str]:
    """The bundle of each target, or why there is none; made by one command."""
    out = work / f"{case.name}-{precision}"
    told = out / "told.json"
    if not told.is_file():
        print(f"export {case.name} {precision} for {', '.join(targets)}", flush=True)
        more = ["--evaluate", case.evaluate] if case.evaluate else []
        said = record.edgecv(
            "export", case.model, "--target", ",".join(targets), "--precision", precision,
            "--calibration", str(case.calibration), "--out", str(out), "--json", *case.options,
            *more, ends=(0, 1, 2),
        )  # fmt: skip
        told.write_text(said)
    found = json.loads(told.read_text())["targets"]
    return {one["target"]: one.get("error") or Path(one["bundle"]) for one in found}


def on_litert(case: Case, made: Path, work: Path) -> Path:
    """The Edge TPU's own file, as LiteRT runs it."""
    out = work / f"{case.name}-edgetpu-on-litert"
    if found := list(out.glob("*.edgecv")):
        return found[0]
    file = made.with_suffix(".tflite")
    told = (*case.reads, *(("--evaluate", case.evaluate) if case.evaluate else ()))
    if names := read_bundle(made).manifest["labels"]:
        path = work / f"{case.name}.txt"
        path.write_text("\n".join(names))
        told += ("--labels", str(path))
    return record.export(str(file), "tflite", "int8", out, *told)


def by_labels(before: Path, after: Path, _: list[Path]) -> dict[str, Any]:
    a, b = read_bundle(before), read_bundle(after)
    task = tasks.of_manifest(a.manifest)
    assert task is not None
    found = task.difference(_parts(a), _parts(b), ALPHA)
    return {
        "metric": task.points, "fp32": 100 * a.manifest["metric"]["value"],
        "int8": 100 * b.manifest["metric"]["value"], "drop": 100 * found.drop,
        "interval": [100 * v for v in found.bounds], "images": a.manifest["metric"]["samples"],
    }  # fmt: skip


def _parts(contents: Contents) -> dict[str, Any]:
    if contents.parts:
        return contents.parts
    assert contents.correct is not None
    return {"correct": contents.correct}


def by_probabilities(before: Path, after: Path, photographs: list[Path]) -> dict[str, Any]:
    """fp32 has no points of its own there: what int8 agrees on stands beside the drop."""
    a, b = Judged(before, photographs), Judged(after, photographs)
    each = [expected_drop(own[None], row[None]) for own, row in zip(b.best, a.logits, strict=True)]
    drawn = np.random.default_rng(SEED).integers(len(each), size=(DRAWN, len(each)))
    low, high = np.quantile(np.array(each)[drawn].mean(1), (ALPHA, 1 - ALPHA))
    return {
        "metric": "expected top-1", "fp32": None, "int8": None, "drop": float(np.mean(each)),
        "agreement": float((a.best == b.best).mean()), "interval": [float(low), float(high)],
        "images": len(each),
    }  # fmt: skip


def made(path: Path) -> dict[str, Any]:
    """What runs in which precision, and what was said of it."""
    manifest = read_bundle(path).manifest
    return {"executed": manifest.get("executed"), "notes": manifest.get("notes", [])}


def page(rows: list[dict[str, Any]]) -> list[str]:
    head = ["network", "engine", "metric", "fp32", "int8", "lost", "90%", "images", "layers", ""]
    lines = []
    for r in rows:
        if "refused" in r:
            lines.append([r["network"], r["engine"], *[""] * 7, "refused"])
            continue
        said = f"agrees {100 * r['agreement']:.1f}" if r["int8"] is None else f"{r['int8']:.2f}"
        layers = ", ".join(f"{n} {p}" for p, n in sorted((r["executed"] or {}).items()))
        lines.append([
            r["network"], r["engine"], r["metric"],
            "" if r["fp32"] is None else f"{r['fp32']:.2f}", said, f"{r['drop']:+.2f}",
            "{:+.2f} to {:+.2f}".format(*r["interval"]), r["images"], layers,
            record.verdict(r["met"]),
        ])  # fmt: skip
    told = "\n\n".join((__doc__ or "").split("\n\n")[2:5])
    notes = dict.fromkeys(
        f"- {r['network']}, {r['engine']}: {n}"
        for r in rows
        for n in r.get("notes", [r.get("refused")])
    )
    title = "# Networks of different kinds in int8, by the defaults"
    return [title, "", *record.table(head, lines), "", told.strip(), "", *notes]


if __name__ == "__main__":
    raise SystemExit(main())
