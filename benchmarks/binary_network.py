"""A whole network of one bit: ResNet-18 at 224x224 beside its float and its int8 twin.

    python benchmarks/binary_network.py --work DIR [--forms react xnor] [--budget 120s]

The zoo's ResNet-18 (10 classes, random weights: time does not depend on them), and it with one-bit
layers by `binarize`'s own edit: 16 of 21, the first, the last and the projections stay float or
become int8. All are bundles made by the product and run by `edgecv bench` in one interleaved run
through `open_bundle`, on ONNX Runtime and OpenVINO (which counts bits by its own kernels). What ran
as xnor is counted from the executed graph. Writes benchmarks/results/binary_network.{json,md}.

Wanted: 5 times as fast as the float twin and 1.6 times as fast as the int8 one (asked of a
processor with VPOPCNTDQ), each on the engine that runs it fastest.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
import yaml

from edgecv.benchmark.machine import load_average
from edgecv.binary import library
from edgecv.methods.binary.replacing import binarize
from edgecv.methods.binary.selection import choose
from edgecv.models import zoo
from edgecv.models.model import Model
from edgecv.plan import pipeline, recipe
from edgecv.runtime.archive import read_bundle

SIDE, CLASSES = 224, 10
WANTED = {"fp32": 5.0, "int8": 1.6}
ANYTHING = {"min_sqnr_db": -100.0, "min_agreement": 0.0}  # random weights: no answer means much


def images(work: Path) -> Path:
    """Smooth noise as images, for calibration and for what bundles carry."""
    path = work / "images.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (40, 7, 7, 3)).astype(np.uint8)
        pictures = coarse.repeat(SIDE // 7, 1).repeat(SIDE // 7, 2)
        labels = np.arange(40) % CLASSES
        np.savez(path, x_train=pictures, y_train=labels, x_test=pictures, y_test=labels)
    return path


def networks(work: Path, forms: list[str]) -> dict[str, Path]:
    """Model folders: the float network, and one for each form of one-bit layers."""
    torch.manual_seed(0)
    args = {"classes": CLASSES}
    found = {"float": work / "model-float"}
    module = zoo.build("resnet18", **args).eval()
    for part in module.modules():  # as training leaves them: not all alike
        if isinstance(part, torch.nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_(0, 0.2)
    model = Model("zoo:resnet18", args)
    model.save(found["float"], module)
    for form in forms:
        _, module = Model.load(found["float"])
        layers, _ = choose(module, torch.zeros(1, 3, SIDE, SIDE), form, None)
        edit = {"op": "binarize", "step": form, "form": form, "weights": "binary",
                "real_inputs": False, "estimator": "polynomial", "layers": layers}  # fmt: skip
        binarize(module, edit)
        found[form] = work / f"model-{form}"
        model.with_edit(edit).save(found[form], module.eval())
    return found


def bundles(work: Path, name: str, folder: Path, targets: list[str]) -> dict[str, Path]:
    """ "fp32 cpu" -> the bundle of a network, as it is and in int8."""
    data = f"npz:{images(work).resolve()}"
    content = {
        "model": {"folder": str(folder.resolve())}, "targets": targets,
        "data": {"train": data, "test": data, "size": SIDE, "crop_pct": 1.0},
        "stages": [{"export": {"name": "fp32", "ship": True}},
                   {"quantize": {"name": "int8", "from": "model", "samples": 16, **ANYTHING}}],
    }  # fmt: skip
    path = work / f"{name}.yaml"
    path.write_text(f"# {name}\n{yaml.safe_dump(content, sort_keys=False)}")
    outcome = pipeline.run(recipe.load(path), work / name, pipeline.Silent(), compare=False)
    if outcome.failures:
        raise SystemExit("\n".join(f"{k}: {e}" for k, e in outcome.failures.items()))
    found = {}
    for node, made in outcome.folders.items():
        if node.startswith("bundle:"):
            step, _, on = node.removeprefix("bundle:").partition("@")
            (bundle,) = made.glob("*.edgecv")
            target = work / f"{name}.{step}.{on}.edgecv"
            target.write_bytes(bundle.read_bytes())
            found[f"{step} {on}"] = target
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, reused")
    parser.add_argument("--forms", nargs="+", default=["react", "xnor"])
    parser.add_argument("--budget", default="180s")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    before = load_average()
    made: dict[str, Path] = {}
    for name, folder in networks(options.work, options.forms).items():
        for which, bundle in bundles(options.work, name, folder, ["cpu", "openvino"]).items():
            made[f"{name} {which}"] = bundle
    said = json.loads(record.edgecv(
        "bench", "--json", "--budget", options.budget, *map(str, made.values())
    ))  # fmt: skip
    rows = []
    for (name, bundle), found in zip(made.items(), said["bundles"], strict=True):
        executed = read_bundle(bundle).manifest["executed"]
        one_bit = not name.startswith("float")
        if one_bit and not executed.get("binary"):
            raise SystemExit(f"{name}: no layer ran as xnor and popcount: {executed}")
        rows.append({"name": name, "executed": executed, **found})
    lines, good = page(rows)
    data = {"circumstances": record.circumstances(1, 0, before), "kernels": library.sets(),
            "rows": rows}  # fmt: skip
    record.write("binary_network", options.out, data, lines)
    raise SystemExit(0 if good else 1)


def page(rows: list[dict[str, Any]]) -> tuple[list[str], bool]:
    cpu = {r["name"]: r["cpu_time_ratio"] for r in rows}
    best = {
        p: min((n for n in cpu if n.startswith(f"float {p}")), key=cpu.__getitem__) for p in WANTED
    }
    head = ["network", "engine", "ran", "CPU ms", "× float twin", "× int8 twin", "KB"]
    lines, fastest = [], dict.fromkeys(WANTED, 0.0)
    for row in rows:
        network, precision, engine = row["name"].split()
        times = {p: cpu[name] / cpu[row["name"]] for p, name in best.items()}
        if network != "float":
            fastest = {p: max(fastest[p], times[p]) for p in WANTED}
        ran = ", ".join(f"{n} {p}" for p, n in sorted(row["executed"].items()))
        lines.append([
            "float twin" if row["name"] == best["fp32"] else f"{network}, {precision} ends"
            if network != "float" else f"{network} network, {precision}", engine, ran,
            f"{row['cpu_ms']:.2f}", f"{times['fp32']:.2f}", f"{times['int8']:.2f}",
            f"{row['size_bytes'] / 1e3:.0f}",
        ])  # fmt: skip
    good = all(fastest[p] >= WANTED[p] for p in WANTED)
    return [
        "# A whole network of one bit",
        "",
        "ResNet-18, 224x224, batch 1, one thread, through `open_bundle`; process CPU time, ratios "
        f"of one interleaved run (more is faster). Kernels: {', '.join(library.sets())}. The twins "
        f"are the fastest of their kind here: {best['fp32']} and {best['int8']}.",
        "",
        *record.table(head, lines),
        "",
        f"Fastest: {fastest['fp32']:.2f} times the float twin (wanted {WANTED['fp32']:g}) and "
        f"{fastest['int8']:.2f} times the int8 twin (wanted {WANTED['int8']:g}; both asked of a "
        f"processor with VPOPCNTDQ): {record.verdict(good)}.",
    ], good


if __name__ == "__main__":
    main()
