"""`edgecv.parity`: a bundle beside what it was made from, step by step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecv import source_trust
from edgecv.api.bench import check_is_file
from edgecv.api.calling import Progress, StrPath, path_of, public, telling
from edgecv.api.running import Place, runner
from edgecv.errors import RecipeError


@dataclass(frozen=True)
class Rung:
    """What one step changed: outputs of `after` against those of `before`, on the same images.

    sqnr_db: signal to quantization noise, the worst output's; cosine: -1..1; top1_agreement: the
    share of equal best classes, None where there are none; agrees: within the step's tolerance;
    cause: the likely one where it does not, else ""
    """

    step: str
    before: str
    after: str
    sqnr_db: float
    cosine: float
    top1_agreement: float | None
    agrees: bool
    cause: str


@dataclass(frozen=True)
class Parity:
    """agrees: every step is within its tolerance; first: the step that is not; rows: the steps;
    samples: images; data: everything, as `edgecv parity --json` prints it (docs/parity.md)

    Truthy where it agrees.
    """

    agrees: bool
    rows: tuple[Rung, ...]
    samples: int
    data: Mapping[str, Any] = field(repr=False)

    def __bool__(self) -> bool:
        return self.agrees

    @property
    def first(self) -> Rung | None:
        """The first step that changed more than it may."""
        return next((row for row in self.rows if not row.agrees), None)


@public
def parity(
    bundle: StrPath,
    *,
    against: StrPath | None = None,
    images: StrPath | None = None,
    samples: int | None = None,
    trust: bool = False,
    device: str | None = None,
    ssh_config: StrPath | None = None,
    python: str | None = None,
    progress: Progress | None = None,
) -> Parity:
    """Compare a bundle with what it was made from, and name the first step that differs.

    against: a Model folder, an .onnx or .tflite file, or another bundle (default: what the run made
             the bundle from)
    images:  a folder (default: the run's test data, else the bundle's golden inputs); sub-folders
             named as labels give top-1; samples: of them, at most (default 128)
    trust:   run the code that a Model folder names
    device, ssh_config, python, progress: as `edgecv.bench`; the device adds the last step
    Raises RecipeError: a number out of range, a folder; BundleError; ModelError: different
    networks; TrustError; MissingExtraError; DeviceError, DeviceLostError.
    """
    place = Place(device, path_of(ssh_config), python)
    with source_trust.telling(trust):
        data = compared(Path(bundle), path_of(against), path_of(images), samples, place,
                        telling(progress))  # fmt: skip
    return Parity(data["agrees"], tuple(map(_rung, data["rungs"])), data["samples"], data)


def _rung(row: Mapping[str, Any]) -> Rung:
    found, finding = row["parity"], row["finding"] or {}
    cause = "" if row["agrees"] else finding.get("cause", "beyond its tolerance")
    return Rung(row["step"], row["from"], row["to"], found["sqnr_db"], found["cosine"],
                found["top1_agreement"], row["agrees"], cause)  # fmt: skip


def compared(
    bundle: Path, against: Path | None, images: Path | None, samples: int | None, place: Place,
    tell: Callable[..., None],
) -> dict[str, Any]:  # fmt: skip
    """What `edgecv.diagnosis.parity.compare` answers, with the device's rung where there is one."""
    from edgecv import child
    from edgecv.benchmark.calibration import ONE_THREAD

    if samples is not None and not 1 <= samples <= 1_000_000:
        raise RecipeError("--samples", f"is {samples}", "at least 1")
    check_is_file(bundle)
    job: dict[str, Any] = {
        "bundle": str(bundle),
        "against": str(against) if against else None,
        "images": str(images) if images else None,
        "samples": samples,
    }
    with tempfile.TemporaryDirectory(prefix="edgecv-parity-") as room:
        if place.device:
            job["send"] = str(Path(room) / "sent.edgecv")
        data = child.call("edgecv.diagnosis.parity.compare", job, "parity", tell, ONE_THREAD)
        if place.device:
            _on_device(place, tell, job["send"], data)
    del data["sent"]
    return data


def _on_device(place: Place, tell: Callable[..., None], bundle: str, data: dict[str, Any]) -> None:
    """Add the last rung: the same images through the bundle on the device."""
    import numpy as np

    from edgecv.diagnosis.parity import tolerances
    from edgecv.diagnosis.parity.distance import outputs
    from edgecv.diagnosis.parity.report_rows import rung

    here = np.array(data["sent"], np.float32)
    run = runner(place, tell)
    there = run("edgecv.diagnosis.parity.replayed", {"bundle": bundle}, "parity")
    found = outputs(here, np.array(there["outputs"], np.float32))
    last = data["rungs"][-1]["to"]
    limit = tolerances.COMPILE["int8" if data["layers"] else "fp32"]
    finding = None
    if not tolerances.holds(found, limit):
        cause = "the device's engine computes otherwise: compare its version and CPU with these"
        finding = {"kind": "device", "layer": None, "cause": cause}
    made = rung("device", last, str(place.device), found, limit, finding)
    data["rungs"].append(made)
    data["agrees"] = data["agrees"] and made["agrees"]
