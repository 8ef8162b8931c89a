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
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Any

import numpy as np

from edgecv.backends import Session
from edgecv.errors import DataError, RecipeError
from edgecv.runtime.archive import Contents
from edgecv.runtime.bundle import TOP, Bundle, opened
from edgecv.runtime.spec import channels_first
from edgecv.tasks import NONE, of_manifest

PARTS = ("preprocess", "engine", "decode")
CHANGED = ("confidence", "iou", "max_detections")  # what a call may ask of a task that has it
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
    read:        as the task has it: predictions of a classifier, arrays by output name of a network
                 without a task, else what `Task.read` gave
    """

    predictions: Any
    latency_ms: Mapping[str, float]
    read: Any


class Predictor:
    """A bundle that answers pictures.

    task:   the name: "classification", one of `edgecv.tasks`, or "none"
    arrays: whether an answer is arrays, which are kept and not drawn
    """

    def __init__(
        self,
        contents: Contents,
        threads: int | None = None,
        top: int | None = None,
        **asked: float | int | None,
    ) -> None:
        """top: how many classes a classifier says, TOP where None; asked: of CHANGED, what is not
        to be as the bundle says it.

        Raises RecipeError: something is asked that this bundle has not; DataError: it takes
        something else than one picture; and what `edgecv.runtime.open_bundle` raises.
        """
        self._path = str(contents.path)
        self._task = of_manifest(contents.manifest)
        self._asked = {key: value for key, value in asked.items() if value is not None}
        bundle = opened(contents, threads)
        self._clock = _Clocked(bundle.session)
        self.bundle = Bundle(contents, self._clock)
        said = contents.manifest.get("task")
        classifies = said == "classification" and self._task is None
        self.task = self._task.name if self._task else "classification" if classifies else NONE
        self.arrays = self.task == NONE
        self.labels: Sequence[str] = self.bundle.labels or contents.manifest.get("labels") or ()
        self._top = TOP if top is None else top
        self._check(top)

    def _check(self, top: int | None) -> None:
        bundle = self.bundle
        one = len(bundle.inputs) == 1 and bundle.session.inputs[0].shape[:1] == (1,)
        if not one or not bundle.manifest.get("input"):
            takes = ", ".join(f"{s.name!r} {s.shape}" for s in bundle.inputs)
            what = f"takes {takes}, not one picture"
            raise DataError(self._path, what, "edgecv.runtime.open_bundle and its run(...)")
        has = {f.name for f in fields(self._task)} if self._task else set()
        for key in self._asked:
            if key not in has:
                what = f"means nothing to a bundle of task {self.task}"
                raise RecipeError(f"--{key.replace('_', '-')}", what, "leave it out")
        if top is not None and self.task != "classification":
            what = f"means nothing to a bundle of task {self.task}"
            raise RecipeError("--top", what, "it is how many classes a classifier says")

    @property
    def channels(self) -> int:
        """Of the pictures that the network takes."""
        return self.bundle.preprocess.channels

    def __call__(self, pixels: np.ndarray) -> Answer:
        """pixels: uint8 (H, W, C). Raises DataError: no picture of this network."""
        begin = perf_counter()
        read = self._read(pixels)
        end = perf_counter()
        times = (self._clock.began - begin, self._clock.ended - self._clock.began,
                 end - self._clock.ended)  # fmt: skip
        latency = {part: 1e3 * time for part, time in zip(PARTS, times, strict=True)}
        return Answer(self._json(read), latency, read)

    def _read(self, pixels: np.ndarray) -> Any:
        if self._task is None:
            return self.bundle(pixels, self._top) if not self.arrays else self._outputs(pixels)
        specs = {spec.name: spec for spec in self.bundle.outputs}
        outputs = {
            name: channels_first(values, specs[name])
            for name, values in self._outputs(pixels).items()
        }
        height, width = pixels.shape[:2]
        lies = self.bundle.preprocess.placement(height, width)
        return self._task.read(outputs, lies, (height, width), **self._asked)

    def _outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        name = self.bundle.inputs[0].name
        return self.bundle.run({name: self.bundle.preprocess(pixels)})

    def _json(self, read: Any) -> Any:
        if self._task is not None:
            return self._task.to_json(read, self.labels)
        if not self.arrays:
            return [{"index": p.index, "label": p.label, "score": p.score} for p in read]
        return [_described(name, values) for name, values in read.items()]

    def drawn(self, pixels: np.ndarray, answer: Answer) -> np.ndarray:
        """uint8 (H, W, 3): the picture with what was said of it. Raises MissingExtraError."""
        if self._task is not None:
            return self._task.drawn(pixels, answer.read, self.labels)
        from edgecv.tasks import drawing

        return drawing.classes(pixels, answer.read)


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
    else:
        said = predictions if isinstance(predictions, str) else json.dumps(predictions)
    return said if len(said) <= _SHOWN else f"{said[: _SHOWN - 3]}..."


def _output(row: Mapping[str, Any]) -> str:
    shape = "x".join(map(str, row["shape"])) or "scalar"
    span = f" {row['min']:.4g}..{row['max']:.4g}" if "min" in row else ""
    strange = f" ({row['not_finite']} not finite)" if "not_finite" in row else ""
    return f"{row['output']} {shape}{span}{strange}"


def _labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every label once with its best score, and how many times it was found."""
    counts = Counter(str(r["label"]) for r in rows)
    best: dict[str, float] = {}
    for row in rows:
        label = str(row["label"])
        best[label] = max(best.get(label, 0.0), float(row["score"]))
    return [f"{f'{n} ' if n > 1 else ''}{label} {best[label]:.2f}" for label, n in counts.items()]
