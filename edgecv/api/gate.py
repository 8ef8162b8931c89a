"""`edgecv.gate`: is a candidate worse than a baseline by more than is allowed?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgecv.api.calling import Progress, StrPath, path_of, public, telling
from edgecv.api.running import Place, Runner, runner
from edgecv.errors import RecipeError

if TYPE_CHECKING:
    from edgecv.benchmark.gate import Judged, Limits

Word = Literal["pass", "regression", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """verdict: of all pairs together, the gravest; pairs: each with its own and its checks (name,
    verdict, baseline, candidate, unit, change, bounds, limit, reason, hint); exit_code: 0, 1 or 4,
    for CI; data: everything, as `edgecv gate --json` prints it

    Truthy where it is a pass.
    """

    verdict: Word
    pairs: tuple[Judged, ...]
    exit_code: int
    data: Mapping[str, Any] = field(repr=False)

    def __bool__(self) -> bool:
        return self.verdict == "pass"


@public
def gate(
    baseline: StrPath,
    candidate: StrPath,
    *,
    max_slowdown: float | None = 5.0,
    max_accuracy_drop: float | None = 0.5,
    max_sqnr_drop: float | None = 1.0,
    max_size_growth: float | None = 2.0,
    max_memory_growth: float | None = 10.0,
    budget: float = 30.0,
    threads: int = 1,
    seed: int = 0,
    device: str | None = None,
    ssh_config: StrPath | None = None,
    python: str | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Judge a candidate against a baseline; each a bundle, a run's folder, its results.json or a
    baseline file (`edgecv gate FILE CANDIDATE --update` writes one).

    max_slowdown, max_size_growth, max_memory_growth: percent; max_accuracy_drop: points of the
    task's metric; max_sqnr_drop: dB of the worst output, without labels; None: not judged
    budget: seconds to measure one pair for, at the most
    device, ssh_config, python, progress: as `edgecv.bench`
    Raises RecipeError: a number out of range, nothing to judge, no such baseline; BundleError;
    DeviceError, DeviceLostError. What cannot run here is a check with its reason, no error.
    """
    from edgecv.benchmark import gate as judging

    limits = judging.Limits(
        _share("--max-slowdown", max_slowdown), _share("--max-accuracy-drop", max_accuracy_drop),
        _share("--max-size-growth", max_size_growth),
        _share("--max-memory-growth", max_memory_growth),
        _amount("--max-sqnr-drop", max_sqnr_drop),
    )  # fmt: skip
    settings = options(limits, threads, budget, seed)
    place = Place(device, path_of(ssh_config), python, budget)
    run = runner(place, telling(progress))
    judged = judge(Path(baseline), Path(candidate), settings, run, device is not None)
    data = data_of(judged)
    verdict: Word = data["verdict"]
    return Verdict(verdict, tuple(judged), judging.EXIT_CODES[verdict], data)


def options(limits: Limits, threads: int, budget: float, seed: int) -> Any:
    """How the clock judges. Raises RecipeError: nothing to judge, a number out of range."""
    from edgecv.benchmark import gate as judging

    if limits == judging.Limits(None, None, None, None, None):
        raise RecipeError("--max-...", "every check is none: nothing to judge", "leave one on")
    if threads < 1:
        raise RecipeError("--threads", f"is {threads}", "at least 1")
    if not budget > 0:
        raise RecipeError("--budget", f"is {budget}", "seconds above 0")
    return judging.Options(limits, threads, budget, seed=seed)


def judge(baseline: Path, candidate: Path, settings: Any, run: Runner, away: bool) -> list[Judged]:
    """Every pair, judged. away: on a device. Raises RecipeError: there is no baseline."""
    from edgecv.benchmark import baseline as stored
    from edgecv.benchmark import gate as judging

    candidates = stored.load(candidate, away)
    if not baseline.exists():
        raise RecipeError(str(baseline), "there is no baseline yet", how(baseline, candidate))
    found = judging.pairs(stored.load(baseline, away), candidates)
    return judging.judge(found, settings, run)


def how(baseline: Path, candidate: Path) -> str:
    """The command that makes the baseline that is missing."""
    name = baseline if baseline.suffix == ".json" else "baseline.json"
    return f"make one: edgecv gate {name} {candidate} --update"


def data_of(judged: list[Judged]) -> dict[str, Any]:
    """Plain JSON of all."""
    from edgecv.benchmark import gate as judging

    verdict = judging.overall(j.verdict for j in judged)
    return {"schema": 1, "verdict": verdict, "pairs": [j.to_json() for j in judged]}


def _share(option: str, value: float | None) -> float | None:
    """Percent or points as a share."""
    amount = _amount(option, value)
    return None if amount is None else amount / 100.0


def _amount(option: str, value: float | None) -> float | None:
    if value is None or 0 <= value < 1e9:
        return value
    raise RecipeError(option, f"is {value}", "a number from 0, or None")
