"""Every criterion at one measured time, on Fashion-MNIST: what is a score worth, and a teacher?

    python benchmarks/pruning_criteria.py --work DIR [--net resnet8] [--target cpu] [--share 0.5]

One dense network, and it pruned to the same measured time by every criterion of
`edgecv.methods.pruning.criteria` (network slimming with its sparse training before), fine-tuned
alike, with distillation from the dense network off and on where `prune` has a `teacher`. Top-1
right after the cut, after new batch-norm statistics, and after tuning. A finished step is reused
when run again. Writes benchmarks/results/pruning_criteria.{json,md}.
"""

from __future__ import annotations

import statistics
from typing import Any

import pruned_latency as shared
import record

from edgecv.benchmark.machine import load_average
from edgecv.methods.pruning import criteria
from edgecv.models.model import Model
from edgecv.plan import results
from edgecv.stages.prune import Prune

TEACHER = "teacher" in Prune.model_fields  # distillation off and on
SLIMMING = {"sparse_epochs": 2, "sparsity": 1e-3}


def stages(options: Any) -> list[dict[str, Any]]:
    """The recipe: the dense network, and it by every criterion."""
    made: list[dict[str, Any]] = [
        {
            "train": {
                "name": "dense",
                "epochs": shared.EPOCHS[options.net],
                "lr": options.lr,
                "shift": 1,
            }
        }
    ]
    for method in options.methods:
        for distilled in (False, True) if TEACHER else (False,):
            one: dict[str, Any] = {
                "name": f"{method}-distilled" if distilled else method, "from": "dense",
                "method": method, "latency_ratio": options.share, "on": options.target,
                "finetune_epochs": options.tune, "lr": options.tune_lr, "shift": 1,
                "rounds": options.rounds, "recalibrate": True,
            }  # fmt: skip
            if options.align:
                one["align"] = options.align
            if TEACHER:
                one["teacher"] = "self" if distilled else "none"
            if method == "bn_scale":
                one |= SLIMMING
            made.append({"prune": one})
    return made


def run(seed: int, options: Any) -> list[dict[str, Any]]:
    """One seed: a row for every criterion."""
    name = f"criteria-{options.net}-{seed}"
    width = options.width or shared.WIDTHS[options.net]
    data = {
        "model": {"zoo": options.net, "width": width}, "data": shared.DATA, "seed": seed,
        "stages": stages(options), "targets": [options.target],
        "bench": {"budget_s": 90, "rounds": 60},
    }  # fmt: skip
    outcome, missed = shared.attempt(data, options.work / name)
    rows: list[dict[str, Any]] = [{"method": step, "missed": why} for step, why in missed.items()]
    found = {r["step"]: r for r in results.collect(outcome)["results"]}
    for step, row in found.items():
        if step == "dense":
            continue
        facts = Model.read(outcome.folders[step]).facts[step]
        curve = {point["step"].rpartition(", ")[2]: point["top1"] for point in facts["curve"]}
        method, _, distilled = step.partition("-")
        rows.append({
            "method": method, "distilled": bool(distilled), "seed": seed, "curve": curve,
            "top1": row["metric"]["value"], "dense": found["dense"]["metric"]["value"],
            "time": row["latency_ratio"], "macs": facts["macs"] / facts["macs_before"],
            "widths": facts["rounds"][-1]["widths"],
        })  # fmt: skip
    return rows


def page(rows: list[dict[str, Any]], options: Any) -> list[str]:
    head = ["criterion", "teacher", "time × dense", "MACs × dense", "cut %", "recalibrated %",
            "tuned %", "points"]  # fmt: skip
    lines = []
    lines += [[r["method"], "", "", "", "", "", r["missed"], ""] for r in rows if "missed" in r]
    rows = [r for r in rows if "missed" not in r]
    for method, distilled in dict.fromkeys((r["method"], r["distilled"]) for r in rows):
        own = [r for r in rows if (r["method"], r["distilled"]) == (method, distilled)]
        mean = {
            k: 100 * statistics.mean(r["curve"].get(k, float("nan")) for r in own)
            for k in ("cut", "recalibrated")
        }
        points = [100 * (r["top1"] - r["dense"]) for r in own]
        lines.append([
            method, "dense" if distilled else "none",
            ", ".join(f"{r['time']:.2f}" for r in own),
            f"{statistics.mean(r['macs'] for r in own):.2f}", f"{mean['cut']:.2f}",
            f"{mean['recalibrated']:.2f}", f"{100 * statistics.mean(r['top1'] for r in own):.2f}",
            ", ".join(f"{p:+.2f}" for p in points),
        ])  # fmt: skip
    dense = 100 * statistics.mean(r["dense"] for r in rows)
    return [
        "# Criteria of pruning at one measured time",
        "",
        f"{options.net} on Fashion-MNIST, asked for {options.share:g} of the dense network's time "
        f"on {options.target}; dense: {dense:.2f}% after {shared.EPOCHS[options.net]} epochs; "
        f"tuned for {options.tune}. Top-1 on 3,000 test images: after the cut, with batch norms "
        "measured anew, tuned; the change against dense in points, seed by seed. `random` is the "
        "control.",
        "",
        *record.table(head, lines),
    ]


def main() -> None:
    parser = shared.arguments(__doc__)
    parser.add_argument("--net", default="resnet8", choices=shared.WIDTHS)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--share", type=float, default=0.5, help="of the dense network's time")
    parser.add_argument("--methods", nargs="+", default=criteria.names(), choices=criteria.names())
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    before = load_average()
    rows = [row for seed in options.seeds for row in run(seed, options)]
    seeds = ", ".join(map(str, options.seeds))
    data = {"circumstances": record.circumstances(1, seeds, before), "rows": rows}  # type: ignore[arg-type]
    record.write("pruning_criteria", options.out, data, page(rows, options))


if __name__ == "__main__":
    main()
