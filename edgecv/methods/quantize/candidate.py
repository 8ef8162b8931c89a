"""One try of a search: a quantized graph, made into a bundle and measured as what ships is.

The float graph is made into a bundle once, as the reference that figures are against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import tasks
from edgecv.bundling.inference import graph_outputs
from edgecv.bundling.task_score import judge_graph
from edgecv.context import Context
from edgecv.fidelity import Parity
from edgecv.graph import Graph
from edgecv.limits import Limits, expected_drop
from edgecv.measuring.facts import BundleFacts
from edgecv.measuring.jobs import TRIAL_PLAN, MeasureJob, PackJob, ProfileJob
from edgecv.methods.quantize.options import Options
from edgecv.runtime.archive import read_bundle

ALPHA = 0.05  # of each end of an interval, as `edgecv gate` judges


@dataclass(frozen=True)
class Judged:
    """A drop on labelled images, in points, with its two-sided interval at 1 - 2 ALPHA."""

    drop: float
    bounds: tuple[float, float]
    images: int

    @staticmethod
    def of(before: Path, after: Path) -> Judged | None:
        """Of two bundles; None where they do not say what each image adds to a metric."""
        one, two = map(read_bundle, (before, after))
        task = tasks.of_manifest(two.manifest)
        if task is None or not one.parts or not two.parts:
            return None
        found = task.difference(one.parts, two.parts, ALPHA)
        low, high = found.bounds
        images = int(two.manifest["metric"]["samples"])
        return Judged(100 * found.drop, (100 * low, 100 * high), images)

    def unsure(self, limit: float) -> bool:
        """Whether a drop of `limit` points lies within the interval."""
        return self.bounds[0] < limit < self.bounds[1]

    def doubt(self, limit: float) -> str:
        """What is said where it does; the interval shrinks with the root of the images."""
        half, apart = (self.bounds[1] - self.bounds[0]) / 2, max(abs(limit - self.drop), 0.1)
        low, high = (f"{v:.1f}" for v in self.bounds)
        return (
            f"{self.images:,} images do not tell a drop of {limit:g} points: it lies between {low} "
            f"and {high}; some {math.ceil(self.images * max(1.0, half / apart) ** 2):,} would"
        )

    def to_json(self) -> dict[str, Any]:
        """Points, rounded."""
        low, high = self.bounds
        return {"drop": round(self.drop, 3), "bounds": [round(low, 3), round(high, 3)],
                "images": self.images}  # fmt: skip


@dataclass
class Trial:
    """A choice of the knobs and what it gave.

    fidelity: against the float graph, on images that were not calibrated on
    figures:  what limits are about (`edgecv.limits`); empty until it was proven
    bundle, ran: what was measured, and whether the target's engine ran it here
    judged:   how sure the drop is, of other tasks than classification
    """

    options: Options
    graph: Graph
    fidelity: Parity
    figures: dict[str, float | None] = field(default_factory=dict)
    bundle: Path | None = None
    ran: bool = False
    judged: Judged | None = None

    @property
    def asked(self) -> float:
        """The task's own fidelity to float, 0..1, on images that were not calibrated on."""
        return float(self.graph.facts["fidelity"]["value"])

    def to_json(self, limits: Limits) -> dict[str, Any]:
        missed = limits.missed(self.figures) if self.figures else None
        return {
            "options": self.options.to_json(),
            "sqnr_db": round(self.fidelity.sqnr_db, 2),
            "agreement": _rounded(self.fidelity.top1_agreement),
            **({"fidelity": _rounded(self.asked)} if "fidelity" in self.graph.facts else {}),
            **({"judged": self.judged.to_json()} if self.judged else {}),
            "figures": {k: self.figures.get(k) for k in limits.asked()} if self.figures else None,
            "met": None if missed is None else not missed,
        }


class Prover:
    """Measures trials against the float graph, on the target's own engine."""

    def __init__(self, source: Graph, context: Context, limits: Limits, room: Path) -> None:
        self.source, self.context, self.limits, self.room = source, context, limits, room
        self._float: BundleFacts | None = None
        self._float_bundle: Path | None = None
        self._count = 0

    def prove(self, trial: Trial) -> dict[str, float | None]:
        """Fill in the trial's figures. Raises EdgecvError where the engine refuses the graph."""
        facts, trial.bundle = self._pack(trial.graph, "int8")
        reference, fp32 = self.reference()
        figures: dict[str, float | None] = {"size_mb": facts.engine_bytes / 1e6}
        kept = facts.parity.get("float") or {"sqnr_db": trial.fidelity.sqnr_db}
        figures["sqnr_db"] = kept["sqnr_db"]
        figures["accuracy_drop"] = _drop(facts, reference, trial.bundle, fp32)
        if not self.context.classifies and facts.metric and reference.metric:
            trial.judged = Judged.of(fp32, trial.bundle)
        if figures["accuracy_drop"] is None and self.limits.accuracy_drop is not None:
            figures["accuracy_drop"] = self._simulated(trial.graph)
        trial.ran = bool(facts.executed and reference.executed and facts.compiled)
        if trial.ran and (self.limits.latency_ms or self.limits.latency_ratio):
            plan = {**TRIAL_PLAN, "threads": self._threads, "seed": self.context.seed}
            job = MeasureJob((fp32, trial.bundle), plan)
            found = self.context.measuring.measure(job, self.context.where)["bundles"][1]
            figures["latency_ms"] = found["latency_ms"]["p50"]
            figures["latency_ratio"] = found["latency_ratio"]
        trial.figures = figures
        return figures

    def reference(self) -> tuple[BundleFacts, Path]:
        """Facts and bundle of the float graph."""
        if self._float is None or self._float_bundle is None:
            self._float, self._float_bundle = self._pack(self.source, "fp32")
        return self._float, self._float_bundle

    def costs(self, trial: Trial) -> dict[str, float]:
        """Milliseconds that each layer costs in float beyond int8, by its name; at least 0."""
        assert trial.bundle is not None
        bundles = (self.reference()[1], trial.bundle)
        job = ProfileJob(bundles, self._threads)
        profiles = self.context.measuring.profile(job, self.context.where)
        floats, integers = (_times(p) for p in profiles)
        return {
            name: max(0.0, ms - integers[name]) for name, ms in floats.items() if name in integers
        }

    def runs(self, trial: Trial) -> bool:
        """Whether the trial was measured on the target's own engine."""
        return trial.bundle is not None and trial.ran

    def _simulated(self, graph: Graph) -> float:
        """The drop on the reference engine: the target's own does not run here."""
        images, context = self.context.images("test"), self.context
        if not context.classifies:
            before, after = (
                judge_graph(str(context.task), g, images, context) for g in (self.source, graph)
            )
            return 100.0 * (before - after)
        outputs = [
            graph_outputs(g, images.samples, context.preprocess) for g in (self.source, graph)
        ]
        if images.classes:
            before, after = ((found.argmax(1) == images.labels).mean() for found in outputs)
            return float(100.0 * (before - after))
        return expected_drop(outputs[1].argmax(1), outputs[0])

    @property
    def _threads(self) -> int:
        assert self.context.target is not None
        return self.context.target.threads

    def _pack(self, graph: Graph, name: str) -> tuple[BundleFacts, Path]:
        self._count += 1
        out = self.room / f"bundle-{self._count}"
        out.mkdir()
        job = PackJob.of(self.context, graph.path.parent, name, out)
        if graph is not self.source:
            job = replace(job, floats=self.source.path.parent)
        facts = self.context.measuring.pack(job, self.context.where)
        return facts, out / facts.bundle


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def _times(profile: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds by layer name; a layer that an engine took apart is summed."""
    found: dict[str, float] = {}
    for layer in profile["layers"]:
        if layer["time_ms"] is not None:
            name = layer["layer"] or layer["name"]
            found[name] = found.get(name, 0.0) + layer["time_ms"]
    return found


def _drop(facts: BundleFacts, reference: BundleFacts, bundle: Path, fp32: Path) -> float | None:
    """Points of the task's metric lost; of classes without labels, as fp32's own probabilities
    expect it."""
    if facts.metric and reference.metric:
        return float(100.0 * (reference.metric["value"] - facts.metric["value"]))
    paths = bundle.parent / "predictions.npy", fp32.parent / "outputs.npy"
    if not all(p.is_file() for p in paths):
        return None
    own, outputs = (np.load(p, allow_pickle=False) for p in paths)
    return expected_drop(own, outputs)
