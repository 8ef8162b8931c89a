"""A .tflite file of one layer, of any width and precision (`single_layer_graphs.py`).

x (1, H, W, C) ─ CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED ─ y      float32, or int8
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgecv.errors import UnsupportedError
from edgecv.graphs.tflite import flatbuffer
from edgecv.measuring.product import Product

_STEP = 0.05
_RELU = 1  # ActivationFunctionType.RELU
_VALID = 1  # Padding.VALID


def twin(
    product: Product, integer: bool, chain: int = 1
) -> tuple[Mapping[str, bytes], Mapping[str, np.ndarray]]:
    """(files, feeds). Raises UnsupportedError: padding that is neither SAME nor VALID."""
    rng = np.random.default_rng(0)
    work = _File(integer)
    into, out, dims = _sizes(product)
    kinds = np.int8 if integer else np.float32
    weights = rng.integers(-127, 128, dims) if integer else rng.normal(0, 0.05, dims)
    feed = rng.integers(-128, 128, into) if integer else rng.normal(size=into)
    x = work.tensor("x", into, work.kind, [_STEP])
    held = work.constants("", product, weights)
    y = x
    for i in range(chain):
        made = work.tensor(f"y{i}", out, work.kind, [_STEP])
        work.operator(product, product.groups > 1, [y, *held], made)
        y = made
    return {"model.tflite": work.content(x, y)}, {"x": feed.astype(kinds)}


def row(
    products: Sequence[Product], integer: bool
) -> tuple[Mapping[str, bytes], Mapping[str, np.ndarray]]:
    """(files, feeds) of layers one after the other. Raises UnsupportedError as `twin`, and for
    groups that are not single channels.
    """
    rng = np.random.default_rng(0)
    work = _File(integer)
    kinds = np.int8 if integer else np.float32
    into = _sizes(products[0])[0]
    feed = rng.integers(-128, 128, into) if integer else rng.normal(size=into)
    y = x = work.tensor("x", into, work.kind, [_STEP])
    for i, product in enumerate(products):
        if product.groups not in (1, product.channels[0]):
            raise UnsupportedError(product.layer, "groups of several channels are not measured")
        _, out, dims = _sizes(product)
        weights = rng.integers(-127, 128, dims) if integer else rng.normal(0, 0.05, dims)
        held = work.constants(str(i), product, weights)
        made = work.tensor(f"y{i}", out, work.kind, [_STEP])
        work.operator(product, product.groups > 1, [y, *held], made)
        y = made
    return {"model.tflite": work.content(x, y)}, {"x": feed.astype(kinds)}


def _sizes(product: Product) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shapes of its input, its output and its weight."""
    source, target = product.channels
    if product.kind == "dense":
        return (1, source), (1, target), (target, source)
    depthwise = product.groups > 1
    dims = (1, *product.kernel, target) if depthwise else (target, *product.kernel, source)
    return (1, *product.size, source), (1, *product.result, target), dims


class _File:
    """A .tflite model with one subgraph, being filled."""

    def __init__(self, integer: bool) -> None:
        self.integer, self.kind = integer, "INT8" if integer else "FLOAT32"
        self.model, self.graph = flatbuffer.new("ModelT"), flatbuffer.new("SubGraphT")
        self.model.version, self.model.operatorCodes = 3, []
        self.model.buffers, self.model.subgraphs = [flatbuffer.new("BufferT")], [self.graph]
        self.graph.tensors, self.graph.operators, self.graph.name = [], [], b"main"

    def tensor(
        self, name: str, shape: tuple[int, ...], kind: str, scales: list[float],
        values: np.ndarray | None = None, axis: int = 0,
    ) -> int:  # fmt: skip
        """Append a tensor; its index."""
        made = flatbuffer.new("TensorT")
        made.name, made.shape = name.encode(), list(shape)
        made.type = flatbuffer.enum("TensorType", kind)
        if self.integer:
            made.quantization = flatbuffer.new("QuantizationParametersT")
            made.quantization.scale, made.quantization.zeroPoint = scales, [0] * len(scales)
            made.quantization.quantizedDimension = axis
        if values is not None:
            flatbuffer.set_constant(self.model, made, values)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def constants(self, prefix: str, product: Product, weights: np.ndarray) -> list[int]:
        """Append a layer's weight and its bias of zeros; their indices."""
        target, kind = product.channels[1], np.int8 if self.integer else np.float32
        axis = weights.ndim - 1 if product.groups > 1 else 0
        w = self.tensor(f"{prefix}w", weights.shape, self.kind, [_STEP] * target,
                        weights.astype(kind), axis=axis)  # fmt: skip
        bias = np.zeros(target, np.int32 if self.integer else np.float32)
        kind_of_bias = "INT32" if self.integer else "FLOAT32"
        b = self.tensor(f"{prefix}b", (target,), kind_of_bias, [_STEP**2] * target, bias)
        return [w, b]

    def operator(self, product: Product, depthwise: bool, inputs: list[int], output: int) -> None:
        """Append the layer."""
        made = flatbuffer.new("OperatorT")
        if product.kind == "dense":
            name, kind = "FULLY_CONNECTED", "FullyConnectedOptions"
        elif depthwise:
            name, kind = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
        else:
            name, kind = "CONV_2D", "Conv2DOptions"
        made.opcodeIndex = flatbuffer.add_op(self.model, name, 3 if self.integer else 1)
        made.builtinOptionsType = flatbuffer.enum("BuiltinOptions", kind)
        made.builtinOptions = options = flatbuffer.new(f"{kind}T")
        options.fusedActivationFunction = _RELU
        if product.kind == "conv":
            options.strideH, options.strideW = product.strides
            options.dilationHFactor, options.dilationWFactor = product.dilations
            options.padding = _padding(product)
        if depthwise:
            options.depthMultiplier = product.channels[1] // product.channels[0]
        made.inputs, made.outputs = inputs, [output]
        self.graph.operators.append(made)

    def content(self, x: int, y: int) -> bytes:
        """The file's bytes."""
        self.graph.inputs, self.graph.outputs = [x], [y]
        flatbuffer.sign(self.model, ("x",), ("y",))
        return flatbuffer.written(self.model)


def _padding(product: Product) -> int:
    if not any(product.pads):
        return _VALID
    sides = zip(product.size, product.result, product.strides, strict=True)
    if any(-(-size // step) != result for size, result, step in sides):
        raise UnsupportedError(product.layer, f"pads {product.pads} are not SAME padding")
    return 0
