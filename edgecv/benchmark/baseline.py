"""What a gate compares: bundles to be measured now, or figures that were measured before.

    a .edgecv file          one bundle
    results.json, or its run's folder: every row; the bundles beside it when they are there
    a baseline file         what `edgecv gate --update` wrote: small, made for a repository

A baseline file, SCHEMA 1:

    schema, kind, edgecv
    bundles    {name: {"target", "engine", "precision", "digest" (of the engine's files),
               "size_bytes", "tools", "metric", "correct": base64 of packed bits, or null,
               "sqnr_db": of the worst output against float (where there is no metric),
               "no_latency": why there are no figures of it (absent where there are)}}
    machines   [{"machine", "threads", "calibration", "bundles": {name: {"digest", "calibrated",
               "latency_ms", "memory_mb"}}}], one for every kind of machine it was updated on

Latencies are stored beside the calibration workload's of the same run
(`edgecv.benchmark.calibration`).

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import __version__, tasks
from edgecv.errors import RecipeError
from edgecv.files import check_file, disk_errors, write_atomic
from edgecv.runtime import npy, shape
from edgecv.runtime.archive import Contents, read_bundle
from edgecv.runtime.manifest import COUNT, LINE, METRIC, NAME
from edgecv.runtime.shape import Every, Number, Text
from edgecv.tasks.base import Task

SCHEMA = 1
KIND = "edgecv baseline"
# What must agree for calibrated latencies to be comparable.
ALIKE = ("cpu", "architecture", "features")
LOG_RATIO, ERROR, MS = Number(-50, 50), Number(0, 50), Number(0, 1e12)
DB = Number(-1e4, 1e4)
MACHINE = {"cpu?": NAME, "architecture?": NAME, "features?": Every(list, NAME)}
THREADS = shape.whole(1, 1 << 20)
FACTS = {
    **dict.fromkeys(("target", "engine", "precision", "digest"), NAME),
    "size_bytes": COUNT,
    "tools": Every(dict, (str, type(None))),
    "executed": Every(dict, COUNT),
    "metric?": METRIC,
    "sqnr_db?": DB,
    "correct?": Text(1 << 28),
    "parts?": Every(dict, Text(1 << 28)),
    "task?": NAME,
    "decode?": dict,
    "no_latency?": LINE,
}
FIGURES = {
    "digest": NAME,
    "calibrated": [LOG_RATIO, ERROR],
    "latency_ms": MS,
    "memory_mb?": MS,
}
THERE = {
    "machine": MACHINE,
    "threads": THREADS,
    "calibration": dict,
    "bundles": Every(dict, FIGURES),
}
FILE = {"bundles": Every(dict, FACTS), "machines": Every(list, THERE)}
ROW = {
    **dict.fromkeys(("step", "target", "engine", "precision", "status"), NAME),
    "bundle?": NAME,
    "reason?": LINE,
    "metric?": METRIC,
    "engine_bytes?": COUNT,
    "calibrated?": {"log_ratio": LOG_RATIO, "error": ERROR},
    "calibration?": dict,
    "latency_ms?": {"p50": MS},
    "memory_mb?": {"peak?": MS},
    "busy?": bool,
    "threads?": THREADS,
    "machine?": MACHINE,
}
RESULTS = {"results": Every(list, ROW), "machine?": MACHINE}


@dataclass(frozen=True)
class Timing:
    """Figures of one bundle on one machine.

    calibrated: (log of the latency over the calibration workload's, standard error), or None
    """

    machine: dict[str, Any]
    threads: int
    calibration: dict[str, Any]
    calibrated: tuple[float, float] | None
    latency_ms: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True)
class Entry:
    """One bundle, there to be measured (`bundle`) or known from figures (`timings`), or both.

    correct: bool (images,), whether each test image was answered rightly; None when not known
    scored:  of other tasks than classification, what each test image adds to the metric
    problem: why there is nothing to measure, when a run says so itself
    """

    name: str
    facts: dict[str, Any]
    bundle: Path | None = None
    correct: np.ndarray | None = None
    scored: Mapping[str, np.ndarray] = field(default_factory=dict)
    timings: tuple[Timing, ...] = ()
    runnable: bool = True
    problem: str = ""

    @property
    def task(self) -> Task:
        """Whose metric it is; a row of classes where nothing is said."""
        found = tasks.of_manifest(self.facts)
        return found or tasks.of_manifest({"task": "classification"})  # type: ignore[return-value]

    @property
    def parts(self) -> Mapping[str, np.ndarray]:
        """What `Task.difference` compares; empty where it is not known."""
        return self.scored if self.correct is None else {"correct": self.correct}

    @property
    def metric(self) -> dict[str, Any] | None:
        return self.facts.get("metric")


def load(path: Path, away: bool = False) -> list[Entry]:
    """Everything that a file (or the folder of a run) holds. Raises BundleError, RecipeError.

    away: measured on a device, so what a run says of this machine does not matter
    """
    if path.is_dir():
        path = path / "results.json"
    if path.suffix == ".edgecv":
        return [of_bundle(path)]
    data = _read(path)
    if data.get("kind") == KIND:
        return _of_baseline(path, data)
    if isinstance(data.get("results"), list):
        return _of_results(path, data, away)
    raise RecipeError(
        str(path), "is no results file and no baseline", "edgecv run and gate --update write them"
    )


def of_bundle(path: Path) -> Entry:
    """A bundle on the disk."""
    contents = read_bundle(path)
    # A network that is not compiled for its device runs here, but not as it will run there.
    runnable = bool(contents.golden_inputs) and contents.manifest.get("compiled") is not False
    return Entry(
        path.name.removesuffix(".edgecv"),
        facts_of(contents),
        path,
        contents.correct,
        contents.parts,
        runnable=runnable,
        problem="" if runnable else _not_here(contents),
    )


def _not_here(contents: Contents) -> str:
    default = "made where its engine could not run"
    if contents.golden_inputs:
        default = "is not compiled for its device"
    notes = contents.manifest.get("notes") or [default]
    return str(notes[0])


def facts_of(contents: Contents) -> dict[str, Any]:
    """What a baseline keeps of a bundle besides its figures."""
    manifest = contents.manifest
    kept = (manifest.get("parity") or {}).get("sqnr_db")
    unlabelled = not manifest.get("metric") and not shape.wrong(kept, DB)
    return {
        **{key: manifest[key] for key in ("target", "engine", "precision")},
        "digest": engine_digest(manifest["members"]),
        "size_bytes": sum(map(len, contents.files.values())),
        "tools": manifest.get("tools") or {},
        "metric": manifest.get("metric"),
        "executed": manifest.get("executed") or {},
        **({"sqnr_db": kept} if unlabelled else {}),
        **({k: manifest[k] for k in ("task", "decode")} if "decode" in manifest else {}),
    }


def engine_digest(members: dict[str, str]) -> str:
    """Of what the engine loads: two bundles of one network with other goldens have the same."""
    listed = sorted(f"{k} {v}" for k, v in members.items() if k.startswith("engine/"))
    return sha256("\n".join(listed).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Any]:
    hint = "a .edgecv bundle, a results.json, a run's folder, or a baseline"
    try:
        data = shape.load(path)
    except OSError as e:
        raise RecipeError(str(path), f"cannot be read: {e.strerror}", hint) from None
    except ValueError as e:
        raise RecipeError(str(path), str(e), hint) from None
    if not isinstance(data, dict):
        raise RecipeError(str(path), "is no results file and no baseline")
    return data


# results of a run


def _of_results(path: Path, data: dict[str, Any], away: bool) -> list[Entry]:
    if problem := shape.wrong(data, RESULTS):
        raise RecipeError(str(path), f"is damaged: {problem}", "run the recipe again")
    return [_of_row(path, data, row, away) for row in data["results"]]


def _of_row(path: Path, data: dict[str, Any], row: dict[str, Any], away: bool) -> Entry:
    name = f"{row['step']}.{row['target']}"
    bundle = _beside(path, row["bundle"]) if row.get("bundle") else None
    reason = row.get("reason") or ""
    problem = reason if row["status"] == "failed" and not bundle else ""
    if bundle and bundle.is_file():
        entry = of_bundle(bundle)
        if row["status"] == "unavailable" and not away:
            entry = replace(entry, runnable=False, problem=reason)
        return replace(entry, name=name, timings=_row_timings(data, row))
    facts = {
        "target": row["target"], "engine": row["engine"], "precision": row["precision"],
        "size_bytes": row.get("engine_bytes"), "metric": row.get("metric"), "digest": "",
    }  # fmt: skip
    timings = _row_timings(data, row)
    return Entry(name, facts, None, None, {}, timings, row["status"] == "ok", problem)


def _beside(path: Path, name: str) -> Path:
    """A bundle in the run's folder. Raises RecipeError: a results file names one elsewhere."""
    if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        what = f"names a bundle outside its folder, {name[:80]!r}"
        raise RecipeError(str(path), what, "keep bundles/ beside it")
    return path.parent / name


def _row_timings(data: dict[str, Any], row: dict[str, Any]) -> tuple[Timing, ...]:
    found, calibration = row.get("calibrated"), row.get("calibration")
    if not found or row.get("busy") or calibration is None or not row.get("latency_ms"):
        return ()
    memory = (row.get("memory_mb") or {}).get("peak")
    return (
        Timing(
            row.get("machine") or data.get("machine") or {}, row.get("threads") or 1,
            calibration,
            (found["log_ratio"], found["error"]), row["latency_ms"]["p50"], memory,
        ),
    )  # fmt: skip


# baseline files


def _of_baseline(path: Path, data: dict[str, Any]) -> list[Entry]:
    if data.get("schema") != SCHEMA:
        raise RecipeError(
            str(path), f"schema {data.get('schema')!r} is not {SCHEMA}", "upgrade edgecv"
        )
    again = "write it again with --update"
    if problem := shape.wrong(data, FILE):
        raise RecipeError(str(path), f"is damaged: {problem}", again)
    try:
        return [
            Entry(name, facts, None, _unpack(facts), _scored(facts), _stored_timings(data, name))
            for name, facts in data["bundles"].items()
        ]
    except ValueError as e:
        raise RecipeError(str(path), f"is damaged: {e}", again) from None


def _stored_timings(data: dict[str, Any], name: str) -> tuple[Timing, ...]:
    found = []
    for there in data["machines"]:
        if name in there["bundles"]:
            figures = there["bundles"][name]
            log_ratio, error = figures["calibrated"]
            found.append(Timing(
                there["machine"], there["threads"], there["calibration"], (log_ratio, error),
                figures["latency_ms"], figures.get("memory_mb"),
            ))  # fmt: skip
    return tuple(found)


def _unpack(facts: dict[str, Any]) -> np.ndarray | None:
    """Raises ValueError, which says what is wrong."""
    packed, metric = facts.get("correct"), facts.get("metric")
    if packed is None:
        return None
    try:
        bits = np.frombuffer(base64.b64decode(packed, validate=True), np.uint8)
    except (binascii.Error, ValueError):
        raise ValueError("correct is not base64") from None
    if metric is None:
        raise ValueError("correct is there without a metric")
    if len(bits) != -(-metric["samples"] // 8):
        raise ValueError(f"{len(bits)} bytes of answers for {metric['samples']} images")
    return np.unpackbits(bits, count=metric["samples"]).astype(bool)


def _scored(facts: dict[str, Any]) -> dict[str, np.ndarray]:
    """Raises ValueError, which says what is wrong."""
    try:
        packed = {k: base64.b64decode(v, validate=True) for k, v in facts.get("parts", {}).items()}
    except (binascii.Error, ValueError):
        raise ValueError("parts are not base64") from None
    return {name: npy.read(data) for name, data in packed.items()}


def _pack(correct: np.ndarray | None) -> str | None:
    if correct is None:
        return None
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


@dataclass
class Baseline:
    """A baseline file in the making."""

    bundles: dict[str, dict[str, Any]] = field(default_factory=dict)
    machines: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def read(path: Path) -> Baseline:
        """The file to update; an empty one when there is none. Raises RecipeError."""
        if not path.exists():
            return Baseline()
        data = _read(path)
        if data.get("kind") != KIND:
            what = "is no baseline, and --update would overwrite it"
            raise RecipeError(str(path), what, "name a new file")
        _of_baseline(path, data)  # says what is wrong with it
        return Baseline(data["bundles"], data["machines"])

    def put(self, entry: Entry, timing: Timing | None, why: str = "") -> dict[str, Any] | None:
        """Keep a bundle's facts, and its figures as this kind of machine's.

        timing: where it was measured, `calibrated` None where the figures are not to be kept
        why: there are none, where there are none; a later gate says it
        Returns the older figures that stand instead, of the same engine's files by the same tools:
        this machine's, or without a timing another's; None where there are none, or new ones.
        """
        facts = {**entry.facts, "correct": _pack(entry.correct)}
        if entry.scored:
            parts = {name: npy.written(values) for name, values in entry.scored.items()}
            facts["parts"] = {k: base64.b64encode(v).decode() for k, v in parts.items()}
        facts.pop("no_latency", None)
        # A newer engine runs the same network at another speed.
        renewed = self.bundles.get(entry.name, facts).get("tools") != facts.get("tools")
        self.bundles[entry.name] = facts
        for there in self.machines:  # figures of another bundle under the same name
            old = there["bundles"].get(entry.name)
            if old and (renewed or old["digest"] != facts["digest"]):
                del there["bundles"][entry.name]
        here = self._machine(timing) if timing else None
        if timing is None or here is None or timing.calibrated is None:
            if here and timing and workloads_differ(here["calibration"], timing.calibration):
                here["bundles"].pop(entry.name, None)
            left = [m for m in self.machines if entry.name in m["bundles"]]
            if why and not left:
                facts["no_latency"] = why[:1000]
            return next((m["bundles"][entry.name] for m in left if here in (None, m)), None)
        if workloads_differ(here["calibration"], timing.calibration):
            here["bundles"].clear()  # the others' figures are over another workload
        here["calibration"] = timing.calibration
        here["bundles"][entry.name] = {
            "digest": facts["digest"],
            "calibrated": [round(v, 6) for v in timing.calibrated],
            "latency_ms": timing.latency_ms,
            "memory_mb": timing.memory_mb,
        }
        return None

    def keep(self, names: Collection[str]) -> list[str]:
        """Forget every other bundle; the names that went."""
        gone = [name for name in self.bundles if name not in names]
        for name in gone:
            del self.bundles[name]
            for there in self.machines:
                there["bundles"].pop(name, None)
        return gone

    def _machine(self, timing: Timing) -> dict[str, Any]:
        for there in self.machines:
            if alike(there["machine"], timing.machine) and there["threads"] == timing.threads:
                there["machine"] = timing.machine
                return there
        made = {
            "machine": timing.machine, "threads": timing.threads,
            "calibration": timing.calibration, "bundles": {},
        }  # fmt: skip
        self.machines.append(made)
        return made

    def write(self, path: Path) -> None:
        """All of it or nothing. Raises StoreError."""
        data = {
            "schema": SCHEMA, "kind": KIND, "edgecv": __version__, "bundles": self.bundles,
            "machines": [m for m in self.machines if m["bundles"]],
        }  # fmt: skip
        check_file(path, "gate --update")
        with disk_errors(path.parent):
            write_atomic(path, json.dumps(data, indent=1) + "\n")


def alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether latencies of two machines can be compared through the calibration workload."""
    return all(a.get(key) == b.get(key) for key in ALIKE)


def workloads_differ(stored: dict[str, Any], now: dict[str, Any]) -> str:
    """Why two calibration workloads are not one; "" when they are."""
    for key, shown in (("version", "calibration workload"), ("numpy", "numpy")):
        old, new = str(stored.get(key)), str(now.get(key))
        if old.split(".")[:2] != new.split(".")[:2]:
            return f"the baseline was calibrated with {shown} {old}, and this is {new}"
    return ""
