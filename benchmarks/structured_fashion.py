"""Structured dense layers against plain low rank of as many parameters, on Fashion-MNIST.

    python benchmarks/structured_fashion.py --work DIR [--seeds 0 1]

A network of one hidden layer, 784 x 784 (`structured_nets.py`), (a) trained from scratch with that
layer of each structure; (b) trained dense, then projected on the structure by the `lowrank` stage
and fine-tuned. At rank r Toeplitz-like and low rank both have 2 r · 784 weights. Top-1 is of the
bundle for the cpu target, whose hidden layer is written out. Writes
benchmarks/results/structured_fashion.{json,md}; exits 1 where the requirement is missed.

The images are those of `recipes/quickstart.yaml`. A finished step is reused when run again.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import record
import yaml
from lowrank_fashion import DATA, TARGET, Told

from edgecv.benchmark.machine import load_average
from edgecv.measuring import facts
from edgecv.plan import pipeline, recipe

SIDE = 784
NETS = (("dense", 0), ("circulant", 0), ("lowrank", 1), ("toeplitz", 1), ("lowrank", 4),
        ("toeplitz", 4))  # fmt: skip
PROJECTED = (("svd", 4), ("toeplitz", 4))
TRAINING = {"flip": False, "shift": 0}


def run(
    net: tuple[str, int], seed: int, epochs: int, tune: int, work: Path
) -> list[dict[str, Any]]:
    """One network and seed: a row for it, and for a dense one a row for each projection."""
    structure, rank = net
    stages: list[dict[str, Any]] = [
        {"train": {"name": "net", "epochs": epochs, "lr": 0.002, **TRAINING}}
    ]
    names = {"net": net}
    for method, r in PROJECTED if structure == "dense" else ():
        name = f"{method}-{r}"
        names[name] = (method, r)
        stages.append({"lowrank": {
            "name": name, "from": "net", "method": method, "rank": r, "layers": ["hidden"],
            "align": 1, "fuse_back": False, "finetune_epochs": tune, "lr": 0.002, **TRAINING,
        }})  # fmt: skip
    stages[0]["train"]["ship"] = True
    data = {
        "model": {"module": "structured_nets:make", "structure": structure, "rank": rank},
        "data": DATA, "seed": seed, "stages": stages, "targets": [TARGET],
    }  # fmt: skip
    name = f"structured-{structure}-{rank}-{seed}"
    path = work / f"{name}.yaml"
    path.write_text(f"# {name}\n{yaml.safe_dump(data, sort_keys=False)}")
    outcome = pipeline.run(recipe.load(path), work / name, Told(), compare=False)
    if outcome.failures:
        raise SystemExit("\n".join(f"{k}: {e}" for k, e in outcome.failures.items()))
    made = []
    for step, (kind, r) in names.items():
        bundle = facts.read(outcome.folders[f"bundle:{step}@{TARGET}"])
        weights = outcome.folders[step] / "weights.safetensors"
        made.append({
            "scratch": step == "net", "structure": kind, "rank": r, "seed": seed,
            "parameters": _parameters(kind, r), "top1": bundle.metric["value"],
            "model_bytes": weights.stat().st_size, "engine_bytes": bundle.engine_bytes,
        })  # fmt: skip
    return made


def _parameters(structure: str, rank: int) -> int:
    """Weights of the hidden layer."""
    return {"dense": SIDE * SIDE, "circulant": SIDE}.get(structure, 2 * rank * SIDE)


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each structure: its seeds together."""
    made: dict[tuple[Any, ...], dict[str, Any]] = {}
    for r in runs:
        key = (r["scratch"], r["structure"], r["rank"])
        first = {k: v for k, v in r.items() if k not in ("seed", "top1")}
        made.setdefault(key, {**first, "top1": []})["top1"].append(100 * r["top1"])
    return sorted(made.values(), key=lambda r: (not r["scratch"], -r["parameters"]))


def met(rows: list[dict[str, Any]]) -> bool:
    """Whether Toeplitz-like, from scratch, is above low rank at every rank and with every seed."""
    found = {(r["structure"], r["rank"]): r["top1"] for r in rows if r["scratch"]}
    pairs = [(found["toeplitz", r], found["lowrank", r]) for s, r in found if s == "toeplitz"]
    return all(min(ours) > max(theirs) for ours, theirs in pairs)


def markdown(rows: list[dict[str, Any]], epochs: int, tune: int) -> list[str]:
    head = ["hidden layer", "weights", "top-1", "Model, KB", "engine's file, KB"]

    def lines(scratch: bool) -> list[list[str]]:
        return [
            [
                _title(r),
                f"{r['parameters']:,}",
                f"{statistics.mean(r['top1']):.2f} [{min(r['top1']):.2f}, {max(r['top1']):.2f}]",
                f"{r['model_bytes'] / 1e3:.0f}",
                f"{r['engine_bytes'] / 1e3:.0f}",
            ]
            for r in rows
            if r["scratch"] == scratch
        ]  # fmt: skip

    return [
        "# Structured dense layers on Fashion-MNIST",
        "",
        "Top-1 in percent on 3,000 test images (mean over seeds, lowest and highest), of the "
        "bundle for the cpu target. One hidden layer of 784 x 784, a dense one of 10 behind it. "
        "Engines have no FFT: a structured layer is written out in the engine's file, and takes a "
        "dense layer's time there; the Model on disk holds its parameters alone.",
        "",
        f"Trained from scratch, {epochs} epochs:",
        "",
        *record.table(head, lines(True)),
        "",
        f"Trained dense, projected by `lowrank`, fine-tuned for {tune} epochs:",
        "",
        *record.table(head, lines(False)),
        "",
        "Asked: from scratch, Toeplitz-like above low rank of as many weights, with every seed: "
        f"{record.verdict(met(rows))}.",
    ]


def _title(row: dict[str, Any]) -> str:
    titles = {"lowrank": "low rank", "svd": "low rank (SVD)", "toeplitz": "Toeplitz-like"}
    name = titles.get(row["structure"], row["structure"])
    return f"{name}, r = {row['rank']}" if row["rank"] else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, reused")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=6, help="of training from scratch")
    parser.add_argument("--tune", type=int, default=3, help="epochs of fine-tuning")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    before = load_average()
    runs = [
        row
        for seed in options.seeds
        for net in NETS
        for row in run(net, seed, options.epochs, options.tune, options.work)
    ]
    rows = summary(runs)
    seeds = ", ".join(map(str, options.seeds))
    data = {
        "circumstances": record.circumstances(1, seeds, before),
        "rows": rows,
        "runs": runs,
    }
    record.write(
        "structured_fashion", options.out, data, markdown(rows, options.epochs, options.tune)
    )
    if not met(rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
