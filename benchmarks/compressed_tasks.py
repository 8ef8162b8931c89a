"""A detector and a segmentation network, trained, pruned to 0.6 of their time, and quantized.

    python benchmarks/compressed_tasks.py detection --work DIR [--seeds 0 1]
    python benchmarks/compressed_tasks.py segmentation --work DIR --camvid DIR [--seeds 0]

Each is one recipe: train, `prune: {latency_ratio: 0.6, on: cpu}` fine-tuned with the dense network
as its teacher, `quantize`. Time is the run's own interleaved measurement against the dense network
on the same engine. A finished step is reused when run again.

Promised of segmentation: int8 of the pruned network within one point of mIoU. Writes
benchmarks/results/compressed_TASK.{json,md}; exits 1 where a promise is missed.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import record
import yaml

from edgecv.benchmark.machine import load_average

SHARE, WITHIN = 0.6, 0.1  # of the dense network's time; of that
POINTS = 1.0  # of mIoU that may be lost
METRICS = {"map50_95": "mAP50:95", "miou": "mIoU"}
KINDS = {"dense": "dense, fp32", "small": "pruned, fp32", "small-int8": "pruned, int8"}


def detection(_: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The zoo's `tiny_detector` on pictures of 128x128 that edgecv makes (`shapes-boxes`: 600 to
    learn from, 150 to be judged on) on ONNX Runtime, OpenVINO and LiteRT."""
    shared = {"batch_size": 16}
    return {
        "model": {"zoo": "tiny_detector", "width": 16},
        "data": {"train": "shapes-boxes:600", "test": "shapes-boxes:600", "size": 128,
                 "resize": "stretch"},
        "seed": seed,
        "stages": [
            {"train": {"name": "dense", "epochs": 20, "lr": 0.004, **shared}},
            {"prune": {"name": "small", "latency_ratio": SHARE, "on": "cpu", "samples": 128,
                       "finetune_epochs": 12, "lr": 0.002, "ship": True, **shared}},
            {"quantize": {"name": "small-int8", "from": "small"}},
        ],
        "targets": ["cpu", "openvino", "tflite"],
    }  # fmt: skip


def segmentation(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The zoo's `unet` from random weights on CamVid (367 pictures, judged on the 101 of val; 11
    classes at 240x176) on ONNX Runtime and OpenVINO."""
    shared = {"batch_size": 8, "scale": 0.5, "colour": 0.2, "shift": 8}
    source = f"masks:{options.camvid}"
    return {
        "model": {"zoo": "unet", "width": 16},
        "data": {"train": source, "test": source, "size": [176, 240], "resize": "stretch"},
        "seed": seed,
        "stages": [
            {"train": {"name": "dense", "epochs": 14, "lr": 0.004, **shared}},
            {"prune": {"name": "small", "latency_ratio": SHARE, "on": "cpu", "samples": 64,
                       "finetune_epochs": 8, "lr": 0.002, **shared}},
            {"quantize": {"name": "small-int8", "from": "small"}},
        ],
        "targets": ["cpu", "openvino"],
    }  # fmt: skip


RECIPES = {"detection": detection, "segmentation": segmentation}


def run(options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """One seed: a row for every step and target."""
    out = options.work / f"{options.task}-{seed}"
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(RECIPES[options.task](options, seed), sort_keys=False))
    record.edgecv("run", str(path), "--out", str(out))
    found = json.loads((out / "results.json").read_text())
    seconds = {n["id"]: n["seconds"] for n in found["nodes"]}
    told = {m["step"]: m["summary"] for m in found["models"]}
    return [
        {**{k: r[k] for k in ("step", "target", "metric", "latency_ms", "latency_ratio",
                              "latency_ratio_interval", "cpu_time_ratio", "size_bytes")},
         "seed": seed, "seconds": seconds.get(r["step"]),
         "made": told.get(r["step"].removesuffix("-int8"), "")}
        for r in found["results"]
    ]  # fmt: skip


def lost(row: dict[str, Any]) -> float:
    """Points of the metric against the dense network on the same engine."""
    return 100 * (row["metric"]["reference"] - row["metric"]["value"])


def page(rows: list[dict[str, Any]], task: str) -> list[str]:
    name = METRICS[rows[0]["metric"]["name"]]
    lines = [
        [r["seed"], KINDS[r["step"]], r["target"], f"{100 * r['metric']['value']:.2f}",
         f"{-lost(r) + 0.0:+.2f}", f"{r['latency_ms']['p50']:.2f}", f"{r['latency_ratio']:.3f}",
         "{:.3f} to {:.3f}".format(*r["latency_ratio_interval"]), f"{r['cpu_time_ratio']:.3f}",
         f"{r['size_bytes'] / 1000:,.0f}"]
        for r in rows
    ]  # fmt: skip
    head = ["seed", "network", "target", f"{name} %", "points", "ms p50", "time × dense", "95%",
            "CPU time × dense", "KB"]  # fmt: skip
    trained = {r["seed"]: r["seconds"] for r in rows if r["step"] == "dense" and r["seconds"]}
    made = dict.fromkeys(f"- seed {r['seed']}: {r['made']}" for r in rows if r["step"] != "dense")
    told = [RECIPES[task].__doc__ or "", (__doc__ or "").split("\n\n")[2]]
    text = " ".join(" ".join(told).split())
    return [
        f"# {task.capitalize()}: trained, asked for {SHARE:g} of its time, quantized", "", text,
        "", *record.table(head, lines), "",
        "Trained in " + ", ".join(f"{s / 60:.0f}" for s in trained.values())
        + " minutes, one thread of a machine with other work.", "", *made,
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=RECIPES)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, reused")
    parser.add_argument("--camvid", type=Path, help="CamVid: train/ and val/, images and masks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    if options.task == "segmentation" and options.camvid is None:
        parser.error("segmentation needs --camvid")
    options.work.mkdir(parents=True, exist_ok=True)
    before = load_average()
    rows = [row for seed in options.seeds for row in run(options, seed)]
    seeds = ", ".join(map(str, options.seeds))
    data = {"circumstances": record.circumstances(1, seeds, before), "rows": rows}  # type: ignore[arg-type]
    record.write(f"compressed_{options.task}", options.out, data, page(rows, options.task))
    got = [float(ratio) for r in rows for ratio in re.findall(r", got ([0-9.]+)", r["made"])]
    on_time = all(abs(ratio / SHARE - 1) <= WITHIN for ratio in got)
    small = [r for r in rows if r["step"] == "small-int8"]
    near = options.task == "detection" or all(lost(r) <= POINTS for r in small)
    raise SystemExit(0 if on_time and near else 1)


if __name__ == "__main__":
    main()
