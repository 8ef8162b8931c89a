"""A network as its user knows it, on an engine that may hold its tensors otherwise.

The graph's own names, shapes and layout on one side; on the other the engine's, which may keep
channels last, integers on a grid, or other names. Arrays go in and come out on the graph's side.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from edgecv.errors import DataError
from edgecv.runtime.spec import TensorSpec, dequantise, on_grid, quantise

Pairs = tuple[tuple[TensorSpec, TensorSpec], ...]  # (the graph's own, the engine's)


def own(engine: Sequence[TensorSpec], graph: Sequence[TensorSpec]) -> Pairs:
    """Each engine tensor with the graph's: by name, else by place; its own where nothing is known
    of the graph, or it cannot be the same tensor."""
    if len(engine) != len(graph):
        return tuple((_real(e), e) for e in engine)
    named = {g.name: g for g in graph}
    by_name = {e.name for e in engine} == named.keys()
    pairs = [(named[e.name] if by_name else g, e) for e, g in zip(engine, graph, strict=True)]
    return tuple((g if prod(g.shape) == prod(e.shape) else _real(e), e) for g, e in pairs)


def _real(spec: TensorSpec) -> TensorSpec:
    """The engine's tensor, in real numbers where it is on a grid."""
    if not on_grid(spec):
        return spec
    return TensorSpec(spec.name, "float32", spec.shape, spec.layout, kind=spec.kind)


class Interface:
    """inputs, outputs: (the graph's own, the engine's) of each. where: what errors call it"""

    def __init__(self, inputs: Pairs, outputs: Pairs, where: str) -> None:
        self.inputs, self.outputs = tuple(g for g, _ in inputs), tuple(g for g, _ in outputs)
        self._in = {g.name: (g, e) for g, e in inputs}
        # what goes to the engine as it is: arrays of its own, where nothing else can be meant
        self._ready = {
            g.name: (np.dtype(e.dtype), e.shape)
            for g, e in inputs
            if g.name == e.name and (g.shape != e.shape or not _moved(g, e))
        }
        self._grids = [e for g, e in outputs if on_grid(e) and _in_place(g, e)]
        self._others = [(g, e) for g, e in outputs if not _in_place(g, e)]
        self._where = where

    def feed(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """What the engine takes. An input takes the graph's own shape in its dtype or in float32,
        or the engine's own shape and dtype. Raises DataError."""
        expected = self._in
        if not isinstance(feeds, Mapping):
            what = f"{type(feeds).__name__} given, not arrays by input name"
            raise DataError(self._where, what, f"run({{{next(iter(expected))!r}: array}})")
        if feeds.keys() != expected.keys():
            got, names = ", ".join(map(repr, feeds)) or "none", ", ".join(map(repr, expected))
            raise DataError(self._where, f"inputs {got} given, not {names}")
        for name, array in feeds.items():
            ready = self._ready.get(name)
            if not isinstance(array, np.ndarray) or (array.dtype, array.shape) != ready:
                return {e.name: self._fit(feeds[g.name], g, e) for g, e in expected.values()}
        return feeds

    def answer(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the engine answers, in the graph's own names, layout and real numbers."""
        for grid in self._grids:
            outputs[grid.name] = dequantise(outputs[grid.name], grid)
        if self._others:
            for graph, engine in self._others:
                values = outputs.pop(engine.name)
                values = dequantise(values, engine) if on_grid(engine) else values
                outputs[graph.name] = _turned(values, engine, graph).astype(graph.dtype, copy=False)
            return {g.name: outputs[g.name] for g in self.outputs}
        return outputs

    def _fit(self, array: object, graph: TensorSpec, engine: TensorSpec) -> np.ndarray:
        where = f"{self._where}: input {graph.name!r}"
        wanted = f"{graph.dtype} {graph.shape}"
        if not isinstance(array, np.ndarray):
            raise DataError(where, f"{type(array).__name__} is not an array", f"pass {wanted}")
        if array.shape == graph.shape:
            array = _turned(array, graph, engine)
        elif array.shape != engine.shape:
            raise DataError(where, f"shape {array.shape} given", f"pass {wanted}")
        if array.dtype == engine.dtype:
            return array
        if array.dtype == np.float32 and on_grid(engine):
            if not np.isfinite(array).all():
                raise DataError(where, "NaN or infinity has no place on an integer grid")
            return quantise(array, engine)
        if array.dtype == graph.dtype:
            return array.astype(engine.dtype)
        raise DataError(where, f"dtype {array.dtype} given", f"pass {wanted}")


def _in_place(graph: TensorSpec, engine: TensorSpec) -> bool:
    """Whether the engine's array is the graph's once it is in real numbers."""
    dtype = "float32" if on_grid(engine) else engine.dtype
    same = (graph.name, graph.shape, graph.dtype) == (engine.name, engine.shape, dtype)
    return same and not _moved(graph, engine)


def _moved(a: TensorSpec, b: TensorSpec) -> bool:
    """Whether one of two has its channels last. What a graph calls no image (a second picture, a
    mask: "NC") lies as a graph has its tensors, channels first."""
    return len(a.shape) == len(b.shape) == 4 and (a.layout == "NHWC") != (b.layout == "NHWC")


def _turned(array: np.ndarray, held: TensorSpec, wanted: TensorSpec) -> np.ndarray:
    """An array as the other side lays it out; memory in order."""
    if _moved(held, wanted):
        order = (0, 2, 3, 1) if wanted.layout == "NHWC" else (0, 3, 1, 2)
        if tuple(array.shape[axis] for axis in order) == wanted.shape:  # else called so wrongly
            array = array.transpose(order)
    return np.asarray(array, order="C").reshape(wanted.shape)
