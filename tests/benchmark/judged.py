"""Entries and clock answers made by hand, for the tests of the judge, the file and the outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.benchmark.baseline import Entry, Timing
from edgecv.benchmark.calibration import VERSION

HERE = {"cpu": "This CPU", "architecture": "x86_64", "features": ["avx2"]}
CALIBRATION = {"version": VERSION, "numpy": "2.4.6", "latency_ms": 0.6}


def entry(name: str = "net.cpu", right: int = 900, images: int = 1000, **over: Any) -> Entry:
    """A bundle known by its facts; the first `right` of its test images were answered rightly."""
    correct = np.arange(images) < right
    facts = {
        "target": "cpu", "engine": "onnxruntime", "precision": "int8", "digest": "d1",
        "size_bytes": 1000, "tools": {"onnxruntime": "1.31.1"}, "executed": {"int8": 10},
        "metric": {"name": "top1", "value": right / images, "samples": images, "images": "set"},
        **over.pop("facts", {}),
    }  # fmt: skip
    return Entry(name, facts, **{"correct": correct, **over})


def timing(log_ratio: float = 0.5, error: float = 0.003, **over: Any) -> Timing:
    given = {
        "machine": HERE, "threads": 1, "calibration": CALIBRATION,
        "calibrated": (log_ratio, error), "latency_ms": 1.0, "memory_mb": 60.0, **over,
    }  # fmt: skip
    return Timing(**given)


def answer(verdict: str = "pass", ratio: float = 1.0, **over: Any) -> dict[str, Any]:
    """What `edgecv.benchmark.sequential_test` answers."""
    return {
        "verdict": verdict, "ratio": ratio, "bounds": [ratio - 0.01, ratio + 0.01], "floor": 0.01,
        "reason": "", "hint": "", "machine": HERE, "calibration": CALIBRATION, "warnings": [],
        "calibrated": {"log_ratio": 0.5, "error": 0.003}, "seconds": 1.0,
        "baseline": {"latency_ms": {"p50": 1.0}, "memory_mb": {"peak": 60.0}, "busy": False},
        "candidate": {"latency_ms": {"p50": ratio}, "memory_mb": {"peak": 60.0}, "busy": False},
        **over,
    }  # fmt: skip
