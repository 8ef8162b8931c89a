"""What one bit costs: networks of Fashion-MNIST and MNIST, float and with one-bit layers.

    python benchmarks/binary_accuracy.py MNIST.npz --work DIR [--seeds 0] [--cases resnet8 mlp ...]

Each network is trained in float, then by `binarize` from it, taught by it. First and last layers
and projections stay float, as `binarize` does by itself; in the row "every" none does. Every row is
compiled for ONNX Runtime: top-1 is of what runs there, "counted" says how many layers ran as xnor
and popcount. Published: 1W1A of a binary MLP of 3x256 on MNIST 97.81% (Brevitas), with every layer
and the input of one bit.

MNIST.npz holds x_train, y_train, x_test, y_test; Fashion-MNIST is the sample of this checkout
(12,000 training and 3,000 test images). A finished step is reused when run again. Writes
benchmarks/results/binary_accuracy.{json,md}.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import record
import yaml

from edgecv.benchmark.machine import load_average
from edgecv.models.model import Model
from edgecv.plan import pipeline, recipe, results

FASHION = {"train": "fashion-mnist-sample", "test": "fashion-mnist-sample", "size": 28,
           "crop_pct": 1.0, "mean": [0.286], "std": [0.353]}  # fmt: skip
PLAIN = {"flip": False, "shift": 1}
# case -> the network, its float training, and (name, binarize's parameters, what it is to reach):
# points below float at most (negative), or top-1 in %
CASES: dict[str, Any] = {
    "resnet8": {
        "model": {"zoo": "resnet8", "width": 32}, "train": {"epochs": 12, "lr": 0.005, "shift": 1},
        "rows": [
            ("react", {"epochs": 24, "shift": 1}, -2.5),
            ("ternary", {"weights": "ternary", "activations": "real", "epochs": 10, "shift": 1},
             -1.0),
            ("ttq", {"weights": "ttq", "activations": "real", "epochs": 10, "shift": 1}, -1.0),
        ],
    },
    "lenet5": {
        "model": {"module": "binary_nets:lenet5"}, "train": {"epochs": 4, "lr": 0.002, **PLAIN},
        "rows": [("react", {"epochs": 12, "batch_size": 128, **PLAIN}, 98.7)],
    },
    "mlp": {
        "model": {"module": "binary_nets:mlp"},
        "train": {"epochs": 12, "lr": 0.002, "batch_size": 128, **PLAIN},
        "rows": [
            ("react", {"epochs": 30, "batch_size": 128, **PLAIN}, 97.3),
            ("every", {"layers": ["*"], "epochs": 30, "batch_size": 128, **PLAIN}, 97.3),
        ],
    },
}  # fmt: skip
FORMS = {"resnet8": ("bireal", "xnor")}  # beside it, on the first seed, with --forms


def run(case: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One network, one seed: a row for float and for each one-bit form."""
    about = CASES[case]
    mnist = f"npz:{options.mnist.resolve()}"
    data = FASHION if case == "resnet8" else {
        "train": mnist, "test": mnist, "size": 28, "crop_pct": 1.0, "mean": [0.1307],
        "std": [0.3081],
    }  # fmt: skip
    rows = list(about["rows"])
    if options.forms and seed == options.seeds[0]:
        rows += [(form, {**rows[0][1], "form": form}, None) for form in FORMS.get(case, ())]
    content = {
        "model": about["model"], "data": data, "seed": seed, "targets": ["cpu"],
        "stages": [
            {"train": {"name": "float", **about["train"]}},
            *({"binarize": {"name": name, "from": "float", "ship": True, **how}}
              for name, how, _ in rows),
        ],
    }  # fmt: skip
    path = options.work / f"{case}-{seed}.yaml"
    path.write_text(f"# {case}, seed {seed}\n{yaml.safe_dump(content, sort_keys=False)}")
    outcome = pipeline.run(recipe.load(path), options.work / path.stem, Told())
    if outcome.failures:
        raise SystemExit("\n".join(f"{k}: {e}" for k, e in outcome.failures.items()))
    found = {r["step"]: r for r in results.collect(outcome)["results"]}
    made = []
    for name, how, wanted in [("float", about["train"], None), *rows]:
        row = found[name]
        model = Model.read(outcome.folders[name])
        layers = next((e["layers"] for e in model.edits if e["op"] == "binarize"), {})
        made.append({
            "case": case, "name": name, "seed": seed, "wanted": wanted, "epochs": how["epochs"],
            "top1": 100 * row["metric"]["value"], "float": 100 * found["float"]["metric"]["value"],
            "executed": row["executed"], "engine_bytes": row["engine_bytes"],
            "time": row["latency_ratio"], "layers": list(layers), "facts": model.facts[name],
        })  # fmt: skip
    return made


class Told(pipeline.Silent):
    """Says which step is being made."""

    def start(self, node: Any, index: int, total: int) -> None:
        print(f"{index + 1}/{total} {node.id}", flush=True)


def page(rows: list[dict[str, Any]]) -> tuple[list[str], bool]:
    head = ["network", "", "epochs", "top-1 %", "points", "wanted", "counted", "KB", "time × float",
            ""]  # fmt: skip
    lines, good = [], True
    for case, name in dict.fromkeys((r["case"], r["name"]) for r in rows):
        own = [r for r in rows if (r["case"], r["name"]) == (case, name)]
        points = [r["top1"] - r["float"] for r in own]
        wanted, first = own[0]["wanted"], own[0]
        met = None
        if wanted is not None:
            values = points if wanted < 0 else [r["top1"] for r in own]
            met = statistics.mean(values) >= wanted
            good &= met
        lines.append([
            case, name, first["epochs"], ", ".join(f"{r['top1']:.2f}" for r in own),
            "" if name == "float" else ", ".join(f"{p:+.2f}" for p in points),
            "" if wanted is None else f"{wanted:+.1f} points" if wanted < 0 else f"{wanted}%",
            first["executed"].get("binary", 0), f"{first['engine_bytes'] / 1e3:.0f}",
            f"{statistics.mean(r['time'] for r in own):.2f}",
            "" if met is None else record.verdict(met),
        ])  # fmt: skip
    return [
        "# One-bit networks: what they cost",
        "",
        "Top-1 by seed, of what was compiled for ONNX Runtime. react, bireal and xnor have one-bit "
        "weights and activations, ternary has weights of -1, 0, 1, ttq of -n, 0, p, both with "
        "float activations: fewer bytes only when packed, and slower than float, by the shortcuts "
        "and slopes of ReActNet. First and last layers and projections are float, but in `every`. "
        "The time is what this processor makes of them: small networks are all overhead.",
        "",
        *record.table(head, lines),
    ], good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path, help="MNIST as .npz")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, reused")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--forms", action="store_true", help="also bireal and xnor")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    before = load_average()
    rows = [row for case in options.cases for seed in options.seeds
            for row in run(case, seed, options)]  # fmt: skip
    lines, good = page(rows)
    seeds = ", ".join(map(str, options.seeds))
    data = {"circumstances": record.circumstances(1, seeds, before), "rows": rows}  # type: ignore[arg-type]
    record.write("binary_accuracy", options.out, data, lines)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
