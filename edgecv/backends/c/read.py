"""An ONNX graph as steps in C.

    float    Conv, Gemm, Add, pooling, activations: as they are
    int8     Q/DQ around them: `products.py`
    one bit  the operators of `edgecv.binary.lowering`: `one_bit.py`

What has no integer form here runs in float between its own conversions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.backends.c.maps import Maps
from edgecv.backends.c.network import Network
from edgecv.backends.c.one_bit import OneBit
from edgecv.backends.c.plan import same
from edgecv.backends.c.recurrent import Recurrent
from edgecv.backends.c.transposed import Transposed
from edgecv.errors import UnsupportedError

DOMAINS = ("", "ai.onnx", "edgecv")


def read(model: Any, where: str) -> Network:
    """The steps of an onnx.ModelProto, lowered already. Raises UnsupportedError with the node."""
    return _Reader(model, where).run()


class _Reader(Transposed, Maps, OneBit, Recurrent):
    def run(self) -> Network:
        source, (channels, high, wide) = self._source()
        self._new(source.name, (high, wide, channels))
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
            taken = {self._home(n) for n in (source.name, *results)}
            if self._home(result) in taken:  # each output has a place of its own
                result = self._again(output.name, result)
            results.append(result)
            shapes.append(shape)
        made = Network(self.steps, self.tensors, source.name, results[0], results[1:])
        if len(results) > 1 or shapes[0] is not None:
            made.shapes = [s or self._mapped(t) for s, t in zip(shapes, results, strict=True)]
        return made

    def _source(self) -> tuple[Any, tuple[int, int, int]]:
        """The input and its (channels, height, width). Raises UnsupportedError."""
        inputs = [i for i in self.graph.input if i.name not in self.values]
        shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in inputs}
        one = len(inputs) == 1 and len(shapes[inputs[0].name]) == 4
        if not one or shapes[inputs[0].name][0] != 1:
            said = ", ".join(f"{n!r} {tuple(s)}" for n, s in shapes.items())
            raise UnsupportedError(
                self.where,
                f"takes {said}: C code is written for one image, batch 1",
                "cut it at what reads the image (--until), or take another target",
            )
        _, channels, high, wide = shapes[inputs[0].name]
        return inputs[0], (channels, high, wide)

    def _result(self, name: str) -> tuple[str, tuple[int, ...] | None]:
        """The tensor of an output, as floats; its shape where that is no image's and no row's."""
        shape = self.views[name].at.shape if self._is_view(name) else self.shapes.get(name)
        shape = None if shape and 0 in shape else shape
        image = shape is None or (len(shape) == 4 and shape[0] == 1)
        if image and not self._is_view(name) and self._at(name).last:
            image = False
        row = shape is not None and len(shape) == 2 and shape[0] == 1
        if (image or row) and self._at(name).order is None:
            return self._float(name), None
        view = self._view(self.makers[name], name)
        x, shape = self.tensors[view.base], None if row else shape
        if np.array_equal(view.at.reshape(-1), np.arange(x.values)):
            return self._floats(view.base), shape
        own = f"{name}/output"
        self._gathered(self.makers[name], x, view.at, view.fill, own, (1, 1, view.at.size))
        return self._floats(own), shape

    def _again(self, name: str, tensor: str) -> str:
        """A copy of a tensor: what two outputs give, or what is the input."""
        x, own = self.tensors[tensor], f"{name}/again"
        at = np.arange(x.values)
        self._gathered(self.makers.get(name), x, at, 0.0, own, x.shape)
        self.tensors[own] = replace(self.tensors[own], order=x.order, last=x.last)
        return own

    def _home(self, name: str) -> str:
        return same(Network(self.steps, self.tensors, "", "")).get(name, name)

    def _mapped(self, tensor: str) -> tuple[int, ...]:
        high, wide, channels = self.tensors[tensor].shape
        return (1, channels) if high * wide == 1 else (1, channels, high, wide)
