"""Quantization-aware training on Fashion-MNIST: accuracy by bits, and engines against torch.

    python benchmarks/qat_fashion.py --work DIR [--seeds 0 1] [--nets resnet8 mobilenet_v2_small]

Trains each network in float, then from it: W8A8, W4A8, W4A4 and W2A2 by LSQ, and the same network
calibrated only. Every int8 form is compiled for ONNX Runtime, OpenVINO and LiteRT and answers the
whole test set there; "agrees" is the share of images where the engine's best class is the one of
the fake-quantized torch network that was trained. Writes benchmarks/results/qat_fashion.{json,md}.

The networks, their training and the images are those of `recipes/quickstart.yaml` (12,000 training
and 3,000 test images, carried in this checkout). A finished step is reused when run again.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import record
import yaml

from edgecv.benchmark.machine import load_average
from edgecv.bundling.inference import torch_outputs
from edgecv.data.images import Images
from edgecv.models.model import Model
from edgecv.plan import pipeline, recipe
from edgecv.runtime.preprocess import Preprocess
from edgecv.stages.quantize import Quantize
from edgecv.target import saturates

TARGETS = ("cpu", "openvino", "tflite")
NETS = ("resnet8", "mobilenet_v2_small")
DATA = {
    "train": "fashion-mnist-sample",
    "test": "fashion-mnist-sample",
    "size": 28,
    "crop_pct": 1.0,
    "mean": [0.286],
    "std": [0.353],
}
# name -> weight bits, activation bits, epochs, learning rate
TRAINED = {
    "w8a8": (8, 8, 2, 0.001),
    "w7a8": (7, 8, 2, 0.001),
    "w4a8": (4, 8, 1, 0.01),
    "w4a4": (4, 4, 2, 0.01),
    "w2a2": (2, 2, 2, 0.01),
}
# What each row is to keep of the float network's top-1, in points.
LIMITS = {
    "W8A8 calibrated": 0.1,
    "W8A8 calibrated, tuned as a whole": 0.1,
    "W4A8 calibrated, AdaRound": 0.7,
    "W4A4 LSQ": 1.0,
}
AGREEMENT = 0.995


def stages(epochs: int) -> list[dict[str, Any]]:
    """The recipe's stages: one float network and every quantized form of it."""
    made: list[dict[str, Any]] = [
        {"train": {"name": "dense", "epochs": epochs, "lr": 0.005, "shift": 1}},
        {"quantize": {"name": "ptq8", "from": "dense"}},
        {"quantize": {"name": "ptq8-tuned", "from": "dense", "reconstruction": "network"}},
    ]
    if {"weight_bits", "rounding"} <= set(Quantize.model_fields):
        four = {"weight_bits": 4, "rounding": "adaround", "min_sqnr_db": 0.0, "min_agreement": 0.0}
        made.append({"quantize": {"name": "ptq4", "from": "dense", **four}})
    for name, (weights, activations, count, lr) in TRAINED.items():
        bits = {"weight_bits": weights, "activation_bits": activations}
        made.append(
            {"qat": {"name": name, "from": "dense", "epochs": count, "lr": lr, "shift": 1, **bits}}
        )
        made.append({"quantize": {"name": f"{name}-int8", "from": name}})
    return made


def run(net: str, seed: int, epochs: int, work: Path) -> dict[str, Any]:
    """One network, one seed: top-1 of every form, on torch and on the engines."""
    data = {
        "model": {"zoo": net, "width": 16},
        "data": DATA,
        "seed": seed,
        "stages": stages(epochs),
        "targets": list(TARGETS),
    }
    path = work / f"{net}-{seed}.yaml"
    path.write_text(f"# {net}, seed {seed}\n{yaml.safe_dump(data, sort_keys=False)}")
    outcome = pipeline.run(recipe.load(path), work / f"{net}-{seed}", Told(), compare=False)
    if outcome.failures:
        raise SystemExit("\n".join(f"{k}: {e}" for k, e in outcome.failures.items()))
    folders = outcome.folders
    test = Images.load(folders["data:test"])
    forms: dict[str, Any] = {}
    for name in ("dense", *TRAINED):
        model, module = Model.load(folders[name])
        best = torch_outputs(module, test.pixels, Preprocess.from_json(model.input)).argmax(1)
        forms[name] = {"torch": _top1(best, test), "seconds": outcome.seconds.get(name)}
        forms[name] |= {"facts": model.facts[name]}
        if name == "dense":
            continue
        for word in TARGETS:
            answers = np.load(folders[f"bundle:{name}-int8@{word}"] / "predictions.npy")
            forms[name][word] = {
                "top1": _top1(answers, test), "agreement": float((answers == best).mean())
            }  # fmt: skip
    for name in ("ptq8", "ptq8-tuned", "ptq4"):
        answers = {
            word: np.load(folders[f"bundle:{name}@{word}"] / "predictions.npy")
            for word in TARGETS
            if f"bundle:{name}@{word}" in folders
        }
        if answers:
            forms[name] = {word: {"top1": _top1(a, test)} for word, a in answers.items()}
    return {"net": net, "seed": seed, "epochs": epochs, "forms": forms}


class Told(pipeline.Silent):
    """Says which step is being made."""

    def start(self, node: Any, index: int, total: int) -> None:
        print(f"{index + 1}/{total} {node.id}", flush=True)


def _top1(best: np.ndarray, images: Images) -> float:
    return float((best == images.labels).mean())


def rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each network and form: mean over seeds, change to float in points, worst agreement."""
    names = {
        "dense": "float", "ptq8": "W8A8 calibrated",
        "ptq8-tuned": "W8A8 calibrated, tuned as a whole", "ptq4": "W4A8 calibrated, AdaRound",
        "w8a8": "W8A8 LSQ",
        "w7a8": "W7A8 LSQ", "w4a8": "W4A8 LSQ", "w4a4": "W4A4 LSQ", "w2a2": "W2A2 LSQ",
    }  # fmt: skip
    made = []
    for net in dict.fromkeys(r["net"] for r in runs):
        own = [r["forms"] for r in runs if r["net"] == net]
        for key, name in names.items():
            if key not in own[0]:
                continue
            row: dict[str, Any] = {"net": net, "form": name, "seeds": len(own)}
            for word in ("torch", *TARGETS):
                values = [_value(f[key], word) for f in own if _value(f[key], word) is not None]
                changes = [
                    100 * (v - f["dense"]["torch"]) for v, f in zip(values, own, strict=False)
                ]
                if values:
                    row[word] = {"top1": values, "change": changes}
            agreements = [
                f[key][w]["agreement"] for f in own for w in TARGETS
                if "agreement" in f[key].get(w, {})
            ]  # fmt: skip
            row["agreement"] = min(agreements, default=None)
            row["met"] = _met(row)
            made.append(row)
    return made


def _value(form: dict[str, Any], word: str) -> float | None:
    found = form.get(word)
    return found["top1"] if isinstance(found, dict) else found


def _met(row: dict[str, Any]) -> bool | None:
    """Whether the row keeps its promise, by the mean over seeds on every engine that it names."""
    if row["form"] == ("W7A8 LSQ" if saturates() else "W8A8 LSQ"):
        return row["agreement"] >= AGREEMENT
    limit = LIMITS.get(row["form"])
    if limit is None:
        return None
    # activations of four bits are simulated: the torch network is what has them
    where = ("torch",) if row["form"] == "W4A4 LSQ" else TARGETS
    return all(statistics.mean(row[w]["change"]) >= -limit for w in where if w in row)


def markdown(found: list[dict[str, Any]], epochs: int) -> list[str]:
    head = ["network", "form", "torch", *TARGETS, "engines agree with torch, worst", ""]
    lines = []
    for r in found:
        cells = [_cell(r.get(w)) for w in ("torch", *TARGETS)]
        agreement = f"{100 * r['agreement']:.2f}%" if r["agreement"] is not None else ""
        told = "" if r["met"] is None else record.verdict(r["met"])
        lines.append([r["net"], r["form"], *cells, agreement, told])
    recipe_of = "; ".join(
        f"{n.upper()} {count} epoch{'s' if count > 1 else ''} at {lr:g}"
        for n, (_, _, count, lr) in TRAINED.items()
    )
    return [
        "# Quantization-aware training on Fashion-MNIST",
        "",
        "Top-1 in percent on 3,000 test images (mean over seeds, and its change against float in "
        "points; the lowest and highest of several seeds in brackets). \"torch\" is the network "
        "with its fake-quantizers; an engine's column is the compiled int8 bundle. Activations of "
        "fewer than 8 bits are simulated in torch: engines run them with 256 levels over the "
        "learned range.",
        "",
        f"Float: {epochs} epochs. LSQ, from the float network and with it as teacher: {recipe_of}.",
        "",
        *record.table(head, lines),
        "",
        "Promised: W8A8 calibrated within 0.1 point of float on every engine, W4A8 by AdaRound "
        "within 0.7, W4A4 LSQ within 1.0, W8A8 LSQ on the engines as in torch for 99.5% of images "
        "(W7A8 on x86 without VNNI, which takes no full 8-bit weights: W8A8 is rounded anew).",
    ]  # fmt: skip


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    change = found["change"]
    spread = f" [{min(change):+.2f}, {max(change):+.2f}]" if len(change) > 1 else ""
    return f"{100 * statistics.mean(found['top1']):.2f} ({statistics.mean(change):+.2f}{spread})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, reused")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--epochs", type=int, default=12, help="of the float training")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    before = load_average()
    runs = [
        run(net, seed, options.epochs, options.work)
        for seed in options.seeds
        for net in options.nets
    ]
    found = rows(runs)
    seeds = ", ".join(map(str, options.seeds))
    data = {
        "circumstances": record.circumstances(1, seeds, before),
        "training": {n: dict(zip(("weights", "activations", "epochs", "lr"), v, strict=True))
                     for n, v in TRAINED.items()},
        "rows": found,
        "runs": runs,
    }  # fmt: skip
    record.write("qat_fashion", options.out, data, markdown(found, options.epochs))


if __name__ == "__main__":
    main()
