"""A .tflite without shuffles of channels: see `channels.py` for what is done and why."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.tflite.channels import Layout, Row, components
from edgecv.backends.tflite.parts import activation, numbers, operator
from edgecv.backends.tflite.picks import Picks, Source
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import SORTED, own

WIDEST = 5  # tensors that XNNPACK joins at once (VisitConcatenationNode of LiteRT's delegate)


def unshuffled(model: Any) -> int:
    """Rewrite a ModelT in place; how many shuffles there were."""
    picks = Picks(model)
    found = [part for part in components(picks) if Layout(picks).lay(part)]
    if not found:
        return 0
    together = set[int]().union(*found)
    layout = Layout(picks)
    layout.lay(together)
    _Written(layout, together).write()
    return len(picks.shuffles & together)


class _Written:
    def __init__(self, layout: Layout, of: set[int]) -> None:
        self.layout, self.of = layout, of
        self.model, self.graph = layout.picks.model, layout.graph
        self.held: dict[Any, int] = {}  # what was made of a source, or of a row of it
        self.instead: dict[int, int] = {}  # a tensor that is another one whole
        self.made: list[Any] = []

    def write(self) -> None:
        for op in self.graph.operators:
            if id(op) not in self.layout.picks.ops or not self.of & {int(t) for t in op.outputs}:
                self._ordered(op)
                op.inputs = [self.instead.get(int(t), int(t)) for t in op.inputs]
                self.made.append(op)
            for t in map(int, op.outputs):
                if t in self.layout.rows:
                    self._join(t, self.layout.rows[t])
        for tensor, order in self.layout.order.items():
            if np.any(np.diff(order) != 1):
                self.graph.tensors[tensor].name += SORTED.encode()
        self.graph.operators = self.made

    def _ordered(self, op: Any) -> None:
        """Its weights for the order of what it reads and gives."""
        kind, (first, *_) = flatbuffer.op_name(self.model, op), map(int, op.inputs)
        reads, gives = (self.layout.order.get(int(t)) for t in (first, op.outputs[0]))
        if kind == "CONV_2D" and reads is not None and self.layout.multiplies(op, first):
            self._permute(own(self.model, op, 1), 3, reads)
        if kind == "CONV_2D" and gives is not None:
            self._permute(own(self.model, op, 1), 0, gives)
        if kind == "DEPTHWISE_CONV_2D" and gives is not None:
            self._permute(own(self.model, op, 1), 3, gives)
        biased = "CONV_2D" in kind and len(op.inputs) > 2 and op.inputs[2] >= 0
        if biased and gives is not None:
            self._permute(own(self.model, op, 2), 0, gives)

    def _permute(self, tensor: Any, axis: int, order: np.ndarray) -> None:
        values, grid = flatbuffer.constant(self.model, tensor), tensor.quantization
        assert values is not None
        flatbuffer.set_constant(self.model, tensor, values.take(order, axis))
        if grid is None or grid.scale is None or int(grid.quantizedDimension) != axis:
            return
        for name in ("scale", "zeroPoint", "min", "max"):
            each = getattr(grid, name)
            if each is not None and len(each) == len(order):
                setattr(grid, name, [each[int(i)] for i in order])

    def _join(self, tensor: int, rows: list[Row]) -> None:
        parts = [self._row(*row) for row in rows]
        if len(parts) == 1 and tensor not in self.layout.outputs:
            self.instead[tensor] = parts[0]
            return
        while len(parts) > WIDEST:  # those in front are the oldest, of which least is left
            first = parts[: min(WIDEST, len(parts) - WIDEST + 1)]
            shapes = [list(self.graph.tensors[t].shape) for t in first]
            shape = [*shapes[0][:3], sum(int(s[3]) for s in shapes)]
            made = self._like(tensor, f"{self._name(tensor)}/{len(parts)}", shape)
            self._concatenate(first, made)
            parts = [made, *parts[len(first) :]]
        self._concatenate(parts, tensor)

    def _concatenate(self, parts: list[int], tensor: int) -> None:
        self._add("CONCATENATION", parts, tensor)
        self.made[-1].builtinOptions.axis = 3

    def _row(self, source: Source, begin: int, end: int) -> int:
        """The tensor that holds a row of a source's channels."""
        whole = self._source(source)
        shape = [int(n) for n in self.graph.tensors[whole].shape]
        if end - begin == shape[3]:
            return whole
        key = (source, begin, end)
        if key not in self.held:
            starts = self._numbers("begin", [0, 0, 0, begin])
            sizes = self._numbers("size", [*shape[:3], end - begin])
            name = f"{self._name(whole)}/{begin}:{end}"
            made = self._like(whole, name, [*shape[:3], end - begin])
            self._add("SLICE", [whole, starts, sizes], made)
            self.held[key] = made
        return self.held[key]

    def _source(self, source: Source) -> int:
        """The tensor of a source, on its last grid."""
        if not source.grids:
            return source.tensor
        if source not in self.held:
            before = self._source(Source(source.tensor, source.grids[:-1]))
            name = f"{self._name(source.tensor)}/{self._name(source.grids[-1])}"
            made = self._like(source.grids[-1], name, list(self.graph.tensors[before].shape))
            self._add("QUANTIZE", [before], made)
            self.held[source] = made
        return self.held[source]

    def _like(self, tensor: int, name: str, shape: list[int]) -> int:
        return activation(self.model, name, shape, self.graph.tensors[tensor])

    def _numbers(self, kind: str, values: list[int]) -> int:
        key = (kind, *values)
        if key not in self.held:
            name = f"{kind}/{'_'.join(map(str, values))}"
            self.held[key] = numbers(self.model, name, values)
        return self.held[key]

    def _add(self, kind: str, inputs: list[int], output: int) -> None:
        self.made.append(operator(self.model, kind, inputs, output))

    def _name(self, tensor: int) -> str:
        return str(bytes(self.graph.tensors[tensor].name).decode())
