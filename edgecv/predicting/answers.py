"""What a bundle says of a picture, with the time of each part, as JSON, as words and drawn.

    preprocess   from the picture to the engine's input
    engine       the engine's own call
    decode       from what the engine answers to what it means

The times are those of the call that gives the answer: a clock stands around the engine's session
and around nothing else.

Imported on devices: numpy and the standard library only; what draws imports Pillow.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from edgecv.backends import Session
from edgecv.errors import DataError, RecipeError
from edgecv.runtime.archive import Contents
from edgecv.runtime.bundle import Bundle, opened
from edgecv.tasks import NONE

PARTS = ("preprocess", "engine", "decode")
_SHOWN = 110  # characters of an answer in words


class _Clocked:
    """A session that remembers when its last call began and ended."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.began = self.ended = 0.0

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.began = perf_counter()
        answer = self._session.run(feeds)
        self.ended = perf_counter()
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@dataclass(frozen=True)
class Answer:
    """What was said of one picture.

    predictions: plain JSON
    latency_ms:  of each of PARTS
    read:        what `Task.read` gave; of a bundle without a task its outputs by name
    """

    predictions: Any
    latency_ms: Mapping[str, float]
    read: Any


class Predictor:
    """A bundle that answers pictures.

    task:   the name of its task, "none" where it has none
    arrays: whether an answer is arrays, which are kept and not drawn
    """

    def __init__(
        self, contents: Contents, threads: int | None = None, **asked: float | int | None
    ) -> None:
        """asked: what is not to be as the bundle says it, of what its task `asks`; None: as it is.

        Raises RecipeError: the task does not ask that; DataError: the network takes something else
        than one picture; and what `edgecv.runtime.open_bundle` raises.
        """
        self._clock = _Clocked(opened(contents, threads).session)
        self.bundle = bundle = Bundle(contents, self._clock)
        self.task = bundle.task.name if bundle.task else NONE
        self.arrays = bundle.task is None
        self._asked = {key: value for key, value in asked.items() if value is not None}
        one = len(bundle.inputs) == 1 and bundle.session.inputs[0].shape[:1] == (1,)
        if not one or contents.image is None:
            takes = ", ".join(f"{s.name!r} {s.shape}" for s in bundle.inputs)
            what = f"takes {takes}, not one picture"
            raise DataError(str(contents.path), what, "in Python: open_bundle(...).run(...)")
        asks = bundle.task.asks if bundle.task else ()
        if unknown := [key for key in self._asked if key not in asks]:
            what = f"means nothing to a bundle of task {self.task}"
            raise RecipeError(f"--{unknown[0].replace('_', '-')}", what, "leave it out")

    @property
    def channels(self) -> int:
        """Of the pictures that the network takes."""
        return self.bundle.preprocess.channels

    def __call__(self, pixels: np.ndarray) -> Answer:
        """pixels: uint8 (H, W, C). Raises DataError: no picture of this network."""
        begin = perf_counter()
        read, _ = self.bundle.read(pixels, **self._asked)
        end = perf_counter()
        times = (self._clock.began - begin, self._clock.ended - self._clock.began,
                 end - self._clock.ended)  # fmt: skip
        latency = {part: 1e3 * time for part, time in zip(PARTS, times, strict=True)}
        return Answer(self._json(read), latency, read)

    def _json(self, read: Any) -> Any:
        if self.bundle.task is not None:
            return self.bundle.task.to_json(read, self.bundle.names)
        return [_described(name, values) for name, values in read.items()]

    def drawn(self, pixels: np.ndarray, answer: Answer) -> np.ndarray:
        """uint8 (H, W, 3): the picture with what was said of it. Raises MissingExtraError."""
        assert self.bundle.task is not None
        return self.bundle.task.drawn(pixels, answer.read, self.bundle.names)


def _described(name: str, values: np.ndarray) -> dict[str, Any]:
    """An output in few numbers: of what is finite in it."""
    found: dict[str, Any] = {
        "output": name,
        "shape": list(values.shape),
        "dtype": str(values.dtype),
    }
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values.ravel()
    if finite.size:
        figures = {"min": finite.min(), "max": finite.max(), "mean": finite.mean(dtype=np.float64)}
        found |= {key: float(figure) for key, figure in figures.items()}
    if strange := values.size - finite.size:
        found["not_finite"] = strange
    return found


def told(predictions: Any) -> str:
    """An answer in one line of words."""
    rows = predictions if isinstance(predictions, list) else []
    if predictions == []:
        return "nothing found"
    if rows and all(isinstance(r, dict) and "output" in r for r in rows):
        said = ", ".join(_output(r) for r in rows)
    elif rows and all(isinstance(r, dict) and {"label", "score"} <= r.keys() for r in rows):
        said = ", ".join(_labels(rows))
    elif rows and all(isinstance(r, dict) and {"label", "value"} <= r.keys() for r in rows):
        said = ", ".join(_number(r) for r in rows)
    elif isinstance(predictions, dict) and isinstance(shares := predictions.get("share"), dict):
        said = ", ".join(f"{label} {100 * share:.0f}%" for label, share in shares.items())
    else:
        said = predictions if isinstance(predictions, str) else json.dumps(predictions)
    return said if len(said) <= _SHOWN else f"{said[: _SHOWN - 3]}..."


def _output(row: Mapping[str, Any]) -> str:
    shape = "x".join(map(str, row["shape"])) or "scalar"
    span = f" {row['min']:.4g}..{row['max']:.4g}" if "min" in row else ""
    strange = f" ({row['not_finite']} not finite)" if "not_finite" in row else ""
    return f"{row['output']} {shape}{span}{strange}"


def _number(row: Mapping[str, Any]) -> str:
    value = "no number" if row["value"] is None else f"{row['value']:.4g}"
    return " ".join(filter(None, (str(row["label"]), value, str(row.get("unit", "")))))


def _labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every label once with its best score, and how many times it was found."""
    counts = Counter(str(r["label"]) for r in rows)
    best: dict[str, float] = {}
    for row in rows:
        label = str(row["label"])
        best[label] = max(best.get(label, 0.0), float(row["score"]))
    return [f"{f'{n} ' if n > 1 else ''}{label} {best[label]:.2f}" for label, n in counts.items()]
