"""A .tflite file as `edgecv why` looks at it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from edgecv.diagnosis.why.view import Transposed, View
from edgecv.diagnosis.why.walk import beyond
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.constants import dequantized
from edgecv.graphs.tflite.geometry import pads
from edgecv.graphs.tflite.index import Index
from edgecv.graphs.tflite.layers import KINDS
from edgecv.graphs.tflite.subnormals import flush_tflite
from edgecv.measuring.product import Product
from edgecv.runtime.layers import layer_of


class TfliteView(View):
    """A `View` of .tflite bytes. Raises MissingExtraError, ModelError (damaged)."""

    def __init__(self, name: str, content: bytes) -> None:
        self._name, self._content = name, content
        self.files = {name: content}
        self.model = flatbuffer.parse(content, name)
        self.graph = flatbuffer.graph_of(self.model)
        index = Index(self.graph)
        self._makers, self._readers = index.makers, index.readers

    @cached_property
    def products(self) -> tuple[Product, ...]:
        return tuple(self._product(op) for op in self.graph.operators if self._op(op) in KINDS)

    @cached_property
    def transposes(self) -> tuple[Transposed, ...]:
        return tuple(
            Transposed(
                self.graph.tensors[op.outputs[0]].name.decode(),
                (self._around(op, -1), self._around(op, 1)),
            )
            for op in self.graph.operators
            if self._op(op) == "TRANSPOSE"
        )

    def floats(self) -> Iterator[tuple[str, np.ndarray]]:
        kinds = {flatbuffer.enum("TensorType", k) for k in ("FLOAT32", "FLOAT16")}
        for i, tensor in enumerate(self.graph.tensors):
            values = flatbuffer.constant(self.model, tensor) if tensor.type in kinds else None
            if values is not None:
                (reader, *_) = self._readers.get(i) or [None]
                layer = self._layer(reader) if reader is not None else ""
                yield layer or tensor.name.decode(), values

    def activations(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        from edgecv.backends.tflite.run import engine, quiet

        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is for looking inside, and that is what this does
            net = engine().Interpreter(
                model_content=self._content, experimental_preserve_all_tensors=True
            )
            net.allocate_tensors()
        for detail, values in zip(net.get_input_details(), feeds.values(), strict=True):
            net.set_tensor(detail["index"], values)
        net.invoke()
        for t, op in self._makers.items():
            if self.graph.tensors[t].type == flatbuffer.enum("TensorType", "FLOAT32"):
                yield self._layer(op) or self.graph.tensors[t].name.decode(), net.get_tensor(t)

    def without_transposes(self) -> Mapping[str, bytes] | None:
        model = self._fresh()
        graph = flatbuffer.graph_of(model)
        found = [op for op in graph.operators if flatbuffer.op_name(model, op) == "TRANSPOSE"]
        for op in found:
            shape = flatbuffer.new("TensorT")
            values = np.array(graph.tensors[op.outputs[0]].shape, np.int32)
            shape.shape, shape.type = [len(values)], flatbuffer.enum("TensorType", "INT32")
            shape.name = b"edgecv_why_shape"
            flatbuffer.set_constant(model, shape, values)
            graph.tensors.append(shape)
            op.opcodeIndex = flatbuffer.add_op(model, "RESHAPE")
            op.inputs = np.array([op.inputs[0], len(graph.tensors) - 1], np.int32)
            op.builtinOptionsType, op.builtinOptions = 0, None
        return self._written(model) if found else None

    def without_subnormals(self) -> Mapping[str, bytes] | None:
        model = self._fresh()
        return self._written(model) if flush_tflite(model) else None

    def unpacked(self) -> Mapping[str, bytes] | None:
        model, done = self._fresh(), 0
        graph = flatbuffer.graph_of(model)
        float32 = flatbuffer.enum("TensorType", "FLOAT32")
        for op in graph.operators:
            name = flatbuffer.op_name(model, op)
            if name not in KINDS or graph.tensors[op.inputs[0]].type != float32:
                continue
            weight = graph.tensors[op.inputs[1]]
            real = dequantized(model, weight)
            if weight.type == flatbuffer.enum("TensorType", "INT8") and real is not None:
                flatbuffer.set_constant(model, weight, real)
                weight.type, weight.quantization = float32, None
                done += 1
        return self._written(model) if done else None

    def _fresh(self) -> Any:
        return flatbuffer.parse(self._content, self._name)

    def _written(self, model: Any) -> Mapping[str, bytes]:
        return {self._name: flatbuffer.written(model)}

    def _op(self, op: Any) -> str:
        return flatbuffer.op_name(self.model, op)

    def _layer(self, op: Any) -> str:
        if self._op(op) not in KINDS:
            return ""
        return layer_of([self.graph.tensors[t].name.decode() for t in op.inputs[1:] if t >= 0], ())

    def _product(self, op: Any) -> Product:
        x, w, y = (self.graph.tensors[t] for t in (op.inputs[0], op.inputs[1], op.outputs[0]))
        computed = flatbuffer.constant(self.model, w) is None
        common: dict[str, Any] = {
            "layer": self._layer(op) or y.name.decode(),
            "kind": KINDS[self._op(op)],
            "activations": flatbuffer.type_name(x.type).lower(),
            "weights": "" if computed else flatbuffer.type_name(w.type).lower(),
            "fixed": (self._reaches(op, -1), self._reaches(op, 1)),
        }
        if self._op(op) == "FULLY_CONNECTED":
            return Product(channels=(int(w.shape[1]), int(w.shape[0])), **common)
        options, depthwise = op.builtinOptions, self._op(op) == "DEPTHWISE_CONV_2D"
        size, result = (tuple(map(int, t.shape[1:3])) for t in (x, y))
        kernel = (int(w.shape[1]), int(w.shape[2]))
        strides = (int(options.strideH), int(options.strideW))
        dilations = (int(options.dilationHFactor), int(options.dilationWFactor))
        around = pads(size, kernel, strides, dilations, options.padding)
        return Product(
            channels=(int(x.shape[3]), int(y.shape[3])), size=size, result=result, kernel=kernel,
            strides=strides, dilations=dilations, pads=around,
            groups=int(x.shape[3]) if depthwise else 1, **common,
        )  # fmt: skip

    def _beyond(self, op: Any, way: int) -> Iterator[Any]:
        """The operators before (way -1) or after (1) one up to the next products, nearest first."""

        def near(at: Any) -> list[Any]:
            if way > 0:
                return [r for t in at.outputs for r in self._readers.get(int(t), ())]
            return [self._makers[int(t)] for t in at.inputs if int(t) in self._makers]

        return beyond(op, near, id, lambda at: self._op(at) in KINDS)

    def _reaches(self, op: Any, way: int) -> bool:
        """Whether the network's input (way -1) or output (1) is next to it, no product between."""
        ends = set(map(int, self.graph.inputs if way < 0 else self.graph.outputs))
        passed = (at for at in self._beyond(op, way) if self._op(at) not in KINDS)
        return any(
            ends & set(map(int, at.inputs if way < 0 else at.outputs))
            for at in itertools.chain([op], passed)
        )

    def _around(self, op: Any, way: int) -> str:
        """The nearest product before (-1) or after (1) an operator."""
        found = next((at for at in self._beyond(op, way) if self._op(at) in KINDS), None)
        if found is None:
            return ""
        return self._layer(found) or str(self.graph.tensors[found.outputs[0]].name.decode())
