"""Results, baselines and model.json with mistakes: each is read, or refused in a sentence.

    python benchmarks/fuzz_results.py [--count 5000] [--seed 0]

Values and keys of the JSON are replaced by what does not belong there, or bytes are changed. What
counts is in `fuzzing.py`.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzzing import changed_bytes, changed_json, main

from edgecv.benchmark import baseline, gate
from edgecv.models import history
from edgecv.models.model import Model
from edgecv.report.gather import gather
from edgecv.terminal import printable

MACHINE = {"cpu": "A processor", "architecture": "x86_64", "features": ["avx2"], "cores": 2}
METRIC = {
    "name": "map50_95", "value": 0.75, "samples": 4, "images": "0f", "more": {"ap50": 0.8},
    "per_class": {"a": 0.7, "b": None},
}  # fmt: skip
PARITY = {"sqnr_db": 40.0, "top1_agreement": 1.0, "cosine": 0.99, "samples": 8}
RESULTS: dict[str, Any] = {
    "schema": 1, "edgecv": "0.1.0", "machine": MACHINE, "versions": {"numpy": "2", "torch": None},
    "recipe": {"name": "tiny", "file": "tiny.yaml", "text": "model: x\n", "digest": "0f",
               "threads": 1, "settings": ["seed=1"], "only": []},
    "results": [
        {"step": step, "target": "cpu", "engine": "onnxruntime", "precision": precision,
         "bundle": f"bundles/{step}.cpu.edgecv",
         "metric": {**METRIC, "name": name, "reference": 0.75},
         "latency_ms": {"p50": 1.0, "p90": 1.1, "p99": 1.2}, "latency_ratio": 1.0,
         "latency_ratio_interval": [0.9, 1.1], "cpu_time_ratio": 1.0, "size_bytes": 1000,
         "engine_bytes": 900, "executed": {precision: 3}, "parity": {"graph": PARITY,
         "compiled": PARITY}, "status": "ok", "reason": "", "reference": "dense", "threads": 1,
         "calibrated": {"log_ratio": 0.1, "error": 0.01}, "calibration": {"version": 1},
         "memory_mb": {"before": 30.0, "peak": 60.0}, "busy": False}
        for step, precision, name in (("dense", "fp32", "top1"), ("small", "int8", "map50_95"))
    ],
    "nodes": [{"id": "dense", "kind": "train", "step": "dense", "target": None, "digest": "0f",
               "inputs": {"model": "model"}, "action": "made", "seconds": 1.0}],
    "models": [{"step": "dense", "summary": "top1 0.7", "history": ["built"],
                "curve": [{"step": "a", "top1": 0.5}]}],
    "limits": [],
}  # fmt: skip
BASELINE: dict[str, Any] = {
    "schema": 1, "kind": "edgecv baseline", "edgecv": "0.1.0",
    "bundles": {"small.cpu": {
        "target": "cpu", "engine": "onnxruntime", "precision": "int8", "digest": "0f",
        "size_bytes": 1000, "tools": {"numpy": "2"}, "metric": METRIC, "executed": {"int8": 3},
        "correct": "8A==", "no_latency": "busy"}},
    "machines": [{"machine": MACHINE, "threads": 1, "calibration": {"version": 1, "numpy": "2.0"},
                  "bundles": {"small.cpu": {"digest": "0f", "calibrated": [0.1, 0.01],
                                            "latency_ms": 1.0, "memory_mb": 60.0}}}],
}  # fmt: skip
MODEL: dict[str, Any] = {
    "schema": 1, "builder": "zoo:resnet8", "source_digest": "0f", "args": {"width": 8},
    "edits": [
        {"op": "keep_channels", "step": "small",
         "modules": {"stem": {"out": [0, 1], "was": 4, "in": [0]}}},
        {"op": "connections", "step": "thin", "layers": {"head": [3, 9]}},
        {"op": "quantizers", "step": "qat", "method": "lsq", "quantizers": {
            "a": {"bits": 8, "parameter": "weight"}, "b": {"bits": 8}}},
    ],
    "input": {"size": [28, 28], "channels": 1, "mean": [0.5], "std": [0.5], "crop_pct": 1.0,
              "interpolation": "bicubic"},
    "labels": ["a", "b"],
    "facts": {"small": {"macs": 10, "macs_before": 20, "top1": 0.7, "epochs": 2, "loss": [1, 0.5],
                        "teacher": "self", "rounds": [{"asked": {"macs": 0.5}, "got": {"macs": 0.4},
                        "target": "cpu"}], "method": "l1"},
              "thin": {"times_fewer": 4, "bytes_values_and_bitmask": 100, "scratch": {"top1": 0.5}},
              "subnormal_weights": {"stem.weight": 3}},
    "steps": ["small", "thin"],
}  # fmt: skip
NAMES = {"results": "results.json", "baseline": "baseline.json", "model": "model.json"}
BASES = {"results": RESULTS, "baseline": BASELINE, "model": MODEL}


def cases(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(kind, bytes of the file); the same for the same seed."""
    for i in range(count):
        rng = random.Random(f"{seed}/{i}")
        kind = rng.choice(list(BASES))
        if rng.randrange(4) == 0:
            yield kind, changed_bytes(rng, json.dumps(BASES[kind]).encode())
            continue
        data = json.loads(json.dumps(BASES[kind]))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            changed_json(rng, data)
        yield kind, json.dumps(data).encode()


def check(case: tuple[str, bytes]) -> None:
    """Reads one as the commands do. Raises EdgecvError for what is refused; anything else is a
    fault."""
    kind, content = case
    with tempfile.TemporaryDirectory(prefix="edgecv-fuzz-") as room:
        path = Path(room) / NAMES[kind]
        path.write_bytes(content)
        if kind == "model":
            printable("\n".join(history.of(Model.read(Path(room))))).encode()
            return
        found = baseline.load(path)
        gate.judge(gate.pairs(found, found), gate.Options(), _no_clock)
        if kind == "results":
            gather(Path(room))


def _no_clock(*_: Any) -> dict[str, Any]:
    raise AssertionError("there is no bundle to measure")


if __name__ == "__main__":
    raise SystemExit(main(cases, check, 5000))
