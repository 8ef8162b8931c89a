"""What a .tflite's operators pick of channels: every image as channels of the tensors that are
computed.

CONCATENATION, STRIDED_SLICE, SLICE, SPLIT, GATHER, GATHER_ND along the channels of an NHWC image
only move them; so do a RESHAPE and a TRANSPOSE where the operators behind bring all back to an
image; a QUANTIZE from one grid to another is done to each channel. What such an operator gives is a
list of atoms: which source, and which of its channels. What lies between two images is followed
number by number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.index import Index

MOST = 1 << 22  # numbers of an image that are followed
SHAPED = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")


@dataclass(frozen=True)
class Source:
    """A tensor that an operator computes, on the grids of the tensors in `grids`, one after the
    other."""

    tensor: int
    grids: tuple[int, ...] = ()


Atoms = tuple[tuple[Source, int], ...]  # of an image, by channel


@dataclass(frozen=True)
class _Between:
    """A tensor as numbers of an image: where in (H, W, C) each of them lies."""

    atoms: Atoms
    size: tuple[int, int]
    places: np.ndarray


class Picks:
    """Of a ModelT. moved: what images are made of. shuffles: those of channels that an operator
    takes from several places. ops: the operators that only move, by id."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, flatbuffer.graph_of(model)
        self.moved: dict[int, Atoms] = {}
        self.shuffles: set[int] = set()
        self.ops: set[int] = set()
        self._between: dict[int, _Between] = {}
        for op in self.graph.operators:
            if self._one_grid(op) and self._read(op):
                self.ops.add(id(op))
        self._settle()

    def image(self, tensor: int) -> Atoms | None:
        """What an image is made of; None for what is none."""
        if tensor in self.moved:
            return self.moved[tensor]
        held = self.graph.tensors[tensor]
        shape = () if held.shape is None else tuple(map(int, held.shape))
        if len(shape) != 4 or shape[0] != 1 or tensor in self._between:
            return None
        if not flatbuffer.is_activation(self.model, held):
            return None
        return tuple((Source(tensor), c) for c in range(shape[3]))

    def constant(self, tensor: int) -> np.ndarray | None:
        return flatbuffer.constant(self.model, self.graph.tensors[tensor])

    def grid(self, tensor: int) -> tuple[Any, ...]:
        """The type and the grid of an activation."""
        held = self.graph.tensors[tensor]
        given = held.quantization
        if given is None or given.scale is None:
            return (held.type,)
        zeros = given.zeroPoint if given.zeroPoint is not None else ()
        return held.type, tuple(map(float, given.scale)), tuple(map(int, zeros))

    def _settle(self) -> None:
        """What somebody reads who minds its shape is moved by an operator like any other."""
        readers, ends = Index(self.graph).readers, {int(t) for t in self.graph.outputs}
        for op in reversed(self.graph.operators):
            for t in map(int, op.outputs if id(op) in self.ops else ()):
                minded = t in ends or any(id(o) not in self.ops for o in readers.get(t, []))
                if t in self._between and minded:
                    self.ops.discard(id(op))

    def _one_grid(self, op: Any) -> bool:
        """Whether it changes no number; a QUANTIZE does so by its grids alone."""
        flow = [int(t) for t in op.inputs if t >= 0 and self.constant(int(t)) is None]
        grids = {self.grid(t) for t in (*flow, *map(int, op.outputs))}
        return self._kind(op) == "QUANTIZE" or len(grids) == 1

    def _read(self, op: Any) -> bool:
        """Whether it only moves channels; what it gives is known then."""
        kind = self._kind(op)
        if kind == "CONCATENATION":
            return self._joined(op)
        if kind == "QUANTIZE":
            return self._requantized(op)
        taken = _taken(kind, op, [self.constant(int(t)) for t in op.inputs], self._shapes(op))
        if taken is None:
            return False
        source = int(op.inputs[1 if kind == "SPLIT" else 0])
        atoms = self.image(source)
        last = kind == "GATHER" and op.builtinOptions.axis in (3, -1)
        if atoms is not None and (last or kind in ("SLICE", "STRIDED_SLICE", "SPLIT")):
            return self._of_image(op, source, atoms, taken)
        return self._of_numbers(op, source, atoms, taken)

    def _of_image(self, op: Any, source: int, atoms: Atoms, taken: Any) -> bool:
        shape = tuple(map(int, self.graph.tensors[source].shape))
        given = taken(np.broadcast_to(np.arange(shape[3]), shape))
        if any(g.ndim != 4 or g.shape[:3] != shape[:3] for g in given):
            return False
        for tensor, channels in zip(map(int, op.outputs), given, strict=True):
            self._give(tensor, atoms, channels[0, 0, 0])
        return True

    def _of_numbers(self, op: Any, source: int, atoms: Atoms | None, taken: Any) -> bool:
        before = self._between.get(source)
        if before is None and atoms is not None:
            shape = tuple(map(int, self.graph.tensors[source].shape))
            if np.prod(shape) > MOST:
                return False
            numbers = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
            before = _Between(atoms, (shape[1], shape[2]), numbers)
        if before is None:
            return False
        for tensor, places in zip(map(int, op.outputs), taken(before.places), strict=True):
            channels = _channels(places, before)
            if channels is None:
                self._between[tensor] = _Between(before.atoms, before.size, places)
            else:
                self._give(tensor, before.atoms, channels)
        return True

    def _give(self, tensor: int, atoms: Atoms, channels: np.ndarray) -> None:
        self.moved[tensor] = tuple(atoms[int(c)] for c in channels)
        if np.any(np.diff(channels) != 1):
            self.shuffles.add(tensor)

    def _joined(self, op: Any) -> bool:
        parts = [self.image(int(t)) for t in op.inputs]
        none = flatbuffer.enum("ActivationFunctionType", "NONE")
        if any(p is None for p in parts) or op.builtinOptions.axis not in (3, -1):
            return False
        if op.builtinOptions.fusedActivationFunction != none:
            return False
        self.moved[int(op.outputs[0])] = tuple(a for p in parts if p is not None for a in p)
        return True

    def _requantized(self, op: Any) -> bool:
        old, new = int(op.inputs[0]), int(op.outputs[0])
        image, grids = self.image(old), [self.grid(t) for t in (old, new)]
        if image is None or any(len(g) != 3 or len(g[1]) != 1 for g in grids):
            return False
        self.moved[new] = tuple((Source(s.tensor, (*s.grids, new)), c) for s, c in image)
        return True

    def _kind(self, op: Any) -> str:
        return flatbuffer.op_name(self.model, op)

    def _shapes(self, op: Any) -> list[tuple[int, ...]]:
        """Of what it gives."""
        held = [self.graph.tensors[t].shape for t in op.outputs]
        return [() if s is None else tuple(map(int, s)) for s in held]


def _channels(places: np.ndarray, of: _Between) -> np.ndarray | None:
    """Which channels of an image a tensor is, where it is an image of the same size."""
    high, wide = of.size
    if places.ndim != 4 or places.shape[:3] != (1, high, wide):
        return None
    channels = places[0, 0, 0]
    first = np.arange(high * wide, dtype=np.int32).reshape(high, wide, 1) * len(of.atoms)
    same = np.array_equal(places[0], first + channels) and channels.max() < len(of.atoms)
    return channels if same else None


def _taken(kind: str, op: Any, held: list[np.ndarray | None], shapes: list[tuple[int, ...]]) -> Any:
    """What an operator does to an array, as a function that gives a list; None where it is none
    that moves."""
    options, second = op.builtinOptions, held[1] if len(held) > 1 else None
    if kind in SHAPED:
        return lambda x: [x.reshape(shapes[0])]
    if kind == "TRANSPOSE" and second is not None:
        return lambda x: [x.transpose(second)]
    if kind == "SPLIT" and held[0] is not None:
        axis = int(held[0].ravel()[0])
        return lambda x: np.split(x, len(op.outputs), axis)
    if kind == "GATHER" and second is not None and second.ndim < 2 and not options.batchDims:
        return lambda x: [x.take(second, options.axis)]
    if kind == "GATHER_ND" and second is not None and second.ndim == 2 and second.shape[1] == 1:
        return lambda x: [x[second[:, 0]]]
    if kind in ("SLICE", "STRIDED_SLICE") and all(v is not None for v in held[1:]):
        each = _slices(options, [[int(n) for n in v] for v in held[1:] if v is not None])
        return None if each is None else lambda x: [x[tuple(each)]]
    return None


def _slices(options: Any, numbers: list[list[int]]) -> list[slice] | None:
    """What a STRIDED_SLICE's begin, end, strides or a SLICE's begin, size say, for each axis."""
    if len(numbers) == 2:
        ends = [None if n < 0 else b + n for b, n in zip(*numbers, strict=True)]
        return [slice(b, e) for b, e in zip(numbers[0], ends, strict=True)]
    others = ("ellipsisMask", "newAxisMask", "shrinkAxisMask")
    if any(getattr(options, name) for name in others) or getattr(options, "offset", False):
        return None
    if min(numbers[2]) < 1:
        return None
    begins, ends = (
        [None if mask >> i & 1 else n for i, n in enumerate(side)]
        for mask, side in zip((options.beginMask, options.endMask), numbers, strict=False)
    )
    return [slice(b, e, s) for b, e, s in zip(begins, ends, numbers[2], strict=True)]
