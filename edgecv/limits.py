"""Limits that a user sets on what ships, and what is nearest where nothing meets them.

    accuracy_drop   points of the task's metric (top-1, mAP, mIoU) below fp32 on the same engine and
                    images; of a classifier without labels, what fp32's own probabilities expect of
                    the images whose best class is another:
                    Σ p(fp32's class) − p(the other), over all images, in points
    latency_ms      median of a call
    latency_ratio   of fp32's on the same engine, from interleaved rounds
    size_mb         the engine's own files, 10^6 bytes
    sqnr_db         of every output against the float network that was quantized, on the test
                    images: a least, where the others are a most

A stage that takes limits searches for what meets them; a run fails (exit code 1) when no row does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from edgecv import tasks
from edgecv.errors import RecipeError

if TYPE_CHECKING:  # the command line reads this module at every start
    import numpy as np

Figures = Mapping[str, float | None]

ROUNDING = 1e-9


@dataclass(frozen=True)
class Limits:
    """The most that each figure may be, of LEAST the least; None does not limit it."""

    accuracy_drop: float | None = None
    latency_ms: float | None = None
    latency_ratio: float | None = None
    size_mb: float | None = None
    sqnr_db: float | None = None

    def __bool__(self) -> bool:
        return any(v is not None for v in self.asked().values())

    def asked(self) -> dict[str, float]:
        """Those that are set."""
        found = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in found.items() if value is not None}

    def missed(self, figures: Figures) -> dict[str, float]:
        """By how much each limit is exceeded, as a share of it; infinite where nothing is known.

        What exceeds one by less than rounding does (a drop of 0.3 is 0.30000000000000004) meets it.
        Drops are shares of 0.1 point at the least, so that a limit of 0 has a nearest too.
        """
        found = {}
        for name, limit in self.asked().items():
            value = figures.get(name)
            over = 0.0 if value is None else limit - value if name in LEAST else value - limit
            if value is None:
                found[name] = math.inf
            elif over > ROUNDING:
                found[name] = over / max(limit, 0.1 if name == "accuracy_drop" else 1e-9)
        return found

    def distance(self, figures: Figures) -> float:
        """0 when all limits are met; the sum of what they are exceeded by."""
        return sum(self.missed(figures).values())


NAMES = tuple(f.name for f in fields(Limits))
LEAST = ("sqnr_db",)
UNITS = {"accuracy_drop": "points", "latency_ms": "ms", "latency_ratio": "× fp32", "size_mb": "MB",
         "sqnr_db": "dB"}  # fmt: skip


def checked(said: Mapping[str, Any]) -> Limits:
    """The limits among what a command or a program says, by name. Raises RecipeError."""
    found = {name: said.get(name) for name in NAMES}
    for name, value in found.items():
        least = 0.0 if name == "accuracy_drop" else 1e-9
        if value is not None and not least <= value < 1e9:
            raise RecipeError(f"--{name.replace('_', '-')}", f"is {value}", "a number above 0")
    return Limits(**found)


def fidelity_of(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How a row's outputs compare with float (`edgecv.fidelity.Parity` as JSON): its bundle's, or
    its graph's where the engine did not run here; None where neither is known."""
    parity = row.get("parity") or {}
    return parity.get("float") or parity.get("graph")


def figures_of(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The limited figures of a row of results.json."""
    latency, size, ratio = row.get("latency_ms"), row.get("engine_bytes"), row.get("latency_ratio")
    fidelity = fidelity_of(row)
    return {
        "accuracy_drop": _drop(row),
        "latency_ms": latency["p50"] if latency else None,
        "latency_ratio": ratio,
        "size_mb": size / 1e6 if size else None,
        "sqnr_db": fidelity["sqnr_db"] if fidelity else None,
    }


def _drop(row: Mapping[str, Any]) -> float | None:
    metric = row.get("metric")
    if metric and metric.get("reference") is not None:
        return float(100.0 * (metric["reference"] - metric["value"]))
    expected, agreement = row.get("expected_drop"), row.get("agreement")
    if expected is not None:
        return float(expected)
    return None if agreement is None else float(100.0 * (1.0 - agreement))


def expected_drop(own: np.ndarray, outputs: np.ndarray) -> float:
    """Points of top-1 that answers lose where there are no labels, as fp32 sees it.

    own: best classes (N,). outputs: fp32's (N, classes), logits or probabilities. An image that
    gets another class was right with p(fp32's class) before, and is with p(own class) now; a flip
    between two classes that fp32 could hardly tell apart costs next to nothing.
    """
    import numpy as np

    p = np.asarray(outputs, np.float64)
    if p.min() < 0 or abs(p.sum(1) - 1).max() > 0.05:
        p = np.exp(p - p.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
    rows = np.arange(len(p))
    return float(100.0 * (p.max(1) - p[rows, own]).mean())


def judge(limits: Limits, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What results.json says of some rows under the same limits.

    {"asked", "met": names of the rows that meet all of them,
     "nearest": {"row", "figures", "missed"} of the one that meets them, or comes nearest; or None}
    """
    judged = []
    for row in rows:
        figures = figures_of(row)
        judged.append((limits.distance(figures), f"{row['step']}.{row['target']}", figures))
    met = [name for distance, name, _ in judged if distance == 0.0]
    nearest = None
    if judged:
        _, name, figures = min(judged, key=lambda j: (j[0], _speed(j[2])))
        missed = {k: v if math.isfinite(v) else None for k, v in limits.missed(figures).items()}
        nearest = {"row": name, "figures": figures, "missed": missed}
    return {"asked": limits.asked(), "met": met, "nearest": nearest}


def _speed(figures: Figures) -> float:
    """Of those that meet the limits equally, the fastest is the best."""
    value = figures.get("latency_ms")
    return math.inf if value is None else value


def sentence(verdict: Mapping[str, Any]) -> str:
    """The verdict in a line."""
    asked = ", ".join(f"{k} {v:g} {UNITS[k]}" for k, v in verdict["asked"].items())
    nearest = verdict["nearest"]
    if nearest is None:
        return f"limits ({asked}): nothing was made that they could be judged on"
    names = verdict["asked"]
    figures = ", ".join(f"{k} {_shown(nearest['figures'][k])}" for k in names)
    if verdict["met"]:
        met = ", ".join(verdict["met"])
        return f"limits ({asked}) met by {met}; best {nearest['row']}: {figures}"
    return f"limits ({asked}) met by nothing; nearest {nearest['row']}: {figures}"


def _shown(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g}"


def unknown_drop(task: str, where: str, option: str) -> RecipeError:
    """A limit on what a task's metric may lose, without labels to measure it by.

    option: where labelled images would be named
    """
    points = tasks.task(task).points
    return RecipeError(where, f"what {task} loses of its {points} is not known without labels",
                       f"{option} with labels, or limit sqnr_db, latency or size")  # fmt: skip
