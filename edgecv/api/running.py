"""Where what is measured runs: in a process of its own here, or on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Keys of a job that hold paths of files which a device needs.
FILES = ("bundles", "baseline", "candidate", "bundle")
Runner = Callable[[str, dict[str, Any], str], dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """device: "ssh://user@host[:port]", or a target profile that names one; None: this machine.
    ssh_config: instead of ~/.ssh/config; python: on the device; budget_s: what is spent there"""

    device: str | None = None
    ssh_config: Path | None = None
    python: str | None = None
    budget_s: float = 0.0


def runner(place: Place, progress: Callable[..., None]) -> Runner:
    """run(module, job, where): the answer of an edgecv module with that job."""
    from edgecv import child
    from edgecv.benchmark.calibration import ONE_THREAD

    if not place.device:
        return lambda module, job, where: child.call(module, job, where, progress, ONE_THREAD)
    from edgecv import device, source_trust

    address, python = device.resolve(place.device)

    def run(module: str, job: dict[str, Any], where: str) -> dict[str, Any]:
        paths = [Path(p) for key in FILES if job.get(key) for p in _listed(job[key])]
        files, names = device.carry(paths)
        there = dict(zip(paths, names, strict=True))
        sent = {
            key: _placed(value, there) if key in FILES and value else value
            for key, value in job.items()
        }
        return device.call(
            address, module, sent, files, where, python=place.python or python,
            ssh_config=place.ssh_config, progress=progress,
            environment={**ONE_THREAD, **source_trust.passed()},
            timeout_s=3600.0 + place.budget_s,
        )  # fmt: skip

    return run


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _placed(value: Any, there: dict[Path, str]) -> Any:
    if isinstance(value, list):
        return [there[Path(v)] for v in value]
    return there[Path(value)]
