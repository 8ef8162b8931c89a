"""A growing row of ONNX nodes behind a model's outputs, by onnx.helper. Host only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PREFIX = "edgecv/"


class Nodes:
    """model: onnx.ModelProto, changed by `end` alone"""

    def __init__(self, model: Any) -> None:
        graph = model.graph
        self.model = model
        self._made: list[Any] = []
        self._held: list[Any] = []
        self._types = {o.name: o.type.tensor_type.elem_type for o in graph.output}
        self._taken = {n for node in graph.node for n in (*node.input, *node.output)}
        self._taken |= {t.name for t in (*graph.input, *graph.initializer)}
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))

    def _name(self, wanted: str) -> str:
        while wanted in self._taken:
            wanted = f"{PREFIX}{wanted}"
        self._taken.add(wanted)
        return wanted

    def constant(self, array: Any) -> str:
        """Of float32 or int64: a number is of float32."""
        from onnx import numpy_helper

        array = np.asarray(array)
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        name = self._name(f"{PREFIX}c{len(self._held)}")
        self._held.append(numpy_helper.from_array(np.array(array, kind, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, op: str, *given: str, name: str = "", outputs: int = 1, **attributes: Any) -> str:
        """A node; the name of its first output. name: what that shall be called"""
        return self.both(op, *given, name=name, outputs=outputs, **attributes)[0]

    def both(
        self, op: str, *given: str, name: str = "", outputs: int = 2, **attributes: Any
    ) -> tuple[str, ...]:
        """A node; the names of its outputs."""
        from onnx import helper

        at = len(self._made)
        names = [self._name(name or f"{PREFIX}n{at}")]
        names += [self._name(f"{PREFIX}n{at}_{i}") for i in range(1, outputs)]
        called = f"{PREFIX}{op}_{at}"
        self._made.append(helper.make_node(op, list(given), names, name=called, **attributes))
        return tuple(names)

    def floats(self, name: str) -> str:
        """An output of the model in float32."""
        return name if self._types.get(name) == 1 else self.add("Cast", name, to=1)

    def rows(self, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> str:
        """(1, N, C) of one tensor (1, N, C), or of maps (1, C, H, W), one after another."""
        if len(shapes[0]) == 3:
            return names[0]
        flat = [
            self.add(
                "Transpose", self.add("Reshape", name, self.ints(1, s[1], s[2] * s[3])),
                perm=[0, 2, 1],
            )
            for name, s in zip(names, shapes, strict=True)
        ]  # fmt: skip
        return self.add("Concat", *flat, axis=1) if len(flat) > 1 else flat[0]

    def columns(self, name: str, start: int, end: int = 1 << 40) -> str:
        """Of the last axis of (1, N, C)."""
        return self.add("Slice", name, self.ints(start), self.ints(end), self.ints(2))

    def any_nan(self, name: str) -> str:
        """bool (1, N, 1) of (1, N, C)."""
        return self._any(self.add("IsNaN", name))

    def any_below(self, name: str, least: float) -> str:
        """bool (1, N, 1) of (1, N, C): whether one is at most `least`."""
        return self._any(self.add("Not", self.add("Greater", name, self.constant(least))))

    def _any(self, truths: str) -> str:
        seen = self.add("Cast", truths, to=1)
        if self.opset < 18:
            most = self.add("ReduceMax", seen, axes=[2], keepdims=1)
        else:
            most = self.add("ReduceMax", seen, self.ints(2), keepdims=1)
        return self.add("Greater", most, self.constant(0.5))

    def end(self, outputs: Mapping[str, tuple[int, ...]]) -> None:
        """Write the nodes into the model; its outputs are these, float32, and no others."""
        from onnx import TensorProto, helper

        graph = self.model.graph
        graph.node.extend(self._made)
        graph.initializer.extend(self._held)
        del graph.output[:]
        graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
            for name, shape in outputs.items()
        )
