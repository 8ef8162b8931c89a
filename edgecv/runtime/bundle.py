"""A bundle, opened: images in, predictions out.

    z = outputs[0]  (scale * (q - zero_point) where the engine answers in integers)
    score = softmax(z) = exp(z - max z) / sum exp(z - max z),  or z itself where the manifest
    says that the network ends in probabilities

Imported on devices: numpy and the standard library only; the engine is imported when a bundle
is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from edgecv.backends import ENGINES, Session, run_module
from edgecv.errors import BundleError, DataError, EdgecvError
from edgecv.runtime.archive import SCHEMA, Contents, read_bundle, write_bundle
from edgecv.runtime.fidelity import kinds, width
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec
from edgecv.runtime.turn import Turn, in_turn

__all__ = [
    "SCHEMA",
    "Bundle",
    "Contents",
    "Prediction",
    "open_bundle",
    "read_bundle",
    "write_bundle",
]

TOP = 10
_HOLDS = {"map": "scores for every pixel", "values": "values"}


class Prediction(NamedTuple):
    """One class: its index, its label (the index as text without labels), its score in 0..1."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    label: str
    score: float


# Prediction(...) goes through a Python-level __new__; this makes the same tuple in half the time
_new = tuple.__new__


class Bundle:
    """A compiled network with its preprocessing and labels.

    Threads that share one wait for each other: for more speed open one per thread.

    manifest, preprocess, inputs, outputs: as the bundle says
    labels:  one per class
    session: the engine's own session
    """

    def __init__(self, contents: Contents, session: Session) -> None:
        """Raises BundleError: the engine's tensors are not those of the manifest."""
        self.path = contents.path
        self.manifest: dict[str, Any] = contents.manifest
        self.preprocess: Preprocess = contents.preprocess
        self.inputs, self.outputs = contents.inputs, contents.outputs
        self.session = session
        labels = self.manifest.get("labels")
        self.labels: Sequence[str] = labels or _Indices(width(self.outputs[0]))
        for said, found in ((self.inputs, session.inputs), (self.outputs, session.outputs)):
            _same(self.path, said, found)
        # what a call needs, found once
        self._turn = Turn(str(self.path), BundleError)
        self._input: np.ndarray | None = None
        self._run = session.run
        self._image, self._classes = self.manifest["input"]["name"], self.outputs[0].name
        self._kind = kinds(self.outputs[:1])[self._classes]
        self._softmax = self.manifest.get("scores", "logits") == "logits"
        self._expected = {s.name: (np.dtype(s.dtype), s.shape) for s in self.inputs}
        self._grids = {s.name: s for s in self.outputs if on_grid(s)}
        self._grid = self._grids.get(self._classes)

    def __call__(self, image: Any, top: int | None = TOP) -> list[Prediction]:
        """The `top` best classes, best first (None: all of them) of one image of any size.

        image: what `edgecv.runtime.accepted` takes. Raises DataError: no image, or a network that
        does not answer with a row of classes.
        """
        if self._kind != "classes":
            what = f"output {self._classes!r} holds {_HOLDS[self._kind]}, not scores for classes"
            raise DataError(str(self.path), what, "bundle.run(...) gives every output as it is")
        with self._turn:
            self._input = self.preprocess(image, self._input)
            z = self._run({self._image: self._input})[self._classes].reshape(-1)
        if self._grid is not None:
            z = dequantise(z, self._grid)
        best = _best(z, top)
        if self._softmax:
            powers = np.exp(z - z[best[0]])
            scores = powers[best] / np.add.reduce(powers)
        else:
            scores = z[best]
        labels, pairs = self.labels, zip(best.tolist(), scores.tolist(), strict=True)
        return [_new(Prediction, (i, labels[i], score)) for i, score in pairs]

    @in_turn
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name in, arrays by output name out, without preprocessing.

        An input takes the engine's own dtype, or float32 real values, which are put on its
        integer grid. An integer output that has a scale comes back as float32 real values
        (`session.run` gives the integers). Raises DataError: a name, shape or dtype is wrong.
        """
        expected = self._expected
        if not isinstance(feeds, Mapping):
            what = f"{type(feeds).__name__} given, not arrays by input name"
            raise DataError(str(self.path), what, f"run({{{next(iter(expected))!r}: array}})")
        if feeds.keys() != expected.keys():
            got, names = ", ".join(map(repr, feeds)) or "none", ", ".join(map(repr, expected))
            raise DataError(str(self.path), f"inputs {got} given, not {names}")
        for name, array in feeds.items():
            if not isinstance(array, np.ndarray) or (array.dtype, array.shape) != expected[name]:
                feeds = {spec.name: self._fit(spec, feeds[spec.name]) for spec in self.inputs}
                break
        outputs = self._run(feeds)
        for name, grid in self._grids.items():
            outputs[name] = dequantise(outputs[name], grid)
        return outputs

    def __repr__(self) -> str:
        m = self.manifest
        return (
            f"<Bundle {m['name']}: {m['precision']} on {m['engine']}, {len(self.labels)} classes>"
        )

    def close(self) -> None:
        """Free the engine's memory; after it a call raises BundleError. A second does nothing."""
        if self._turn.end():
            self.session.close()

    def _fit(self, spec: TensorSpec, array: object) -> np.ndarray:
        """The array as the engine wants it. Raises DataError."""
        where = f"{self.path}: input {spec.name!r}"
        wanted = f"{spec.dtype} {spec.shape}"
        if not isinstance(array, np.ndarray):
            raise DataError(where, f"{type(array).__name__} is not an array", f"pass {wanted}")
        if array.shape != spec.shape:
            raise DataError(where, f"shape {array.shape} given", f"pass {wanted}")
        if array.dtype == spec.dtype:
            return array
        if array.dtype != np.float32 or not on_grid(spec):
            raise DataError(where, f"dtype {array.dtype} given", f"pass {wanted}")
        if not np.isfinite(array).all():
            raise DataError(where, "NaN or infinity has no place on an integer grid")
        limits = np.iinfo(spec.dtype)
        q = np.rint(array / np.float32(spec.scale)) + (spec.zero_point or 0)
        return np.clip(q, limits.min, limits.max).astype(spec.dtype)


class _Indices(Sequence[str]):
    """Labels of classes without any: "0", "1", ... A manifest may say that there are millions."""

    def __init__(self, count: int) -> None:
        self._count = range(count)

    def __len__(self) -> int:
        return len(self._count)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        found = self._count[index]
        return str(found) if isinstance(found, int) else [str(i) for i in found]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def _best(z: np.ndarray, top: int | None) -> np.ndarray:
    """Indices of the `top` largest, largest first; of equals the lower index comes first."""
    if top is None or z.size <= 4 * top:
        return (-z).argsort(kind="stable")[:top]
    # Sorting a thousand classes costs more than all the rest of a call: sort the contenders.
    least = np.partition(z, z.size - top)[z.size - top]
    contenders = np.flatnonzero(z >= least)
    return contenders[(-z[contenders]).argsort(kind="stable")[:top]]


def open_bundle(path: str | Path, threads: int | None = None, engine: str | None = None) -> Bundle:
    """Open a .edgecv file on the engine it was compiled for, or on another that reads its files.

    threads: the engine's computing threads; None leaves the engine module's default (1)
    engine:  one of edgecv.backends.ENGINES; None takes the manifest's

    Raises BundleError (damaged, newer), MissingExtraError (the engine is not installed),
    NoCudaDevice, EngineError (the engine refused the file).
    """
    return opened(read_bundle(path), threads, engine)


def opened(contents: Contents, threads: int | None = None, engine: str | None = None) -> Bundle:
    """The Bundle of contents that were read already."""
    engine = engine or contents.manifest["engine"]
    if engine not in ENGINES:
        raise BundleError(f"engine {engine!r}", "unknown engine", f"known: {', '.join(ENGINES)}")
    options = {} if threads is None else {"threads": threads}
    try:
        session = run_module(engine).Session(contents.files, **options)
    except EdgecvError as e:
        raise type(e)(f"{contents.path} ({e.where})", e.what, e.hint) from None
    return Bundle(contents, session)


def on_grid(spec: TensorSpec) -> bool:
    """Whether the tensor holds integers that stand for real values."""
    return spec.scale is not None and np.dtype(spec.dtype).kind in "iu"


def dequantise(q: np.ndarray, grid: TensorSpec) -> np.ndarray:
    """float32 scale * (q - zero_point)."""
    real = np.subtract(q, grid.zero_point or 0, dtype=np.float32)
    real *= grid.scale or 1.0
    return real


def _same(path: Path, said: tuple[TensorSpec, ...], found: tuple[TensorSpec, ...]) -> None:
    """Raises BundleError unless the engine has the tensors that the manifest lists."""
    have = {s.name: (s.dtype, s.shape) for s in found}
    for spec in said:
        if have.get(spec.name) != (spec.dtype, spec.shape):
            what = f"tensor {spec.name!r} is {have.get(spec.name, 'missing')} in the engine"
            raise BundleError(str(path), what, f"the manifest says {spec.dtype} {spec.shape}")
