"""Jobs, done on the device that a target's profile names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgecv import device
from edgecv.measuring.jobs import Job, MeasureJob, ProfileJob
from edgecv.measuring.run import MODULES, Measuring, Progress, environment
from edgecv.target import Target


@dataclass(frozen=True)
class Away(Measuring):
    """Measures bundles on the device that a target's profile names. timeout_s: of one job"""

    target: Target
    timeout_s: float

    def _timed(self, job: Job, where: str, progress: Progress | None) -> dict[str, Any]:
        assert isinstance(job, MeasureJob | ProfileJob)
        files, names = device.carry(job.bundles)
        return device.call(
            device.parse(self.target.device or ""), MODULES[type(job)],
            {**job.to_json(), "bundles": names}, files, where, python=self.target.device_python,
            progress=progress, environment=environment(), timeout_s=self.timeout_s,
        )  # fmt: skip
