"""How often does `edgecv gate` err on detectors? Equal ones, and ones that lost 1.5 mAP.

    python benchmarks/gate_detectors.py BUNDLE --data yolo:DIR [--count 100] [--out DIR]

BUNDLE: of a detector, run once on every image of the data. A network of the comparison is what it
found with noise: boxes moved by a share of their sides, scores by a step of their logits, drawn
anew for each network, so that two of one kind are equal and no two alike. The noise of the lossy
kind is larger by what takes 1.5 mAP on the average, found by bisection on networks that are not
judged. Both are judged as `edgecv gate` judges two bundles of one data set, at its default limit
(0.5 points) and at 0. Writes benchmarks/results/gate_detectors.{json,md}.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, circumstances, load_average, table, write

from edgecv import data as datasets
from edgecv.benchmark import gate
from edgecv.benchmark.baseline import Entry
from edgecv.data.images import Images
from edgecv.runtime import open_bundle
from edgecv.tasks.base import Score
from edgecv.tasks.detection import DetectionTask, Found

LOST = 0.015  # of mAP, 0..1
EQUAL = 0.02  # noise of both kinds: of a box's sides; times 10 of a score's logit
LIMITS = (0.005, 0.0)
LEAST = 0.01  # score of what is kept: what lies below moves mAP by hundredths of a point
TRIED = 32  # networks a step of the bisection: their mAP differs by half a point
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", required=True, help="a source of boxes")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    before = load_average()
    network = Network(options.bundle, options.data)
    lossy = network.noise_that_loses(LOST)
    rows = [pair(network, lossy, i) for i in range(options.count)]
    data = {
        "circumstances": circumstances(1, SEED, before), "images": len(network.images),
        "noise": [EQUAL, lossy], "pairs": rows,
    }  # fmt: skip
    write("gate_detectors", options.out, data, page(data))


class Network:
    """What a bundle found on every image of a set."""

    def __init__(self, path: Path, source: str) -> None:
        bundle = open_bundle(path)
        assert isinstance(bundle.task, DetectionTask)
        self.task, pre = bundle.task, bundle.preprocess
        with tempfile.TemporaryDirectory() as room:
            geometry = {"resize": "stretch"}  # the pictures are read again; here labels count
            self.images = datasets.materialise(source, "test", (8, 8), 3, geometry, Path(room))
            self.images = Images(np.array(self.images.pixels), self.images.labels,
                                 self.images.classes, truth=self.images.truth)  # fmt: skip
        asked = {**self.task.judging(), "confidence": LEAST}
        items = datasets.parse(source).items("test", pre.channels)
        self.found = [bundle.read(items.item(i)[0], **asked)[0] for i in range(items.count)]
        bundle.close()

    def noisy(self, amount: float, seed: int) -> Score:
        """The score of a network that finds the same with noise."""
        rng = np.random.default_rng([SEED, seed])
        reads = [_moved(found, amount, rng) for found in self.found]
        return self.task.score(reads, self.images.truth, self.images.classes)

    def noise_that_loses(self, points: float) -> float:
        """By bisection, on the average of TRIED networks, none of which is judged."""
        seeds = range(1_000_000, 1_000_000 + TRIED)
        level = np.mean([self.noisy(EQUAL, s).value for s in seeds])
        low, high = EQUAL, 8 * EQUAL
        for _ in range(5):
            middle = (low + high) / 2
            lost = level - np.mean([self.noisy(middle, s).value for s in seeds])
            low, high = (middle, high) if lost < points else (low, middle)
        return (low + high) / 2


def _moved(found: Found, amount: float, rng: np.random.Generator) -> Found:
    sides = np.tile(found.boxes[:, 2:] - found.boxes[:, :2], (1, 2))
    boxes = found.boxes + amount * sides * rng.standard_normal(found.boxes.shape)
    p = np.clip(found.scores, 1e-6, 1 - 1e-6)
    logits = np.log(p / (1 - p)) + 10 * amount * rng.standard_normal(len(p))
    scores = 1 / (1 + np.exp(-logits))
    order = np.argsort(-scores, kind="stable")
    return Found(boxes[order].astype(np.float32), scores[order].astype(np.float32),
                 found.index[order])  # fmt: skip


def pair(network: Network, lossy: float, number: int) -> dict[str, Any]:
    """One network against its equal, and against one that lost."""
    first, equal, worse = (
        _entry(network.noisy(amount, 3 * number + k), network.task)
        for k, amount in enumerate((EQUAL, EQUAL, lossy))
    )
    found: dict[str, Any] = {"number": number}
    for kind, after in (("equal", equal), ("worse", worse)):
        for limit in LIMITS:
            limits = gate.Limits(slowdown=None, memory_growth=None, accuracy_drop=limit)
            judged = gate.judge([(first, after)], gate.Options(limits), _no_clock)
            (check,) = [c for c in judged[0].checks if c.name == "accuracy"]
            found[f"{kind} {limit:g}"] = check.verdict
        found[f"{kind} lost"] = first.facts["metric"]["value"] - after.facts["metric"]["value"]
    return found


def _entry(score: Score, task: DetectionTask) -> Entry:
    facts = {
        "target": "cpu", "engine": "onnxruntime", "precision": "fp32", "size_bytes": 1,
        "digest": "", "tools": {}, "executed": {}, "task": task.name, "decode": task.described(),
        "metric": {"name": task.metric, "value": score.value, "samples": score.samples,
                   "images": "one"},
    }  # fmt: skip
    return Entry("detector", facts, scored=dict(score.parts), runnable=False)


def _no_clock(*_: Any) -> dict[str, Any]:
    raise AssertionError("latency is not judged here")


def page(data: dict[str, Any]) -> list[str]:
    pairs = data["pairs"]
    rows = []
    for kind in ("equal", "worse"):
        lost = np.array([p[f"{kind} lost"] for p in pairs]) * 100
        for limit in LIMITS:
            said = [p[f"{kind} {limit:g}"] for p in pairs]
            counts = [str(said.count(v)) for v in ("pass", "inconclusive", "regression")]
            rows.append(
                (kind, f"{lost.mean():.2f} ± {lost.std():.2f}", f"{100 * limit:g}", *counts)
            )
    head = ("candidate", "mAP lost, points", "limit", "pass", "inconclusive", "regression")
    return [
        "# The gate on detectors", "",
        f"{len(pairs)} pairs each (`benchmarks/gate_detectors.py`), {data['images']} images: what "
        "a detector found with noise, drawn anew for each network. Equal: both with noise of one "
        "size. Worse: the candidate's noise is larger by what took 1.5 mAP of networks that are "
        "not judged. A "
        "regression is said where the drop is above the limit and the paired bootstrap's p below "
        "0.05; between them the gate says that it cannot tell.", "",
        *table(head, rows),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
