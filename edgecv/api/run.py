"""`edgecv.run`: a recipe, and its results as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv import source_trust
from edgecv.api.calling import Progress, Steps, StrPath, one_or_several, path_of, public
from edgecv.api.tables import frame
from edgecv.errors import RecipeError

if TYPE_CHECKING:
    from pandas import DataFrame

    from edgecv.limits import Limits
    from edgecv.plan.execute import Outcome, Reporter
    from edgecv.plan.recipe import Recipe, Settings


@dataclass(frozen=True)
class Row:
    """One step for one target.

    bundle:         its file; None where none was made
    metric, value:  what accuracy is called ("top1"), and 0..1 on the test images; reference: of
                    fp32; None without labels
    sqnr_db:        of the outputs against float
    p50_ms, ...:    of a call; latency_ratio: to fp32's in the same interleaved run, with its 95%
                    interval; cpu_time_ratio: likewise of CPU time; None: not measured
    size_bytes:     of the bundle; engine_bytes: of the engine's files in it
    status:         "ok", "unavailable" (reason says what is not here) or "failed" (why)
    """

    step: str
    target: str
    engine: str
    precision: str
    status: str
    reason: str
    bundle: Path | None
    metric: str | None
    value: float | None
    reference: float | None
    sqnr_db: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    latency_ratio: float | None
    latency_ratio_low: float | None
    latency_ratio_high: float | None
    cpu_time_ratio: float | None
    size_bytes: int | None
    engine_bytes: int | None


@dataclass(frozen=True)
class Results:
    """rows: a Row for each step and target; out: the folder that holds bundles/, models/ and
    results.json; report: the HTML page, or None; limits: what each set of limits was met by, in a
    sentence; ok: no row failed and all limits are met; notes: what was taken because the recipe
    does not say it; data: results.json"""

    rows: tuple[Row, ...]
    out: Path
    report: Path | None
    limits: tuple[str, ...]
    ok: bool
    notes: tuple[str, ...]
    data: Mapping[str, Any] = field(repr=False)

    def to_pandas(self) -> DataFrame:
        """A row for each Row. Raises MissingExtraError: pandas is not installed."""
        return frame(self.rows, "Results.to_pandas")


@public
def run(
    recipe: StrPath | Mapping[str, Any] | Recipe,
    *,
    out: StrPath | None = None,
    settings: Mapping[str, Any] | None = None,
    targets: str | Sequence[str] = (),
    accuracy_drop: float | None = None,
    latency_ms: float | None = None,
    latency_ratio: float | None = None,
    size_mb: float | None = None,
    sqnr_db: float | None = None,
    trust: bool = False,
    report: bool = False,
    progress: Progress | None = None,
    jobs: int | None = 1,
) -> Results:
    """Run a recipe: train, compress, compile, measure. What `out` holds of it already is reused,
    and what was interrupted goes on.

    recipe:   a file (or the name of one of edgecv's), what such a file holds as a dict, or a Recipe
              that was checked before
    out:      the folder for results; default runs/<name of the recipe>, of a dict runs/recipe
    settings: instead of what the recipe says: {"prune.ratio": 0.4, "seed": 1}
    targets:  instead of the recipe's
    accuracy_drop, ...: limits of what ships, as `edgecv.export` has them
    trust:    run the code that a Model folder names
    report:   also write report.html
    progress: called as progress(done, total, note), in steps
    jobs:     steps that are done at once, each in a process of its own, measurements alone; None:
              as many as there are cores for
    Raises RecipeError, TargetError: before anything runs; DataError, ModelError, StageError: a
    step that all targets need failed; StoreError. One target's own failure is a row's status.
    """
    from edgecv import limits

    said = {"accuracy_drop": accuracy_drop, "latency_ms": latency_ms, "sqnr_db": sqnr_db,
            "latency_ratio": latency_ratio, "size_mb": size_mb}  # fmt: skip
    given, only = dict(settings or {}), one_or_several(targets)
    checked, source = loaded(recipe, given, only, limits.checked(said))
    folder = path_of(out) or Path("runs") / checked.name
    with source_trust.telling(trust):
        data = made(checked, source, folder, Steps(progress), jobs)[1]
        page = _page(folder) if report else None
    return Results(
        tuple(_row(row, folder) for row in data["results"]), folder, page,
        tuple(limits.sentence(verdict) for verdict in data["limits"]), succeeded(data),
        checked.notes, data,
    )  # fmt: skip


def loaded(
    recipe: StrPath | Mapping[str, Any] | Recipe, settings: Settings,
    targets: Sequence[str], limits: Limits,
) -> tuple[Recipe, dict[str, Any]]:  # fmt: skip
    """The checked recipe, and what results.json keeps of where it came from. Raises RecipeError."""
    from edgecv.plan import recipe as recipes

    if isinstance(recipe, recipes.Recipe):
        if settings or targets or limits:
            what = "is checked already: settings, targets and limits are said when it is loaded"
            raise RecipeError(recipe.name, what, "Recipe.load(path, settings, targets)")
        return recipe, {}
    if isinstance(recipe, Mapping):
        return recipes.of_dict(recipe, settings, targets, limits), {}
    path = recipes.find(Path(recipe))
    source = {"file": path.name, "text": path.read_text(), "only": list(targets)}
    return recipes.load(path, settings, targets, limits), source


def made(
    recipe: Recipe,
    source: dict[str, Any],
    out: Path,
    reporter: Reporter,
    jobs: int | None = 1,
) -> tuple[Outcome, dict[str, Any]]:
    """Run it and write what it made into `out`: also results.json, which comes back."""
    from edgecv.files import check_folder
    from edgecv.plan import pipeline, results

    check_folder(out)
    outcome = pipeline.run(recipe, out, reporter, jobs=jobs)
    pipeline.publish_results(outcome, out)
    data = results.collect(outcome, source)
    results.write(data, out)
    return outcome, data


def succeeded(data: Mapping[str, Any]) -> bool:
    """Whether no row failed, and all limits are met."""
    failed = any(row["status"] == "failed" for row in data["results"])
    return not failed and all(verdict["met"] for verdict in data["limits"])


def _page(out: Path) -> Path:
    from edgecv import report

    with source_trust.own():
        return report.write(out)


def _row(row: Mapping[str, Any], out: Path) -> Row:
    from edgecv.limits import fidelity_of
    from edgecv.text_table import reason

    metric, time = row["metric"] or {}, row["latency_ms"] or {}
    low, high = row.get("latency_ratio_interval") or (None, None)
    return Row(
        **{key: row[key] for key in ("step", "target", "engine", "precision", "status")},
        reason=reason(row, out),
        bundle=out / row["bundle"] if row["bundle"] else None,
        metric=metric.get("name"), value=metric.get("value"), reference=metric.get("reference"),
        sqnr_db=(fidelity_of(row) or {}).get("sqnr_db"),
        p50_ms=time.get("p50"), p90_ms=time.get("p90"), p99_ms=time.get("p99"),
        latency_ratio=row["latency_ratio"], latency_ratio_low=low, latency_ratio_high=high,
        cpu_time_ratio=row["cpu_time_ratio"], size_bytes=row["size_bytes"],
        engine_bytes=row.get("engine_bytes"),
    )  # fmt: skip
