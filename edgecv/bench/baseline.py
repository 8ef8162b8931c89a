"""What a gate compares: bundles to be measured now, or figures that were measured before.

    a .edgecv file          one bundle
    results.json, or its run's folder: every row; the bundles beside it when they are there
    a baseline file         what `edgecv gate --update` wrote: small, made for a repository

A baseline file, SCHEMA 1:

    schema, kind, edgecv
    bundles    {name: {"target", "engine", "precision", "digest" (of the engine's files),
               "size_bytes", "tools", "metric", "correct": base64 of packed bits, or null}}
    machines   [{"machine", "threads", "calibration", "bundles": {name: {"digest", "calibrated",
               "latency_ms", "memory_mb"}}}], one for every kind of machine it was updated on

Latencies are stored beside the calibration workload's of the same run (`edgecv.bench.calibration`).

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import __version__
from edgecv.errors import RecipeError
from edgecv.runtime.archive import Contents, read_bundle
from edgecv.store import disk_errors, write_atomic

SCHEMA = 1
KIND = "edgecv baseline"
# What must agree for calibrated latencies to be comparable.
ALIKE = ("cpu", "architecture", "features")


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
    problem: why there is nothing to measure, when a run says so itself
    """

    name: str
    facts: dict[str, Any]
    bundle: Path | None = None
    correct: np.ndarray | None = None
    timings: tuple[Timing, ...] = ()
    runnable: bool = True
    problem: str = ""

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
    return {
        **{key: manifest[key] for key in ("target", "engine", "precision")},
        "digest": engine_digest(manifest["members"]),
        "size_bytes": sum(map(len, contents.files.values())),
        "tools": manifest.get("tools") or {},
        "metric": manifest.get("metric"),
        "executed": manifest.get("executed") or {},
    }


def engine_digest(members: dict[str, str]) -> str:
    """Of what the engine loads: two bundles of one network with other goldens have the same."""
    listed = sorted(f"{k} {v}" for k, v in members.items() if k.startswith("engine/"))
    return sha256("\n".join(listed).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        hint = "a .edgecv bundle, a results.json, a run's folder, or a baseline"
        raise RecipeError(str(path), f"cannot be read: {e.strerror}", hint) from None
    except (ValueError, RecursionError) as e:
        raise RecipeError(str(path), f"is not JSON: {' '.join(str(e).split())[:100]}") from None
    if not isinstance(data, dict):
        raise RecipeError(str(path), "is no results file and no baseline")
    return data


# results of a run


def _of_results(path: Path, data: dict[str, Any], away: bool) -> list[Entry]:
    try:
        return [_of_row(path, data, row, away) for row in data["results"]]
    except (KeyError, TypeError, AttributeError) as e:
        raise RecipeError(str(path), f"is damaged: {e!r}", "run the recipe again") from None


def _of_row(path: Path, data: dict[str, Any], row: dict[str, Any], away: bool) -> Entry:
    name = f"{row['step']}.{row['target']}"
    bundle = path.parent / row["bundle"] if row["bundle"] else None
    problem = row["reason"] if row["status"] == "failed" and not bundle else ""
    if bundle and bundle.is_file():
        entry = of_bundle(bundle)
        if row["status"] == "unavailable" and not away:
            entry = replace(entry, runnable=False, problem=row["reason"])
        return replace(entry, name=name, timings=_row_timings(data, row))
    facts = {
        "target": row["target"], "engine": row["engine"], "precision": row["precision"],
        "size_bytes": row.get("engine_bytes"), "metric": row["metric"], "digest": "",
    }  # fmt: skip
    return Entry(name, facts, None, None, _row_timings(data, row), row["status"] == "ok", problem)


def _row_timings(data: dict[str, Any], row: dict[str, Any]) -> tuple[Timing, ...]:
    if not row.get("calibrated") or row.get("busy"):
        return ()
    found = row["calibrated"]
    memory = (row.get("memory_mb") or {}).get("peak")
    return (
        Timing(
            row.get("machine") or data["machine"], row.get("threads", 1), row["calibration"],
            (found["log_ratio"], found["error"]), row["latency_ms"]["p50"], memory,
        ),
    )  # fmt: skip


# baseline files


def _of_baseline(path: Path, data: dict[str, Any]) -> list[Entry]:
    if data.get("schema") != SCHEMA:
        raise RecipeError(
            str(path), f"schema {data.get('schema')!r} is not {SCHEMA}", "upgrade edgecv"
        )
    try:
        _check(data)
        return [
            Entry(name, facts, None, _unpack(facts), _stored_timings(data, name))
            for name, facts in data["bundles"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise RecipeError(str(path), f"is damaged: {e!r}", "write it again with --update") from None


def _check(data: dict[str, Any]) -> None:
    """Raises KeyError or TypeError unless every part is what a gate takes it for."""
    for facts in data["bundles"].values():
        for key in ("target", "engine", "precision", "digest"):
            _is(facts, key, str)
        _is(facts, "size_bytes", int)
        _is(facts, "tools", dict)
        _is(facts, "executed", dict)
        if facts["metric"] is not None:
            _is(facts["metric"], "value", float, int)
            _is(facts["metric"], "samples", int)
    _is(data, "machines", list)
    for there in data["machines"]:
        _is(there, "machine", dict)
        _is(there["machine"], "features", list)
        _is(there, "threads", int)
        _is(there, "calibration", dict)
        _is(there, "bundles", dict)
        for figures in there["bundles"].values():
            _is(figures, "digest", str)
            log_ratio, error = figures["calibrated"]
            _is({"calibrated": log_ratio * error}, "calibrated", float)
            _is(figures, "latency_ms", float, int)
            _is(figures, "memory_mb", float, int, type(None))


def _is(part: dict[str, Any], key: str, *kinds: type) -> None:
    if not isinstance(part[key], kinds):
        raise TypeError(f"{key} is {part[key]!r:.40}")


def _stored_timings(data: dict[str, Any], name: str) -> tuple[Timing, ...]:
    found = []
    for there in data["machines"]:
        if name in there["bundles"]:
            figures = there["bundles"][name]
            log_ratio, error = figures["calibrated"]
            found.append(Timing(
                there["machine"], there["threads"], there["calibration"], (log_ratio, error),
                figures["latency_ms"], figures["memory_mb"],
            ))  # fmt: skip
    return tuple(found)


def _unpack(facts: dict[str, Any]) -> np.ndarray | None:
    packed = facts.get("correct")
    if packed is None:
        return None
    bits = np.frombuffer(base64.b64decode(packed, validate=True), np.uint8)
    if len(bits) != -(-int(facts["metric"]["samples"]) // 8):
        raise ValueError(f"{len(bits)} bytes of answers for {facts['metric']['samples']} images")
    return np.unpackbits(bits, count=int(facts["metric"]["samples"])).astype(bool)


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

    def put(self, entry: Entry, timing: Timing | None) -> None:
        """Keep a bundle's facts, and its figures as this kind of machine's."""
        facts = {**entry.facts, "correct": _pack(entry.correct)}
        self.bundles[entry.name] = facts
        for there in self.machines:  # figures of another network under the same name
            old = there["bundles"].get(entry.name)
            if old and old["digest"] != facts["digest"]:
                del there["bundles"][entry.name]
        if timing is None or timing.calibrated is None:
            return
        here = self._machine(timing)
        here["calibration"] = timing.calibration
        here["bundles"][entry.name] = {
            "digest": facts["digest"],
            "calibrated": [round(v, 6) for v in timing.calibrated],
            "latency_ms": timing.latency_ms,
            "memory_mb": timing.memory_mb,
        }

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
        made = {"machine": timing.machine, "threads": timing.threads, "bundles": {}}
        self.machines.append(made)
        return made

    def write(self, path: Path) -> None:
        """All of it or nothing. Raises StoreError."""
        data = {
            "schema": SCHEMA, "kind": KIND, "edgecv": __version__, "bundles": self.bundles,
            "machines": [m for m in self.machines if m["bundles"]],
        }  # fmt: skip
        if not path.parent.is_dir():
            raise RecipeError(str(path), "its folder is not there", f"mkdir {path.parent}")
        with disk_errors(path.parent):
            write_atomic(path, json.dumps(data, indent=1) + "\n")


def alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether latencies of two machines can be compared through the calibration workload."""
    return all(a.get(key) == b.get(key) for key in ALIKE)
