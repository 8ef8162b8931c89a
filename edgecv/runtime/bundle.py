"""A bundle, opened: images in, and out what its task makes of the outputs (`edgecv.tasks`).

Imported on devices: numpy and the standard library only; the engine is imported when a bundle
is opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from edgecv import tasks
from edgecv.backends import ENGINES, Session, run_module
from edgecv.errors import BundleError, DataError, EdgecvError
from edgecv.runtime.accepted import as_pixels
from edgecv.runtime.answers import Prediction
from edgecv.runtime.archive import SCHEMA, Contents, read_bundle, write_bundle
from edgecv.runtime.fidelity import kinds, width
from edgecv.runtime.interface import Interface, own
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec, dequantise, on_grid, plain
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


class Bundle:
    """A compiled network with its preprocessing and labels.

    Threads that share one wait for each other: for more speed open one per thread.

    manifest, preprocess: as the bundle says
    inputs, outputs: of the graph, by its own names, shapes and layout
    task:    how outputs are read (`edgecv.tasks`); None: tensors in, tensors out
    labels:  one per class, the index as text where none were given; without a task: none
    names:   the labels, the index as text where there are none
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
        # a task reads channels first, whatever the graph's own layout
        shown = own(contents.outputs, [plain(spec) for spec in self.outputs])
        self._shown = Interface((), shown, str(self.path))
        first = contents.outputs[0]
        task = tasks.of_manifest(self.manifest)
        one = len(self.inputs) == 1 and self.inputs[0].shape[:1] == (1,)
        classifies = task is not None and task.name == "classification"
        if classifies and kinds([first])[first.name] != "classes":
            task = None
        self.task = task if one and contents.image is not None else None
        labels = self.manifest.get("labels")
        self.labels: Sequence[str] = labels or (_Indices(width(first)) if classifies else ())
        self.names: Sequence[str] = self.labels or _Indices(1 << 31)
        # what a call needs, found once
        self._turn = Turn(str(self.path), BundleError)
        self._input: np.ndarray | None = None
        self._run = session.run
        self._image, self._first = contents.image, first.name
        self._row = getattr(self.task, "row", None)  # a classifier's short way, which time shows
        self._grid = first if on_grid(first) else None

    def __call__(self, image: Any, *given: Any, **asked: Any) -> Any:
        """What the network says of one image of any size, as its task has it; of a network without
        one its outputs, by name, as `run`.

            classification   list[Prediction], the `top` best classes (10; None: all), best first

        image: what `edgecv.runtime.accepted` takes. asked: what the task `asks`, by name or in its
        order. Raises DataError: no image, or a network that takes something else than one;
        TypeError: something else is asked.
        """
        if given or asked:
            asked = self._asked(given, asked)
        if self._row is None or self._image is None:
            read, _ = self.read(image, **asked)
            return read if self.task is None else self.task.answer(read, self.names)
        with self._turn:
            self._input = self.preprocess(image, self._input)
            z = self._run({self._image: self._input})[self._first].reshape(-1)
        if self._grid is not None:
            z = dequantise(z, self._grid)
        assert self.task is not None
        return self.task.answer(self._row(z, **asked), self.names)

    def _asked(self, given: Sequence[Any], asked: dict[str, Any]) -> dict[str, Any]:
        asks = () if self.task is None else self.task.asks
        named = {**dict(zip(asks, given, strict=False)), **asked}
        if len(given) > len(asks) or (unknown := named.keys() - set(asks)):
            said = next(iter(unknown), "") if len(given) <= len(asks) else repr(given[len(asks)])
            name = None if self.task is None else self.task.name
            raise TypeError(f"task {name} takes {', '.join(asks) or 'an image alone'}, not {said}")
        return named

    @in_turn
    def read(self, image: Any, **asked: Any) -> tuple[Any, tuple[int, int]]:
        """What the task's `read` makes of one image, as arrays, and the image's (height, width)."""
        if self._image is None or len(self.inputs) > 1 or self.session.inputs[0].shape[0] != 1:
            takes = ", ".join(f"{s.name!r} {s.shape}" for s in self.inputs)
            raise DataError(str(self.path), f"takes {takes}, not one image", "bundle.run(...)")
        pixels = as_pixels(image, self.preprocess.channels)
        self._input = self.preprocess(pixels, self._input)
        outputs, size = self._run({self._image: self._input}), pixels.shape[:2]
        if self.task is None:
            return self._interface.answer(outputs), size
        outputs = self._shown.answer(outputs)
        return self.task.read(outputs, self.preprocess.placement(*size), size, **asked), size

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
        holds = f"{len(self.labels)} classes" if self.labels else f"{len(self.outputs)} outputs"
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


def open_bundle(
    path: str | os.PathLike[str], threads: int | None = None, engine: str | None = None
) -> Bundle:
    """Open a .edgecv file on the engine it was compiled for, or on another that reads its files.

    threads: the engine's computing threads; None leaves the engine module's default (1)
    engine:  one of edgecv.backends.ENGINES; None takes the manifest's

    Raises BundleError (damaged, newer), MissingExtraError (the engine is not installed),
    NoCudaDevice, EngineError (the engine refused the file).
    """
    return opened(read_bundle(Path(path)), threads, engine)


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
