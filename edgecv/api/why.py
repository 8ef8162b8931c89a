"""`edgecv.why`: why a bundle is not faster, or not right, and what its integers cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.api.calling import Progress, StrPath, path_of, public, telling
from edgecv.errors import RecipeError

if TYPE_CHECKING:
    from edgecv.diagnosis.why.findings import Finding

BUNDLE = ".edgecv"


@dataclass(frozen=True)
class Diagnosis:
    """findings: causes, the dearest first, each with what it costs (ms of a call, with a 95%
    interval in bounds) and the change that wins that; noted: what was seen and costs next to
    nothing; call_ms: of the bundle, None where it does not run here (not_run says why);
    rounding: what its integers cost on `images` or `evaluate`, as JSON, or None; data: everything,
    as `edgecv why --json` prints it (docs/why.md)"""

    findings: tuple[Finding, ...]
    noted: tuple[Finding, ...]
    call_ms: float | None
    not_run: str
    rounding: Mapping[str, Any] | None
    data: Mapping[str, Any] = field(repr=False)


@public
def why(
    bundle: StrPath,
    *,
    against: StrPath | None = None,
    images: StrPath | None = None,
    evaluate: str | None = None,
    samples: int | None = None,
    threads: int = 1,
    budget: float = 20.0,
    progress: Progress | None = None,
) -> Diagnosis:
    """Say why a bundle is not faster, or not right, and what mends it.

    bundle:   .edgecv; with images or evaluate also a quantized .onnx file
    against:  what it ought to beat, the fp32 bundle of the same network as a rule; with images or
              evaluate also the float .onnx file
    images:   a folder: say what int8 costs by tensor and mechanism, judged by answers that stay as
              the float network's (minutes); evaluate: the same in the task's metric, on labelled
              images as `edgecv.export` takes them; samples: of them, at most (default 128)
    budget:   seconds for measuring mended graphs
    progress: called as progress(done, total, note)
    Raises RecipeError: what is asked for does not go together; BundleError, DataError,
    UnsupportedError, MissingExtraError, EngineError.
    """
    path, other, seen = Path(bundle), path_of(against), source(path_of(images), evaluate)
    check(path, other, seen, samples, threads)
    if not budget > 0:
        raise RecipeError("--budget", f"is {budget}", "seconds above 0")
    tell, data = telling(progress), dict[str, Any]()
    if path.suffix == BUNDLE:
        data = explained(path, other, threads, budget, tell)
    if seen:
        data["rounding"] = rounding(path, other, seen, samples, tell)
    return Diagnosis(
        tuple(map(_finding, data.get("findings", ()))), tuple(map(_finding, data.get("noted", ()))),
        data.get("call_ms"), data.get("not_run", ""), data.get("rounding"), data,
    )  # fmt: skip


def _finding(row: Mapping[str, Any]) -> Finding:
    from edgecv.diagnosis.why.findings import Finding

    known = {f.name: row[f.name] for f in fields(Finding)}
    bounds = tuple(row["bounds"]) if row["bounds"] else None
    return Finding(**known | {"where": tuple(row["where"]), "bounds": bounds})


def source(images: Path | None, evaluate: str | None) -> str:
    """The images that int8 is judged on, as `edgecv.data` takes them; "" for none.

    Raises RecipeError: both are given.
    """
    if images and evaluate:
        raise RecipeError("--images", "and --evaluate are both given", "give one of them")
    return f"images:{images}" if images else evaluate or ""


def check(bundle: Path, against: Path | None, seen: str, samples: int | None, threads: int) -> None:
    """Raises RecipeError: what is asked for does not go together."""
    if threads < 1:
        raise RecipeError("--threads", f"is {threads}", "at least 1")
    if samples is not None and not 1 <= samples <= 1_000_000:
        raise RecipeError("--samples", f"is {samples}", "at least 1")
    for path in filter(None, (bundle, against)):
        if path.is_dir():
            raise RecipeError(str(path), "is a folder, not a bundle", "give a .edgecv file")
        if not path.exists():
            raise RecipeError(str(path), "no such file", "give a .edgecv file")
    if seen and against is None:
        what = "the float network that int8 is compared with is not given"
        raise RecipeError("--against", what, "its fp32 bundle, or the float .onnx file")
    if samples is not None and not seen:
        raise RecipeError("--samples", "no images are given", "--images or --evaluate")
    for path in filter(None, (bundle, against)):
        if path.suffix not in (BUNDLE, ".onnx"):
            raise RecipeError(str(path), "is not a bundle", "give a .edgecv file")
        if not seen and path.suffix == ".onnx":
            hint = "give a bundle, or --images or --evaluate for what its integers cost"
            raise RecipeError(str(path), "is a file, and a bundle is what is timed", hint)


def explained(
    bundle: Path, against: Path | None, threads: int, budget: float, tell: Callable[..., None]
) -> dict[str, Any]:
    """What `edgecv.diagnosis.why.explain` answers."""
    from edgecv import child
    from edgecv.benchmark.calibration import ONE_THREAD

    rival = against if against and against.suffix == BUNDLE else None
    job = {
        "bundle": str(bundle),
        "against": str(rival) if rival else None,
        "threads": threads,
        "budget_s": budget,
    }
    return child.call("edgecv.diagnosis.why.explain", job, "why", tell, ONE_THREAD)


def rounding(
    network: Path, against: Path | None, seen: str, samples: int | None, tell: Callable[..., None]
) -> dict[str, Any]:
    """What `edgecv.diagnosis.why.rounding.report` answers."""
    from edgecv import child
    from edgecv.benchmark.calibration import ONE_THREAD

    job = {"network": str(network), "against": str(against), "images": seen, "samples": samples}
    return child.call("edgecv.diagnosis.why.rounding.report", job, "why", tell, ONE_THREAD)
