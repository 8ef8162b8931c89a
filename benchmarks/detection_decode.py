"""Milliseconds of reading a detector's outputs: 8,400 boxes x 80 classes.

    python benchmarks/detection_decode.py

As a head of a 640 x 640 input gives them: 20 boxes about each object, and scores below `unsure`
elsewhere; 0.01 is a network that says something of everything. Time of the thread itself, for
others may be at work.
"""

from __future__ import annotations

import time

import numpy as np

from edgecv.runtime.placement import place
from edgecv.tasks.detection import DetectionTask

CELLS, CLASSES, SIDE = 8400, 80, 640


def head(objects: int, unsure: float, rng: np.random.Generator) -> np.ndarray:
    """float32 (N, 4 + C): cx, cy, w, h in pixels and scores."""
    rows = np.empty((CELLS, 4 + CLASSES), np.float32)
    rows[:, :2] = rng.uniform(0, SIDE, (CELLS, 2))
    rows[:, 2:4] = rng.uniform(8, 200, (CELLS, 2))
    rows[:, 4:] = rng.uniform(0, unsure, (CELLS, CLASSES))
    for k in range(objects):
        own = slice(k * 20, k * 20 + 20)
        rows[own, :4] = rng.uniform(100, 400, 4) + rng.normal(0, 4, (20, 4))
        rows[own, 4 + k % CLASSES] = rng.uniform(0.2, 0.95, 20)
    return rows


def milliseconds(task: DetectionTask, outputs: dict[str, np.ndarray], **asked: object) -> float:
    lies = place("letterbox", (480, 640), (SIDE, SIDE), 0.875, "centre")
    times = []
    for _ in range(30):
        begun = time.thread_time()
        task.read(outputs, lies, (480, 640), **asked)
        times.append(time.thread_time() - begun)
    return float(np.median(times)) * 1e3


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"{'head':8} {'objects':>7} {'unsure':>7} {'deployed':>9} {'judged':>9}")
    for objects, unsure in ((5, 1e-3), (50, 1e-3), (50, 0.01)):
        rows = head(objects, unsure, rng)
        heads = {
            "yolov8": {"out": np.ascontiguousarray(rows.T[None])},
            "yolox": {"out": np.insert(rows, 4, 1.0, axis=1)[None]},
        }
        heads["yolox"]["out"][..., 4] = rows[:, 4:].max(1) ** 0.5
        heads["yolox"]["out"][..., 5:] **= 0.5
        for decoder, outputs in heads.items():
            task = DetectionTask(decoder=decoder, input=(SIDE, SIDE), strides=(8, 16, 32))
            deployed = milliseconds(task, outputs)
            judged = milliseconds(task, outputs, **task.judging())
            print(f"{decoder:8} {objects:7} {unsure:7} {deployed:9.2f} {judged:9.2f}")


if __name__ == "__main__":
    main()
