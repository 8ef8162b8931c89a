"""Channels are laid so that what is picked of them lies in a row: a slice is a copy of rows then.

    conv(x; w)[π]  =  conv(x; w[π])            w: (out, in);  a bias and scales likewise
    conv(x[π]; w)  =  conv(x; w[:, π⁻¹])       and per channel of a depthwise convolution

LiteRT runs a STRIDED_SLICE with a step, and a GATHER of channels, number by number: ShuffleNetV2's
shuffles take half of FastestDet's time. But whoever computes channels can give them in any order,
and whoever multiplies them can read them in any: each convolution's filters are sorted by who reads
them next, what a convolution reads is joined from rows of its sources, and what passes by is copied
no more. The numbers are the same, in another place; where a network gives them out, or an operator
minds their order, it stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgecv.backends.tflite.picks import Picks, Source
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.index import Index

# Operators that do the same to every channel, or hold numbers for each.
CARRIERS = frozenset((
    "AVERAGE_POOL_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC",
    "MAX_POOL_2D", "PAD", "PADV2", "QUANTIZE", "RELU", "RELU6", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "TANH",
))  # fmt: skip
NARROW = 3  # channels in a row of what is joined, on average: below, copying rows is no gain

Row = tuple[Source, int, int]  # channels begin..end of a source, as they lie


class Layout:
    """Where each channel lies. order: the file's channel at each place, by tensor; rows: what a
    tensor is joined from. Both of what was laid."""

    def __init__(self, picks: Picks) -> None:
        self.picks, self.graph = picks, picks.graph
        self.index = Index(picks.graph)
        self.outputs = {int(t) for t in picks.graph.outputs}
        self._free: dict[int, bool] = {}
        self.order: dict[int, np.ndarray] = {}
        self.rows: dict[int, list[Row]] = {}
        self.joined: list[int] = []

    def kind(self, op: Any) -> str:
        return flatbuffer.op_name(self.picks.model, op)

    def free(self, tensor: int) -> bool:
        """Whether its channels may lie in any order."""
        if tensor not in self._free:
            readers = self.index.readers.get(tensor, [])
            self._free[tensor] = tensor not in self.outputs and all(
                self._takes(op, tensor) for op in readers
            )
        return self._free[tensor]

    def _takes(self, op: Any, tensor: int) -> bool:
        if id(op) in self.picks.ops or self.carries(op, tensor):
            return all(self.free(int(t)) for t in op.outputs)
        return self.multiplies(op, tensor)

    def multiplies(self, op: Any, tensor: int) -> bool:
        """Whether op is a convolution over all of a tensor's channels, with constant weights."""
        if self.kind(op) != "CONV_2D" or int(op.inputs[0]) != tensor:
            return False
        weight, shape = self.graph.tensors[op.inputs[1]], self.graph.tensors[tensor].shape
        held = not flatbuffer.is_activation(self.picks.model, weight)
        return held and int(weight.shape[3]) == int(shape[3])

    def carries(self, op: Any, tensor: int) -> bool:
        """Whether op gives the channels of an image as they lie."""
        kind, result = self.kind(op), self.graph.tensors[op.outputs[0]]
        if kind not in CARRIERS or int(op.inputs[0]) != tensor or id(op) in self.picks.ops:
            return False
        if any(len(self.graph.tensors[t].shape) != 4 for t in (tensor, op.outputs[0])):
            return False
        held = [self.picks.constant(int(t)) for t in op.inputs[1:] if t >= 0]
        same = int(result.shape[3]) == int(self.graph.tensors[tensor].shape[3])
        return same and all(v is not None for v in held)

    def sorts(self, tensor: int) -> bool:
        """Whether a convolution makes it, whose filters may be sorted."""
        op = self.index.makers.get(tensor)
        return op is not None and self.multiplies(op, int(op.inputs[0])) and self.free(tensor)

    def lay(self, of: set[int]) -> bool:
        """Lay the tensors of these components; whether rows are wide enough."""
        self.joined = [
            t for op in self.graph.operators if id(op) in self.picks.ops
            for t in map(int, op.outputs) if t in of and self._is_read(t)
        ]  # fmt: skip
        self._sort(of)
        for op in self.graph.operators:
            first = int(op.inputs[0]) if len(op.inputs) else -1
            if first in self.order and self.carries(op, first):
                self.order[int(op.outputs[0])] = self.order[first]
            for t in map(int, op.outputs):
                if t in self.joined and not self._join(t):
                    return False
        return True

    def _is_read(self, tensor: int) -> bool:
        readers = self.index.readers.get(tensor, [])
        return tensor in self.outputs or any(id(op) not in self.picks.ops for op in readers)

    def _sort(self, of: set[int]) -> None:
        """Each convolution's filters by who reads them: the first reader's in front."""
        read: dict[int, np.ndarray] = {}
        for place, tensor in enumerate(self.joined):
            for source, channel in self.picks.moved[tensor]:
                shape = self.graph.tensors[source.tensor].shape
                table = read.setdefault(
                    source.tensor, np.ones((len(self.joined), int(shape[3])), np.int8)
                )
                table[place, channel] = 0
        for tensor, table in read.items():
            if tensor in of and self.sorts(tensor):
                self.order[tensor] = np.lexsort(table[::-1])

    def _join(self, tensor: int) -> bool:
        atoms = self.picks.moved[tensor]
        places = [self._place(source, channel) for source, channel in atoms]
        first = {source: i for i, (source, _) in reversed(list(enumerate(atoms)))}
        order = np.arange(len(places))
        if self.free(tensor):
            keys = [(first[a[0]], place) for a, place in zip(atoms, places, strict=True)]
            order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
        rows: list[Row] = []
        for i in order:
            source, place = atoms[i][0], places[i]
            if rows and rows[-1][0] == source and rows[-1][2] == place:
                rows[-1] = (source, rows[-1][1], place + 1)
            else:
                rows.append((source, place, place + 1))
        self.order[tensor], self.rows[tensor] = order, rows
        return len(rows) * NARROW <= len(places)

    def _place(self, source: Source, channel: int) -> int:
        order = self.order.get(source.tensor)
        return channel if order is None else int(np.flatnonzero(order == channel)[0])


def components(picks: Picks) -> Iterator[set[int]]:
    """Tensors that share an order of channels, where there is a shuffle among them."""
    layout, above = Layout(picks), dict[int, int]()

    def top(t: int) -> int:
        while above.setdefault(t, t) != t:
            t = above[t]
        return t

    for op in picks.graph.operators:
        flow = [int(t) for t in op.inputs if t >= 0 and picks.constant(int(t)) is None]
        if id(op) in picks.ops or (flow and layout.carries(op, flow[0])):
            for t in (*flow, *map(int, op.outputs)):
                above[top(t)] = top(int(op.outputs[0]))
    roots = {top(t) for t in picks.shuffles}
    for root in sorted(roots):
        yield {t for t in list(above) if top(t) == root}
