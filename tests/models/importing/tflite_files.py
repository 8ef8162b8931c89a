"""Small .tflite files made operator by operator, with LiteRT's own schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils as tools

_KINDS = {"float32": "FLOAT32", "float16": "FLOAT16", "int32": "INT32", "int8": "INT8",
          "int64": "INT64", "bool": "BOOL"}  # fmt: skip


@dataclass
class File:
    """A file in the making: tensors by index, operators in order."""

    model: Any = field(default_factory=schema.ModelT)
    graph: Any = field(default_factory=schema.SubGraphT)

    def __post_init__(self) -> None:
        empty = schema.BufferT()
        empty.data = None
        self.model.version, self.model.description = 3, b"test"
        self.model.buffers, self.model.operatorCodes = [empty], []
        self.model.subgraphs = [self.graph]
        self.graph.tensors, self.graph.operators, self.graph.name = [], [], b"main"
        self.graph.inputs, self.graph.outputs = [], []

    def tensor(self, shape: Sequence[int], kind: str = "float32", name: str = "") -> int:
        """An activation."""
        made = schema.TensorT()
        made.shape, made.buffer = list(shape), 0
        made.type = getattr(schema.TensorType, _KINDS[kind])
        made.name = (name or f"t{len(self.graph.tensors)}").encode()
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def input(self, *shape: int, kind: str = "float32") -> int:
        index = self.tensor(shape, kind, f"in{len(self.graph.inputs)}")
        self.graph.inputs.append(index)
        return index

    def hold(self, values: Any, kind: str = "float32") -> int:
        """A constant."""
        array = np.asarray(values, kind)
        index = self.tensor(array.shape, kind)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def op(
        self, name: str, inputs: Sequence[int], *shapes: Sequence[int], kind: str = "float32",
        options: str = "", custom: bool = False, **given: Any,
    ) -> int:  # fmt: skip
        """An operator; its first output. options: "Conv2D" for Conv2DOptions; given: its fields."""
        code = schema.OperatorCodeT()
        number = schema.BuiltinOperator.CUSTOM if custom else getattr(schema.BuiltinOperator, name)
        code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
        code.customCode, code.version = name.encode() if custom else None, 1
        self.model.operatorCodes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = len(self.model.operatorCodes) - 1
        outputs = [self.tensor(s, kind) for s in shapes]
        made.inputs, made.outputs = list(inputs), outputs
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, f"{options}Options")
            made.builtinOptions = getattr(schema, f"{options}OptionsT")()
            for key, value in given.items():
                assert hasattr(made.builtinOptions, key), key
                setattr(made.builtinOptions, key, value)
        self.graph.operators.append(made)
        return outputs[0]

    def bytes(self, *outputs: int) -> bytes:
        """The whole file, with those outputs."""
        self.graph.outputs = list(outputs)
        return bytes(tools.convert_object_to_bytearray(self.model))


def conv(f: File, x: int, channels: int, seed: int = 0, stride: int = 1) -> int:
    """A 3x3 convolution with SAME padding and a bias."""
    n, h, w, c = f.graph.tensors[x].shape
    rng = np.random.default_rng(seed)
    weight = f.hold(rng.normal(0, 0.3, (channels, 3, 3, c)))
    bias = f.hold(rng.normal(0, 0.1, channels))
    shape = (n, -(-h // stride), -(-w // stride), channels)
    return f.op("CONV_2D", [x, weight, bias], shape, options="Conv2D", padding=0, strideH=stride,
                strideW=stride, dilationHFactor=1, dilationWFactor=1)  # fmt: skip
