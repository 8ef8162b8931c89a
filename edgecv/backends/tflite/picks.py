"""What a .tflite's operators pick of channels: every tensor as channels of the tensors that are
computed.

CONCATENATION, STRIDED_SLICE, SLICE, SPLIT, GATHER, GATHER_ND and TRANSPOSE along the channels of an
NHWC image only move them; so does a QUANTIZE from one grid to another, channel by channel. What
such an operator gives is a list of atoms: which source, and which of its channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer

LAST = (0, 1, 2, 3)  # the order of axes of an image in the file


@dataclass(frozen=True)
class Source:
    """A tensor that an operator computes, on the grids of the tensors in `grids`, one after the
    other."""

    tensor: int
    grids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Picked:
    """An image whose channels are atoms. axes: which axis of (N, H, W, C) each of its axes is."""

    atoms: tuple[tuple[Source, int], ...]
    axes: tuple[int, ...] = LAST

    @property
    def axis(self) -> int:
        """Where its channels are."""
        return self.axes.index(3)

    def of(self, places: Any) -> Picked:
        """Those channels of it."""
        return Picked(tuple(self.atoms[int(i)] for i in places), self.axes)


class Picks:
    """Of a ModelT. moved: what is picked, by tensor. shuffles: tensors of channels that an operator
    takes from several places. ops: the operators that only move, by id."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, flatbuffer.graph_of(model)
        self.moved: dict[int, Picked] = {}
        self.shuffles: set[int] = set()
        self.ops: set[int] = set()
        for op in self.graph.operators:
            found = self._found(op)
            if found is None or not self._one_grid(op):
                continue
            self.ops.add(id(op))
            for tensor, picked in zip(map(int, op.outputs), found, strict=True):
                self.moved[tensor] = picked

    def image(self, tensor: int) -> Picked | None:
        """A tensor as what it is made of; None for what is no image of one."""
        if tensor in self.moved:
            return self.moved[tensor]
        held = self.graph.tensors[tensor]
        shape = () if held.shape is None else tuple(map(int, held.shape))
        if len(shape) != 4 or shape[0] != 1 or not flatbuffer.is_activation(self.model, held):
            return None
        return Picked(tuple((Source(tensor), c) for c in range(shape[3])))

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

    def _one_grid(self, op: Any) -> bool:
        """Whether it changes no number; a QUANTIZE does so by its grids alone."""
        kind = flatbuffer.op_name(self.model, op)
        flow = [int(t) for t in op.inputs if self.constant(int(t)) is None]
        grids = {self.grid(t) for t in (*flow, *map(int, op.outputs))}
        return kind == "QUANTIZE" or len(grids) == 1

    def _found(self, op: Any) -> list[Picked] | None:
        read = {
            "CONCATENATION": self._joined,
            "STRIDED_SLICE": self._sliced,
            "SLICE": self._sliced,
            "SPLIT": self._split,
            "GATHER": self._gathered,
            "GATHER_ND": self._gathered,
            "TRANSPOSE": self._transposed,
            "QUANTIZE": self._requantized,
        }.get(flatbuffer.op_name(self.model, op))
        return read(op) if read else None

    def _joined(self, op: Any) -> list[Picked] | None:
        parts = [self.image(int(t)) for t in op.inputs]
        options, none = op.builtinOptions, flatbuffer.enum("ActivationFunctionType", "NONE")
        if any(p is None for p in parts) or options.fusedActivationFunction != none:
            return None
        images = [p for p in parts if p is not None]
        if len({p.axes for p in images}) != 1 or options.axis % 4 != images[0].axis:
            return None
        return [Picked(tuple(a for p in images for a in p.atoms), images[0].axes)]

    def _sliced(self, op: Any) -> list[Picked] | None:
        image, held = self.image(int(op.inputs[0])), [self.constant(int(t)) for t in op.inputs[1:]]
        if image is None or any(v is None or v.shape != (4,) for v in held):
            return None
        shape = [int(n) for n in self.graph.tensors[op.inputs[0]].shape]
        numbers = [[int(n) for n in v] for v in held if v is not None]
        each = _slices(op.builtinOptions, numbers)
        if each is None:
            return None
        places = [np.arange(n)[s] for n, s in zip(shape, each, strict=True)]
        if any(len(p) != n for i, (p, n) in enumerate(zip(places, shape, strict=True))
               if i != image.axis):  # fmt: skip
            return None
        return [self._of(op, image, places[image.axis])]

    def _split(self, op: Any) -> list[Picked] | None:
        image, axis = self.image(int(op.inputs[1])), self.constant(int(op.inputs[0]))
        if image is None or axis is None or int(axis.ravel()[0]) % 4 != image.axis:
            return None
        return [image.of(p) for p in np.split(np.arange(len(image.atoms)), len(op.outputs))]

    def _gathered(self, op: Any) -> list[Picked] | None:
        image, places = self.image(int(op.inputs[0])), self.constant(int(op.inputs[1]))
        if image is None or places is None:
            return None
        if flatbuffer.op_name(self.model, op) == "GATHER_ND":
            fits = image.axis == 0 and places.ndim == 2 and places.shape[1] == 1
        else:
            options = op.builtinOptions
            fits = options.axis % 4 == image.axis and not options.batchDims and places.ndim == 1
        return [self._of(op, image, places.ravel())] if fits else None

    def _transposed(self, op: Any) -> list[Picked] | None:
        image, order = self.image(int(op.inputs[0])), self.constant(int(op.inputs[1]))
        if image is None or order is None:
            return None
        return [Picked(image.atoms, tuple(image.axes[int(i)] for i in order))]

    def _requantized(self, op: Any) -> list[Picked] | None:
        image, new = self.image(int(op.inputs[0])), int(op.outputs[0])
        grids = [self.grid(t) for t in (int(op.inputs[0]), new)]
        if image is None or any(len(g) != 3 or len(g[1]) != 1 for g in grids):
            return None
        atoms = tuple((Source(s.tensor, (*s.grids, new)), c) for s, c in image.atoms)
        return [Picked(atoms, image.axes)]

    def _of(self, op: Any, image: Picked, places: np.ndarray) -> Picked:
        if np.any(np.diff(places) != 1):
            self.shuffles |= {int(t) for t in op.outputs}
        return image.of(places)


def _slices(options: Any, numbers: list[list[int]]) -> list[slice] | None:
    """What a STRIDED_SLICE's begin, end, strides or a SLICE's begin, size say, for each axis."""
    if len(numbers) == 2:
        ends = [None if n < 0 else b + n for b, n in zip(*numbers, strict=True)]
        return [slice(b, e) for b, e in zip(numbers[0], ends, strict=True)]
    others = ("ellipsisMask", "newAxisMask", "shrinkAxisMask")
    if any(getattr(options, name) for name in others) or getattr(options, "offset", False):
        return None
    begins, ends = (
        [None if mask >> i & 1 else n for i, n in enumerate(side)]
        for mask, side in zip((options.beginMask, options.endMask), numbers, strict=False)
    )
    return [slice(b, e, s) for b, e, s in zip(begins, ends, numbers[2], strict=True)]
