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
from edgecv.runtime.interface import Interface, own
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec, dequantise, on_grid
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

    manifest, preprocess: as the bundle says
    inputs, outputs: of the graph, by its own names, shapes and layout
    labels:  one per class, the index as text where none were given; of no classifier: none
    session: the engine's own session, with its own inputs and outputs
    """

    def __init__(self, contents: Contents, session: Session) -> None:
        """Raises BundleError: the engine's tensors are not those of the manifest."""
        self.path = contents.path
        self.manifest: dict[str, Any] = contents.manifest
        self.preprocess: Preprocess = contents.preprocess
        self.session = session
        for said, found in ((contents.inputs, session.inputs), (contents.outputs, session.outputs)):
            _same(self.path, said, found)
        graph = contents.graph
        self._interface = Interface(
            own(contents.inputs, graph[0]), own(contents.outputs, graph[1]), str(self.path)
        )
        self.inputs, self.outputs = self._interface.inputs, self._interface.outputs
        labels, first = self.manifest.get("labels"), contents.outputs[0]
        classes = self.manifest.get("task") == "classification"
        self.labels: Sequence[str] = labels or (_Indices(width(first)) if classes else ())
        # what a call needs, found once
        self._turn = Turn(str(self.path), BundleError)
        self._input: np.ndarray | None = None
        self._run = session.run
        self._image, self._classes = contents.image, first.name
        self._classifies = self.manifest.get("task") == "classification"
        one = len(self.inputs) == 1 and self.inputs[0].shape[:1] == (1,)
        self._classifies &= one and kinds([first])[first.name] == "classes"
        self._softmax = self.manifest.get("scores", "logits") == "logits"
        self._grid = first if on_grid(first) else None

    def __call__(self, image: Any, top: int | None = TOP) -> Any:
        """What the network says of one image of any size: of a classifier the `top` best classes,
        best first (None: all of them), of any other its outputs, by name, as `run`.

        image: what `edgecv.runtime.accepted` takes. Raises DataError: no image, or a network that
        takes something else than one.
        """
        if not self._classifies or self._image is None:
            return self._answers(image)
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
    def _answers(self, image: np.ndarray) -> dict[str, np.ndarray]:
        if self._image is None or len(self.inputs) > 1 or self.session.inputs[0].shape[0] != 1:
            takes = ", ".join(f"{s.name!r} {s.shape}" for s in self.inputs)
            raise DataError(str(self.path), f"takes {takes}, not one image", "bundle.run(...)")
        self._input = self.preprocess(image, self._input)
        return self._interface.answer(self._run({self._image: self._input}))

    @in_turn
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name in, arrays by output name out, without preprocessing.

        Names, shapes and layout are the graph's own (`inputs`, `outputs`). An input takes its own
        dtype or float32 real values, which are put on an integer grid where the engine has one; an
        input of the engine's own shape and dtype is taken as well. What the engine holds on a grid
        comes back as float32 real values (`session.run` gives the integers). Raises DataError: a
        name, shape or dtype is wrong.
        """
        return self._interface.answer(self._run(self._interface.feed(feeds)))

    def __repr__(self) -> str:
        m = self.manifest
        holds = (
            f"{len(self.labels)} classes" if self._classifies else f"{len(self.outputs)} outputs"
        )
        return f"<Bundle {m['name']}: {m['precision']} on {m['engine']}, {holds}>"

    def close(self) -> None:
        """Free the engine's memory; after it a call raises BundleError. A second does nothing."""
        if self._turn.end():
            self.session.close()


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


def _same(path: Path, said: tuple[TensorSpec, ...], found: tuple[TensorSpec, ...]) -> None:
    """Raises BundleError unless the engine has the tensors that the manifest lists."""
    have = {s.name: (s.dtype, s.shape) for s in found}
    for spec in said:
        if have.get(spec.name) != (spec.dtype, spec.shape):
            what = f"tensor {spec.name!r} is {have.get(spec.name, 'missing')} in the engine"
            raise BundleError(str(path), what, f"the manifest says {spec.dtype} {spec.shape}")
