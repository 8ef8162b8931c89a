"""`edgecv gate`: is the candidate worse than the baseline by more than is allowed?

    latency    bounds of the ratio of interleaved rounds, or through the calibration workload
               (`edgecv.benchmark.sequential_test`)
    accuracy   drop of the task's metric beyond the limit, and its own one-sided test on the same
               images (McNemar's exact one of top-1, a paired bootstrap elsewhere) says that it is
               no chance (p < 0.05)
    fidelity   without labels: dB that the worst output lost against float, up to EXACT_DB
    size       bytes of the engine's files; exact
    memory     the most that a fresh process held; measured again before it is called a regression

Verdicts are "pass", "regression", "inconclusive" (with the reason and what would settle it) and
"skipped" (not judged, with the reason). The whole is a regression when anything is, else
inconclusive when anything is, or when nothing could be judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import tasks
from edgecv.benchmark.baseline import Baseline, Entry, Timing, alike, workloads_differ
from edgecv.benchmark.sequential_test import ALPHA, INCONCLUSIVE, PASS, REGRESSION, against_stored
from edgecv.errors import (
    BundleError,
    EdgecvError,
    EngineError,
    MissingExtraError,
    NoCudaDevice,
)

SKIPPED = "skipped"
EXACT_DB = 60.0  # beyond it lie roundings of float kernels alone
SAME = f"above {EXACT_DB:.0f} dB counts as the same"
BUSY = (
    "others had the processor while it was measured, so that figures of another day do not compare"
)
CALM = "a calmer machine, or the baseline's own bundle: both are then measured in turns"
EXIT_CODES = {PASS: 0, REGRESSION: 1, INCONCLUSIVE: 4}
# The verdict of several: the first of these that occurs.
GRAVEST = (REGRESSION, INCONCLUSIVE, PASS)
NOT_HERE = (MissingExtraError, NoCudaDevice)
Runner = Callable[[str, dict[str, Any], str], dict[str, Any]]


@dataclass(frozen=True)
class Limits:
    """What a candidate may be worse by; None switches a check off.

    slowdown, size_growth, memory_growth: relative, 0.05 is 5%. accuracy_drop: 0.005 is half a
    point. sqnr_drop: dB
    """

    slowdown: float | None = 0.05
    accuracy_drop: float | None = 0.005
    size_growth: float | None = 0.02
    memory_growth: float | None = 0.10
    sqnr_drop: float | None = 1.0


@dataclass(frozen=True)
class Check:
    """One thing judged of one bundle. baseline, candidate: in the unit that `unit` names."""

    name: str
    verdict: str
    baseline: float | None = None
    candidate: float | None = None
    unit: str = ""
    change: float | None = None
    bounds: tuple[float, float] | None = None
    limit: float | None = None
    floor: float | None = None
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Judged:
    """A pair of bundles with its checks; measured is what the clock answered, whole."""

    name: str
    checks: tuple[Check, ...]
    measured: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        return overall(c.verdict for c in self.checks)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "verdict": self.verdict, "notes": list(self.notes),
            "checks": [asdict(c) for c in self.checks], "measured": self.measured,
        }  # fmt: skip


def overall(verdicts: Any) -> str:
    """The gravest of several verdicts; inconclusive when nothing was judged."""
    found = set(verdicts)
    return next((v for v in GRAVEST if v in found), INCONCLUSIVE)


@dataclass(frozen=True)
class Options:
    """How the clock judges. alpha is shared between all bundles judged together."""

    limits: Limits = Limits()
    threads: int = 1
    budget_s: float = 30.0
    alpha: float = ALPHA
    seed: int = 0


def pairs(
    baseline: Sequence[Entry], candidate: Sequence[Entry]
) -> list[tuple[Entry | None, Entry | None]]:
    """Who is compared with whom: by name; a lone baseline of another name with every candidate."""
    before = {e.name: e for e in baseline}
    after = {e.name: e for e in candidate}
    if len(baseline) == 1 and (len(candidate) == 1 or baseline[0].name not in after):
        return [(baseline[0], entry) for entry in candidate]
    if len(candidate) == 1 and candidate[0].name in before:
        return [(before[candidate[0].name], candidate[0])]
    return [(before.get(n), after.get(n)) for n in dict.fromkeys([*before, *after])]


def judge(
    found: Sequence[tuple[Entry | None, Entry | None]], options: Options, run: Runner
) -> list[Judged]:
    """Judge every pair. run: calls a child module with a job, here or on a device."""
    clocked = sum(1 for a, b in found if a and b and (b.runnable if b.bundle else b.timings))
    told = sum(1 for a, b in found if a and b and a.parts and b.parts)
    answers = replace(options, alpha=options.alpha / max(1, told))
    options = replace(options, alpha=options.alpha / max(1, clocked))
    return [_judge(before, after, options, answers, run) for before, after in found]


def _judge(
    before: Entry | None, after: Entry | None, options: Options, answers: Options, run: Runner
) -> Judged:
    """answers: the options for accuracy, whose error level is shared among other pairs."""
    if before is None:
        assert after is not None
        new = Check("latency", SKIPPED, reason="not in the baseline", hint="--update keeps it")
        return Judged(after.name, (new,))
    if after is None:
        gone = "is in the baseline and not in the candidate"
        return Judged(before.name, (Check("latency", INCONCLUSIVE, reason=gone, hint="--update"),))
    if after.problem and after.bundle is None:
        return Judged(after.name, (Check("build", REGRESSION, reason=after.problem),))
    measured: dict[str, Any] | None = None
    latency = []
    if options.limits.slowdown is not None:
        check, measured = _latency(before, after, options, run)
        latency = [check]
    checks = [
        *latency,
        *_accuracy(before, after, answers),
        *_fidelity(before, after, options),
        *_size(before, after, options),
        *_memory(before, after, measured, options, run),
    ]
    return Judged(after.name, tuple(checks), measured, tuple(_notes(before, after, measured)))


# latency


def _latency(
    before: Entry, after: Entry, options: Options, run: Runner
) -> tuple[Check, dict[str, Any] | None]:
    limit = options.limits.slowdown
    assert limit is not None
    blank = Check("latency", SKIPPED, limit=limit, unit="ms")
    if after.bundle is None or not after.runnable:
        return _figures_alone(before, after, options, blank), None
    job = job_for(after.bundle, options)
    side_by_side = before.bundle is not None and before.runnable
    if side_by_side:
        job["baseline"] = str(before.bundle)
    else:
        job["wanted"] = min((t.calibrated[1] for t in before.timings if t.calibrated), default=None)
    try:
        measured = run("edgecv.benchmark.sequential_test", job, after.name)
    except NOT_HERE as e:
        return replace(blank, reason=e.what, hint=e.hint), None
    except EngineError as e:  # of either; the other pairs have their verdicts all the same
        hint = "edgecv verify tells which of the two does not run"
        return replace(blank, verdict=INCONCLUSIVE, reason=str(e), hint=hint), None
    now = measured["candidate"]["latency_ms"]["p50"]
    if side_by_side:
        found, then = measured, measured["baseline"]["latency_ms"]["p50"]
    else:
        stored, problem = _comparable(before, options, measured)
        if stored is None or stored.calibrated is None:
            hint = "gate on the baseline's own bundle, or --update the baseline on this machine"
            return replace(blank, verdict=INCONCLUSIVE, reason=problem, hint=hint), measured
        if measured["candidate"]["busy"]:
            # Caches that others fill cost the network more than they cost the workload.
            return replace(blank, verdict=INCONCLUSIVE, reason=BUSY, hint=CALM), measured
        ratio = measured["calibrated"]["log_ratio"], measured["calibrated"]["error"]
        found = asdict(against_stored(ratio, stored.calibrated, limit, options.alpha))
        then = stored.latency_ms
    return replace(
        blank,
        verdict=found["verdict"],
        baseline=then,
        candidate=now,
        change=found["ratio"] - 1.0,
        bounds=(found["bounds"][0] - 1.0, found["bounds"][1] - 1.0),
        floor=found["floor"],
        reason=found["reason"],
        hint=found["hint"],
    ), measured


def job_for(bundle: Path, options: Options) -> dict[str, Any]:
    """A job of `benchmark.sequential_test` with the bundle as candidate and no baseline yet."""
    return {
        "candidate": str(bundle),
        "baseline": None,
        "wanted": None,
        "limit": options.limits.slowdown,
        "alpha": options.alpha,
        "budget_s": options.budget_s,
        "threads": options.threads,
        "seed": options.seed,
        "starts": options.limits.memory_growth is not None,
    }


def _comparable(
    before: Entry, options: Options, measured: dict[str, Any]
) -> tuple[Timing | None, str]:
    """The stored figures of a machine like the one that measured, or why there are none."""
    here, now = measured["machine"], measured["calibration"]
    timings = [t for t in before.timings if t.calibrated and t.threads == options.threads]
    if not timings:
        kept = before.facts.get("no_latency")
        why = f": when it was made, {kept}" if kept else ""
        return None, f"the baseline has no latency with {options.threads} thread(s){why}"
    like = [t for t in timings if alike(t.machine, here)]
    if not like:
        there = timings[0].machine
        what = f"the baseline was measured on {there.get('cpu')}, and this is {here['cpu']}"
        if there.get("cpu") == here["cpu"]:
            differing = sorted(set(there.get("features") or ()) ^ set(here["features"]))
            what = f"same processor name, other instruction sets: {', '.join(differing)}"
        return None, f"{what}: too unlike to compare through a calibration workload"
    differ = workloads_differ(like[0].calibration, now)
    return (None, differ) if differ else (like[0], "")


def _figures_alone(before: Entry, after: Entry, options: Options, blank: Check) -> Check:
    """No bundle to run: two sets of figures, if both are there."""
    if after.bundle is not None:
        reason = after.problem or "its engine does not run here"
        return replace(blank, reason=f"not run here: {reason}")
    new = [t for t in after.timings if t.calibrated and t.threads == options.threads]
    for now in new:
        for then in before.timings:
            same = then.threads == now.threads and alike(then.machine, now.machine)
            differ = workloads_differ(then.calibration, now.calibration)
            if then.calibrated and same and not differ:
                assert now.calibrated is not None
                found = against_stored(
                    now.calibrated, then.calibrated, blank.limit or 0.0, options.alpha
                )
                return replace(
                    blank, verdict=found.verdict, baseline=then.latency_ms,
                    candidate=now.latency_ms, change=found.ratio - 1.0,
                    bounds=(found.bounds[0] - 1.0, found.bounds[1] - 1.0), floor=found.floor,
                    reason=found.reason, hint=found.hint,
                )  # fmt: skip
    return replace(blank, reason="no bundle to measure, and no figures of one kind of machine")


# accuracy, size, memory


def _accuracy(before: Entry, after: Entry, options: Options) -> list[Check]:
    limit = options.limits.accuracy_drop
    if limit is None:
        return []
    a, b = before.metric, after.metric
    unit = tasks.called((a or b or {}).get("name", "top1"))
    blank = Check("accuracy", SKIPPED, limit=limit, unit=unit)
    if not a or not b:
        return [replace(blank, reason="a bundle without a measured accuracy")]
    blank = replace(blank, baseline=a["value"], candidate=b["value"])
    names = [m.get("name", "top1") for m in (a, b)]
    if names[0] != names[1]:
        what = " and the other by ".join(map(tasks.called, names))
        return [replace(blank, verdict=INCONCLUSIVE, reason=f"one is judged by {what}",
                        hint="compare networks of one task")]  # fmt: skip
    if a.get("images") != b.get("images"):
        return [replace(blank, verdict=INCONCLUSIVE, reason="measured on different test images",
                        hint="run both recipes on the same data")]  # fmt: skip
    was, now = before.parts, after.parts
    if not was or not now:
        change = b["value"] - a["value"]
        if -change <= limit:
            return [replace(blank, verdict=PASS, change=change)]
        return [replace(blank, verdict=INCONCLUSIVE, change=change,
                        reason="which images were right is not known, so chance cannot be told",
                        hint="make both bundles again with this edgecv")]  # fmt: skip
    if before.correct is not None and not len(before.correct):
        return [replace(blank, reason="no test images")]
    try:
        found = before.task.difference(was, now, options.alpha)
    except ValueError as e:
        return [replace(blank, verdict=INCONCLUSIVE, reason=str(e),
                        hint="run both recipes on the same data")]  # fmt: skip
    low, high = found.bounds
    blank = replace(blank, change=-found.drop, bounds=(-high, -low))
    if found.drop <= limit:
        return [replace(blank, verdict=PASS, reason=found.summary)]
    if found.p < options.alpha:
        return [replace(blank, verdict=REGRESSION, reason=found.summary)]
    return [replace(blank, verdict=INCONCLUSIVE, reason=f"{found.summary}: it may be chance",
                    hint=f"some {found.enough:,} test images would tell")]  # fmt: skip


def _fidelity(before: Entry, after: Entry, options: Options) -> list[Check]:
    """Of bundles whose answers nobody knows to be right: how far they are from float."""
    limit = options.limits.sqnr_drop
    a, b = before.facts.get("sqnr_db"), after.facts.get("sqnr_db")
    if limit is None or (a is None and b is None):
        return []
    blank = Check("fidelity", SKIPPED, a, b, "dB", limit=limit)
    if a is None or b is None:
        return [replace(blank, reason="how far one of them is from float is not known")]
    change, counted = b - a, min(b, EXACT_DB) - min(a, EXACT_DB)
    reason = "" if change == counted else f"judged as {counted:+.1f} dB: {SAME}"
    verdict = REGRESSION if -counted > limit else PASS
    return [replace(blank, verdict=verdict, change=change, reason=reason)]


def _size(before: Entry, after: Entry, options: Options) -> list[Check]:
    limit = options.limits.size_growth
    if limit is None:
        return []
    a, b = before.facts.get("size_bytes"), after.facts.get("size_bytes")
    blank = Check("size", SKIPPED, a, b, "bytes", limit=limit)
    if not a or not b:
        return [replace(blank, reason="a bundle of unknown size")]
    verdict = REGRESSION if b > a * (1.0 + limit) else PASS
    return [replace(blank, verdict=verdict, change=b / a - 1.0)]


def _memory(
    before: Entry, after: Entry, measured: dict[str, Any] | None, options: Options, run: Runner
) -> list[Check]:
    limit = options.limits.memory_growth
    if limit is None:
        return []
    blank = Check("memory", SKIPPED, unit="MB", limit=limit)
    b = _peak((measured or {}).get("candidate"))
    a = _peak((measured or {}).get("baseline"))
    if a is None and measured is not None and "calibration" in measured:
        stored, problem = _comparable(before, options, measured)
        if stored is None:
            return [replace(blank, candidate=b, reason=problem)]
        a = stored.memory_mb
    if options.limits.slowdown is None and before.runnable and after.runnable:
        try:
            a, b = (_median(_again(e.bundle, options, run)) for e in (before, after))
        except (*NOT_HERE, EngineError) as e:
            return [replace(blank, reason=e.what, hint=e.hint)]
    if a is None or b is None:
        return [replace(blank, baseline=a, candidate=b, reason="not measured")]
    if b > a * (1.0 + limit) and after.bundle:  # once more before it is said
        again = [_again(e.bundle, options, run) for e in (before, after)]
        a, b = float(np.median([a, *again[0]])), float(np.median([b, *again[1]]))
    verdict = REGRESSION if b > a * (1.0 + limit) else PASS
    return [replace(blank, verdict=verdict, baseline=a, candidate=b, change=b / a - 1.0)]


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _again(bundle: Path | None, options: Options, run: Runner) -> list[float]:
    """Two more peaks; none where there is no bundle to start."""
    if bundle is None:
        return []
    job = {"bundle": str(bundle), "threads": options.threads}
    found = [_peak(run("edgecv.benchmark.startup", job, bundle.name)) for _ in range(2)]
    return [v for v in found if v is not None]


def _peak(facts: dict[str, Any] | None) -> float | None:
    return ((facts or {}).get("memory_mb") or {}).get("peak")


def _notes(before: Entry, after: Entry, measured: dict[str, Any] | None) -> list[str]:
    """What a reader of the verdict should know besides."""
    found = list((measured or {}).get("warnings") or ())
    for key in ("target", "engine", "precision"):
        if before.facts.get(key) != after.facts.get(key):
            found.append(f"{key}: {before.facts.get(key)} before, {after.facts.get(key)} now")
    a, b = before.facts.get("executed"), after.facts.get("executed")
    if a and b and a != b:
        found.append(f"layers by the precision they ran in: {_layers(a)} before, {_layers(b)} now")
    tools = before.facts.get("tools") or {}
    for name, version in (after.facts.get("tools") or {}).items():
        if name in tools and tools[name] != version:
            found.append(f"{name} {tools[name]} before, {version} now")
    if (measured or {}).get("candidate", {}).get("busy"):
        found.append("the machine was busy: wall time was well above CPU time")
    return found


def _layers(executed: dict[str, int]) -> str:
    return ", ".join(f"{n} {p}" for p, n in sorted(executed.items()))


def update(
    path: Path, candidates: Sequence[Entry], options: Options, run: Runner, whole: bool = False
) -> list[tuple[str, dict[str, Any] | None, str]]:
    """Measure the candidates beside the calibration workload and write (or extend) a baseline.

    whole: the candidates are all there is (those of a run): other bundles leave the file
    Returns (name, what was measured or None, why it was not kept) for each; what stands of an
    earlier update is in the last. Raises what measuring raises; the file is then as it was.
    """
    baseline = Baseline.read(path)
    lines: list[tuple[str, dict[str, Any] | None, str]] = []
    for entry in candidates:
        if entry.bundle is None:
            raise BundleError(entry.name, "is not beside its results file", "keep bundles/ with it")
        timing, measured, why = None, None, f"no latency: {entry.problem}"
        if entry.runnable:
            try:
                measured = run(
                    "edgecv.benchmark.sequential_test", job_for(entry.bundle, options), entry.name
                )
                timing, why = _timing(measured, options), ""
                if measured["candidate"]["busy"]:
                    timing, why = replace(timing, calibrated=None), BUSY
            except NOT_HERE as e:
                why = f"no latency: {e}"
        older = baseline.put(entry, timing, why.removeprefix("no latency: "))
        if why and older:
            why += f"; an older figure of digest {older['digest'][:12]} stands"
        lines.append((entry.name, measured, why))
    if not lines:
        raise EdgecvError(str(path), "nothing to keep")
    if whole:
        gone = baseline.keep({entry.name for entry in candidates})
        lines += [(name, None, "is no longer in the run: removed") for name in gone]
    baseline.write(path)
    return lines


def _timing(measured: dict[str, Any], options: Options) -> Timing:
    found = measured["calibrated"]
    return Timing(
        measured["machine"], options.threads, measured["calibration"],
        (found["log_ratio"], found["error"]), measured["candidate"]["latency_ms"]["p50"],
        _peak(measured["candidate"]),
    )  # fmt: skip
