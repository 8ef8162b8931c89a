"""`edgecv.bench`: bundles side by side on the clock, here or on a device."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgecv.api.calling import Progress, StrPath, one_or_several, path_of, public, telling
from edgecv.api.running import Place, Runner, runner
from edgecv.api.tables import frame
from edgecv.errors import RecipeError

if TYPE_CHECKING:
    from pandas import DataFrame

MODULE = "edgecv.benchmark.measure"
SCENARIOS = ("single-stream", "offline")
LEAST = {"threads": 1, "batch": 1, "rounds": 3, "burst_ms": 0.001, "precision": 0.6}


@dataclass(frozen=True)
class Timing:
    """One bundle. Times are milliseconds of a call; ratios are to the reference in the same
    interleaved run, with 95% intervals; busy: others had the processor, and wall time holds them.

    throughput: images a second; memory_mb: of a process that runs it, at the most; size_bytes: of
    the engine's files; None: not known
    """

    bundle: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    cpu_ms: float
    throughput: float
    latency_ratio: float
    latency_ratio_low: float
    latency_ratio_high: float
    cpu_time_ratio: float
    load_ms: float | None
    first_call_ms: float | None
    memory_mb: float | None
    energy_mj: float | None
    size_bytes: int
    busy: bool


@dataclass(frozen=True)
class Benchmark:
    """rows: a Timing for each bundle, the reference first; warnings: what the figures should be
    taken with; data: everything, as `edgecv bench --json` prints it (docs/bench.md)"""

    rows: tuple[Timing, ...]
    warnings: tuple[str, ...]
    data: Mapping[str, Any] = field(repr=False)

    def to_pandas(self) -> DataFrame:
        """A row for each bundle. Raises MissingExtraError: pandas is not installed."""
        return frame(self.rows, "Benchmark.to_pandas")


@public
def bench(
    bundles: StrPath | Sequence[StrPath],
    *,
    against: StrPath | None = None,
    threads: int = 1,
    batch: int | None = None,
    scenario: Literal["single-stream", "offline"] = "single-stream",
    budget: float = 30.0,
    precision: float = 1.0,
    rounds: int = 40,
    burst_ms: float = 5.0,
    seed: int = 0,
    device: str | None = None,
    ssh_config: StrPath | None = None,
    python: str | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure bundles in turns, each in the same round as the others.

    bundles:   .edgecv files; against: what ratios are to (default: the first)
    threads:   of the engine; batch: images in a call (default 1; offline: one a thread)
    budget:    seconds after which it ends, or earlier when the ratios' intervals are within
               `precision` percent; rounds: at the least; burst_ms: one turn in a round
    device:    "ssh://user@host[:port]", or a target profile that names one; python: on the device
    Raises RecipeError: a number out of range; BundleError; MissingExtraError, NoCudaDevice: the
    engine is not here; EngineError; DeviceError, DeviceLostError.
    """
    paths = [Path(b) for b in one_or_several(bundles)]
    place = Place(device, path_of(ssh_config), python, budget)
    plan = {"threads": threads, "scenario": scenario, "batch": batch, "rounds": rounds,
            "precision": precision, "budget_s": budget, "burst_ms": burst_ms,
            "seed": seed}  # fmt: skip
    data = measured(paths, path_of(against), plan, runner(place, telling(progress)))
    return Benchmark(tuple(_timing(row) for row in data["bundles"]), tuple(data["warnings"]), data)


def measured(
    bundles: Sequence[Path], against: Path | None, plan: Mapping[str, Any], run: Runner
) -> dict[str, Any]:
    """What `edgecv.benchmark.measure` answers. plan: its Plan's fields, precision in percent and
    batch None for the least."""
    plan = checked(plan, [*bundles, *([against] if against else [])])
    if not bundles:
        raise RecipeError("bundles", "none is given", "give .edgecv files")
    job = {"bundles": [str(b) for b in ordered(bundles, against)], "plan": plan}
    return run(MODULE, job, "bench")


def ordered(bundles: Sequence[Path], against: Path | None) -> list[Path]:
    """The reference before the others."""
    return [against, *(b for b in bundles if b != against)] if against else list(bundles)


def checked(plan: Mapping[str, Any], bundles: Sequence[Path]) -> dict[str, Any]:
    """The plan as the job has it. Raises RecipeError: a number out of range, a folder."""
    threads, batch = plan["threads"], plan["batch"]
    if plan["scenario"] not in SCENARIOS:
        raise RecipeError("--scenario", f"is {plan['scenario']!r}", " or ".join(SCENARIOS))
    least_batch = max(1, threads) if plan["scenario"] == "offline" else 1
    batch = least_batch if batch is None else batch
    if 0 < batch < least_batch:
        hint = f"--batch {least_batch} or more: offline, every thread has images of its own"
        raise RecipeError("--batch", f"is {batch} for {threads} threads", hint)
    for name, low in LEAST.items():
        given = batch if name == "batch" else plan[name]
        if not low <= given < 1e6:
            raise RecipeError(f"--{name.replace('_', '-')}", f"is {given}", f"at least {low}")
    if not plan["budget_s"] > 0:
        raise RecipeError("--budget", f"is {plan['budget_s']}", "seconds above 0")
    for path in bundles:
        check_is_file(path)
    return {**plan, "batch": batch, "precision": plan["precision"] / 100.0}


def check_is_file(path: Path) -> None:
    """Raises RecipeError: a folder in place of a bundle."""
    if path.is_dir():
        near = difflib.get_close_matches(path.name, [p.name for p in path.glob("**/*.edgecv")], 1)
        hint = f"it holds {near[0]}" if near else "give .edgecv files"
        raise RecipeError(str(path), "is a folder, not a bundle", hint)


def _timing(row: Mapping[str, Any]) -> Timing:
    low, high = row["latency_ratio_interval"]
    time = row["latency_ms"]
    return Timing(
        bundle=row["bundle"], p50_ms=time["p50"], p90_ms=time["p90"], p99_ms=time["p99"],
        mean_ms=time["mean"], cpu_ms=row["cpu_ms"], throughput=row["throughput"],
        latency_ratio=row["latency_ratio"], latency_ratio_low=low, latency_ratio_high=high,
        cpu_time_ratio=row["cpu_time_ratio"], load_ms=row.get("load_ms"),
        first_call_ms=row.get("first_call_ms"), memory_mb=(row.get("memory_mb") or {}).get("peak"),
        energy_mj=row.get("energy_mj"), size_bytes=row["size_bytes"], busy=row["busy"],
    )  # fmt: skip
