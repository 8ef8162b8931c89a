"""An ONNX graph as steps in C.

    float    Conv, Gemm, Add, pooling, activations: as they are
    int8     Q/DQ around them: `linear.py`
    one bit  the operators of `edgecv.binary.lowering`: `one_bit.py`

What has no integer form here runs in float between its own conversions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.backends.c.arena import same
from edgecv.backends.c.elementwise import Maps
from edgecv.backends.c.network import Network
from edgecv.backends.c.one_bit import OneBit
from edgecv.backends.c.recurrent import Recurrent
from edgecv.backends.c.transposed import Transposed

DOMAINS = ("", "ai.onnx", "edgecv")


def read(model: Any, where: str) -> Network:
    """The steps of an onnx.ModelProto, lowered already. Raises UnsupportedError with the node."""
    return _Reader(model, where).run()


class _Reader(Transposed, Maps, OneBit, Recurrent):
    taken: dict[str, tuple[int, ...]] = {}  # of the inputs, where that is not one image

    def run(self) -> Network:
        sources = self._sources()
        for node in self.graph.node:
            if node.op_type == "Constant" or node.output[0] in self.done:
                continue
            handler = getattr(self, f"_{node.op_type.lower()}", None)
            if handler is None or node.domain not in DOMAINS:
                raise self._refused(node, f"{node.op_type} has no C kernel")
            handler(node)
        results: list[str] = []
        shapes: list[tuple[int, ...] | None] = []
        for output in self.graph.output:
            result, shape = self._result(output.name)
            taken = {self._home(n) for n in (*sources, *results)}
            if self._home(result) in taken:  # each output has a place of its own
                result = self._again(output.name, result)
            results.append(result)
            shapes.append(shape)
        made = Network(self.steps, self.tensors, sources[0], results[0], results[1:])
        made.others, made.taken = sources[1:], self.taken
        if len(results) > 1 or shapes[0] is not None:
            made.shapes = [s or self._mapped(t) for s, t in zip(shapes, results, strict=True)]
        return made

    def _sources(self) -> list[str]:
        """The tensors of the inputs, in the graph's order."""
        names = [i.name for i in self.graph.input if i.name not in self.values]
        if len(names) > 1 or len(self.shapes[names[0]]) != 4 or self.shapes[names[0]][0] != 1:
            self.taken = {n: self.shapes[n] for n in names}
        return [str(self._out(n, self.shapes[n]).held) for n in names]

    def _result(self, name: str) -> tuple[str, tuple[int, ...] | None]:
        """The tensor of an output, as floats; its shape where that is no image's and no row's."""
        shape = self.views[name].at.shape if self._is_view(name) else self.shapes.get(name)
        shape = None if shape and 0 in shape else shape
        if shape and len(shape) == 4 and shape[0] > 1 and not self._is_view(name):
            x = self._at(name)
            if not x.last and x.order is None:
                return self._float(name), shape
        image = shape is None or (len(shape) == 4 and shape[0] == 1)
        if image and not self._is_view(name) and self._at(name).last:
            image = False
        row = shape is not None and len(shape) == 2 and shape[0] == 1
        if (image or row) and self._at(name).order is None:
            return self._float(name), None
        view = self._view(self.makers.get(name), name)
        x, shape = self.tensors[view.base], None if row else shape
        if np.array_equal(view.at.reshape(-1), np.arange(x.values)):
            return self._floats(view.base), shape
        own = f"{name}/output"
        self._gathered(self.makers.get(name), x, view.at, view.fill, own, (1, 1, view.at.size))
        return self._floats(own), shape

    def _again(self, name: str, tensor: str) -> str:
        """A copy of a tensor: what two outputs give, or what is the input."""
        x, own = self.tensors[tensor], f"{name}/again"
        at = np.arange(x.values)
        self._gathered(self.makers.get(name), x, at, 0.0, own, x.shape)
        self.tensors[own] = replace(self.tensors[own], order=x.order, last=x.last, images=x.images)
        return own

    def _home(self, name: str) -> str:
        return same(Network(self.steps, self.tensors, "", "")).get(name, name)

    def _mapped(self, tensor: str) -> tuple[int, ...]:
        x = self.tensors[tensor]
        high, wide, channels = x.one
        return (1, channels) if x.values == channels else (x.images, channels, high, wide)
