"""A .tflite file opened for looking inside with LiteRT.

Without delegates every tensor is kept (`experimental_preserve_all_tensors`) and LiteRT's own
kernels run. With them XNNPACK runs, as on the device; it keeps nothing in between, so the tensors
that are asked for are made outputs of a copy of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.backends.tflite.run import Session, engine
from edgecv.bundling.inference import real as as_real
from edgecv.diagnosis.parity.layers import (
    INPUT,
    Grid,
    Layer,
    Sample,
    feeds,
    first,
    first_shape,
    image_in,
    input_grid,
    module_path,
)
from edgecv.graphs.tflite import flatbuffer, layers
from edgecv.graphs.tflite.constants import dequantized
from edgecv.graphs.tflite.layers import SORTED, outputs_first
from edgecv.runtime.spec import channels_first

KINDS = {
    **layers.KINDS, "ADD": "add", "MEAN": "mean", "RESHAPE": "reshape", "SQUEEZE": "reshape",
}  # fmt: skip
PASSING = ("QUANTIZE", "DEQUANTIZE")
CLIPS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}
COMPARED = ("strideH", "strideW", "dilationHFactor", "dilationWFactor", "padding", "axis")


class TfliteNetwork:
    """See `Form`. delegated: run by XNNPACK, as on the device.

    Raises ModelError (not a .tflite file), EngineError, MissingExtraError.
    """

    format = "tflite"

    def __init__(self, content: bytes, title: str, delegated: bool = False) -> None:
        self.title, self.content, self._delegated = title, content, delegated
        self.one_by_one = delegated
        self._model = flatbuffer.parse(content, title)
        self._graph = flatbuffer.graph_of(self._model)
        self._session = self._open(content)
        self.specs = self._session.inputs
        self.input_grid = input_grid(self.specs[0])
        self._tapped: tuple[tuple[str, ...], Session] | None = None
        self.inputs = {i: s.name for i, s in zip(self._session.places, self.specs, strict=True)}
        self.index: dict[str, int] = {INPUT: self._session.places[0]}
        self._ops: dict[str, Any] = {}
        self.layers = tuple(self._layers())
        half = flatbuffer.enum("TensorType", "FLOAT16")
        halved = any(tensor.type == half for tensor in self._graph.tensors)
        quantized = any(layer.grid for layer in self.layers)
        self.precision = "int8" if quantized else "fp16" if halved else "fp32"

    def answers(self, x: Sample) -> tuple[np.ndarray, ...]:
        found = self._session.run(feeds(x, self.specs))
        return tuple(channels_first(as_real(found[t.name], t), t) for t in self._session.outputs)

    def values(self, x: Sample, tensors: Sequence[str]) -> dict[str, np.ndarray]:
        feed = feeds(x, self.specs)
        if self._delegated:
            net = self._with_outputs(tuple(t for t in tensors if t != INPUT))
        else:
            net = self._session
        net.run(feed)
        found = {}
        for t in tensors:
            held = image_in(feed) if t == INPUT else net._engine.get_tensor(self.index[t])
            found[t] = first(self.real(held, self.index[t]))
        return found

    def constants(self, layer: Layer) -> dict[str, np.ndarray]:
        op = self._ops.get(layer.tensor)
        if op is None or layer.kind not in ("conv", "dense"):
            return {}
        kind = flatbuffer.op_name(self._model, op)
        found: dict[str, np.ndarray] = {}
        for role, index in zip(("weight", "bias"), op.inputs[1:3], strict=False):
            value = self._constant(int(index))
            if value is not None:
                found[role] = outputs_first(kind, value) if role == "weight" else value
        return found

    def close(self) -> None:
        self._session.close()
        if self._tapped:
            self._tapped[1].close()

    def _open(self, content: bytes) -> Session:
        options: dict[str, Any] = {}
        if not self._delegated:
            kernels = engine().OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            options = {
                "experimental_preserve_all_tensors": True,
                "experimental_op_resolver_type": kernels,
            }
        return Session({self.title: content}, **options)

    def _with_outputs(self, tensors: tuple[str, ...]) -> Session:
        """A session of a copy of the file that also gives these tensors; the last one is kept."""
        if self._tapped is None or self._tapped[0] != tensors:
            model = flatbuffer.parse(self.content, self.title)
            graph = flatbuffer.graph_of(model)
            graph.outputs = [*(self.index[t] for t in tensors)]
            model.signatureDefs = []
            self._tapped = (tensors, self._open(flatbuffer.written(model)))
        return self._tapped[1]

    def _layers(self) -> list[Layer]:
        names = [bytes(t.name).decode() for t in self._graph.tensors]
        root = {**self.inputs, self.index[INPUT]: INPUT}
        outputs = {int(i) for i in self._graph.outputs}
        found = []
        for op in self._graph.operators:
            kind = flatbuffer.op_name(self._model, op)
            result = int(op.outputs[0])
            reads = [root[int(i)] for i in op.inputs if int(i) in root]
            if kind in PASSING and reads:
                root[result] = reads[0]
                if result in outputs or reads[0] not in self.index:
                    self.index[reads[0]] = result
                continue
            name = names[result]
            root |= {int(i): name for i in op.outputs[1:]}  # of a SPLIT: one layer
            root[result], self.index[name], self._ops[name] = name, result, op
            if any(names[int(t)].endswith(SORTED) for t in (*op.inputs, result) if t >= 0):
                continue  # no other file has its channels, or its weights, in that order
            weight = names[int(op.inputs[1])] if KINDS.get(kind) in ("conv", "dense") else ""
            tensor = self._graph.tensors[result]
            grid = self._grid(result)
            found.append(
                Layer(
                    name=weight.removesuffix(".weight") if weight.endswith(".weight") else name,
                    kind=KINDS.get(kind, kind.lower()),
                    tensor=name,
                    inputs=tuple(reads),
                    shape=first_shape(tensor.shape) if tensor.shape is not None else (),
                    path=module_path(weight),
                    clip=_clip(op) or ((0.0, np.inf) if _from_zero(grid) else None),
                    grid=grid,
                    attributes=_attributes(op),
                )
            )
        return found

    def _grid(self, index: int) -> Grid | None:
        tensor = self._graph.tensors[index]
        given = tensor.quantization
        if given is None or given.scale is None or len(given.scale) != 1:
            return None
        kind = {flatbuffer.enum("TensorType", n): n.lower() for n in ("INT8", "UINT8", "INT16")}
        if tensor.type not in kind:
            return None
        limits = np.iinfo(kind[tensor.type])
        zero = int(given.zeroPoint[0]) if given.zeroPoint is not None else 0
        return Grid(float(given.scale[0]), zero, int(limits.min), int(limits.max))

    def real(self, held: np.ndarray, index: int) -> np.ndarray:
        grid = self._grid(index)
        if grid is None or held.dtype.kind == "f":
            return held.astype(np.float32)
        return (held.astype(np.float32) - np.float32(grid.zero_point)) * np.float32(grid.scale)

    def _constant(self, index: int) -> np.ndarray | None:
        """A constant in real numbers, with one scale or one for each channel."""
        if index < 0:
            return None
        return dequantized(self._model, self._graph.tensors[index])


def _from_zero(grid: Grid | None) -> bool:
    return grid is not None and grid.zero_point == grid.low


def _clip(op: Any) -> tuple[float, float] | None:
    number = getattr(op.builtinOptions, "fusedActivationFunction", 0)
    for name, ends in CLIPS.items():
        if number and number == flatbuffer.enum("ActivationFunctionType", name):
            return ends
    return None


def _attributes(op: Any) -> dict[str, Any]:
    options = op.builtinOptions
    return {k: getattr(options, k) for k in COMPARED if hasattr(options, k)}
