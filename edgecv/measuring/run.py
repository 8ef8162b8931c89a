"""Jobs, done: each in a process of its own, here (`away.py`: on the device that a target names).

The one place that says which module does which job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgecv import child, source_trust
from edgecv.benchmark.calibration import ONE_THREAD
from edgecv.benchmark.machine import processor
from edgecv.files import digest
from edgecv.keys.closure import code
from edgecv.measuring.facts import BundleFacts
from edgecv.measuring.jobs import Job, LayersJob, MeasureJob, PackJob, ProfileJob, RowsJob, Times

MODULES: dict[type[Job], str] = {
    PackJob: "edgecv.bundling.build",
    MeasureJob: "edgecv.benchmark.measure",
    ProfileJob: "edgecv.benchmark.profile",
    LayersJob: "edgecv.measuring.layer_times",
    RowsJob: "edgecv.measuring.row_times",
}

Progress = Callable[..., None]


@dataclass(frozen=True)
class Measuring:
    """Does jobs on this machine. Every method raises EdgecvError as the job's module does."""

    def pack(self, job: PackJob, where: str) -> BundleFacts:
        """Make a bundle. where: what an error names"""
        answer = child.call(MODULES[PackJob], job.to_json(), where, None, source_trust.passed())
        return BundleFacts.from_json(answer)

    def measure(
        self, job: MeasureJob, where: str, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Latencies of bundles, as docs/bench.md describes them."""
        return self._timed(job, where, progress)

    def profile(
        self, job: ProfileJob, where: str, progress: Progress | None = None
    ) -> list[dict[str, Any]]:
        """Every bundle's layers (`edgecv.benchmark.profile.profile`)."""
        return list(self._timed(job, where, progress)["profiles"])

    def layers(self, job: LayersJob, where: str) -> list[list[float]]:
        """Milliseconds, in the order of the job's lines."""
        return [list(map(float, line)) for line in self._timed(job, where, None)["lines"]]

    def rows(self, job: RowsJob, where: str, progress: Progress | None = None) -> dict[str, Times]:
        """By layer."""
        found = self._timed(job, where, progress)["layers"]
        return {
            name: Times(t["ms"], tuple(t["ratios"]), tuple(t["highs"]), t["refusal"])
            for name, t in found.items()
        }

    def layers_digest(self, engine: str, threads: int, integer: bool) -> str:
        """Of what the times of a LayersJob hang on besides its layers."""
        made = code((MODULES[LayersJob],), (engine,))
        return digest([engine, threads, integer, processor(threads), made])

    def _timed(self, job: Job, where: str, progress: Progress | None) -> dict[str, Any]:
        return child.call(MODULES[type(job)], job.to_json(), where, progress, environment())


def environment() -> Mapping[str, str]:
    """What a process that measures gets besides its own."""
    return {**ONE_THREAD, **source_trust.passed()}
