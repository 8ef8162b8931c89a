"""A settled .tflite and its float graph, as `reconstruction.py` wants to see them.

The float file becomes a torch network of the operators that classifiers are made of; images are
turned to (N, C, H, W) on the way in, and what the interpreter shows of its tensors as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgecv.errors import UnsupportedError
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.geometry import is_same, pads
from edgecv.graphs.tflite.layers import FORWARD, OPERANDS, is_float, operand, weights
from edgecv.methods.quantize._tflite_measured import Player
from edgecv.methods.quantize._tflite_slots import Place
from edgecv.methods.quantize.reconstruction import Subject

_INSERTED = ("QUANTIZE", "DEQUANTIZE")


def subject(content: bytes, float_model: Any, model: Any) -> Subject:
    """content: the float .tflite; float_model: the same, editable; model: made of it, settled.

    Raises UnsupportedError: an operator that is not simulated here.
    """
    built = _Builder(float_model)
    graph = flatbuffer.graph_of(float_model)
    # Quantizing inserts QUANTIZE and DEQUANTIZE: the other operators pair up.
    ours = flatbuffer.graph_of(model).operators
    ours = [op for op in ours if flatbuffer.op_name(model, op) not in _INSERTED]
    pairs = list(zip(graph.operators, ours, strict=True))
    tensors = flatbuffer.graph_of(model).tensors
    activations = {}
    for twin, op in pairs:
        for ends in ((twin.inputs, op.inputs), (twin.outputs, op.outputs)):
            for theirs, own in zip(*ends, strict=False):
                grid = tensors[own].quantization if own >= 0 else None
                if str(theirs) in built.flow and grid is not None and grid.scale is not None:
                    activations[str(theirs)] = float(grid.scale[0]), np.int8(grid.zeroPoint[0])
    uses = Counter(int(op.inputs[1]) for op in graph.operators if len(op.inputs) > 1)
    layers = [
        (built.targets[i], str(twin.outputs[0]), Place(model, flatbuffer.op_name(model, op), op))
        for i, (twin, op) in enumerate(pairs)
        if i in built.targets and uses[int(twin.inputs[1])] == 1 and not is_float(model, op)
    ]
    output = str(graph.outputs[0])

    run = Player(content)

    def teach(images: np.ndarray, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        for value_of in map(run, images):
            yield {name: _turned(value_of(int(name))) for name in names}

    return Subject(
        net=built.net(output),
        flow=built.flow,
        output=output,
        blocks=_blocks(float_model, set(built.flow) - {output}),
        layers=layers,
        activations={k: (s, np.asarray(z)) for k, (s, z) in activations.items()},
        teach=teach,
        feed=_turned,
    )


def _turned(value: np.ndarray) -> np.ndarray:
    """(N, H, W, C) → (N, C, H, W)."""
    return np.ascontiguousarray(value.transpose(0, 3, 1, 2)) if value.ndim == 4 else value


def _blocks(model: Any, known: set[str]) -> list[str]:
    """Sums, and convolutions without an activation; all convolutions where there is neither."""
    convolutions, ends = [], []
    for op in flatbuffer.graph_of(model).operators:
        name, result = flatbuffer.op_name(model, op), str(op.outputs[0])
        fused = getattr(op.builtinOptions, "fusedActivationFunction", 0)
        if result in known and (name == "ADD" or (name in OPERANDS and fused == 0)):
            ends.append(result)
        if result in known and name in OPERANDS:
            convolutions.append(result)
    return ends or convolutions


class _Builder:
    """The torch network, operator by operator. flow: tensor index → node; targets: operator's
    place → its module."""

    def __init__(self, model: Any) -> None:
        self._model, self._graph = model, flatbuffer.graph_of(model)
        self._root, self._fx = nn.Module(), fx.Graph()
        self.targets: dict[int, str] = {}
        self.flow: dict[str, fx.Node] = {}
        for t in self._graph.inputs:
            self.flow[str(t)] = self._fx.placeholder("input")
        for i, op in enumerate(self._graph.operators):
            self.flow[str(op.outputs[0])] = self._activated(op, self._node(i, op))

    def net(self, output: str) -> fx.GraphModule:
        self._fx.output(self.flow[output])
        return fx.GraphModule(self._root, self._fx).eval()

    def _node(self, i: int, op: Any) -> fx.Node:
        name = flatbuffer.op_name(self._model, op)
        call = self._fx.call_function
        if name in FORWARD:
            return self._layer(i, name, op)
        x = self._at(op, 0)
        if name == "ADD":
            return call(torch.add, (x, self._at(op, 1)))
        if name == "MEAN" and sorted(self._constant(op, 1).ravel().tolist()) == [1, 2]:
            keep = bool(op.builtinOptions.keepDims)
            return call(torch.mean, (x,), {"dim": (2, 3), "keepdim": keep})
        if name == "PAD":
            (top, bottom), (left, right) = self._constant(op, 1)[1:3].tolist()
            return call(F.pad, (x, (left, right, top, bottom)))
        if name in ("RELU", "RELU6"):
            return call(F.relu if name == "RELU" else F.relu6, (x,))
        if name == "RESHAPE" and self._small(op.inputs[0]):
            return call(torch.flatten, (x, 1))
        if name in ("MAX_POOL_2D", "AVERAGE_POOL_2D") and self._valid(op):
            how = op.builtinOptions
            kernel, stride = (how.filterHeight, how.filterWidth), (how.strideH, how.strideW)
            function = F.max_pool2d if name == "MAX_POOL_2D" else F.avg_pool2d
            return call(function, (x, kernel, stride))
        raise UnsupportedError("quantize.reconstruction", f"{name} is not simulated here")

    def _layer(self, i: int, name: str, op: Any) -> fx.Node:
        real, offset = weights(self._model, name, op), operand(self._model, name, op, 2)
        if real is None:
            raise UnsupportedError("quantize.reconstruction", f"{name} with computed weights")
        bias = None if offset is None else flatbuffer.constant(self._model, offset)
        x, self.targets[i] = self._at(op, 0), f"layer_{i}"
        module: Any
        if name == "FULLY_CONNECTED":
            module = nn.Linear(real.shape[1], len(real), bias is not None)
            x = self._fx.call_function(torch.flatten, (x, 1))
        else:
            x, module = self._convolution(op, x, real, bias is not None)
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(real))
            if bias is not None:
                module.bias.copy_(torch.from_numpy(bias))
        self._root.add_module(self.targets[i], module)
        return self._fx.call_module(self.targets[i], (x,))

    def _convolution(
        self, op: Any, x: fx.Node, real: np.ndarray, bias: bool
    ) -> tuple[fx.Node, nn.Conv2d]:
        how, shape = op.builtinOptions, self._graph.tensors[op.inputs[0]].shape
        strides, dilations = (how.strideH, how.strideW), (how.dilationHFactor, how.dilationWFactor)
        if is_same(how.padding):
            around = pads(shape[1:3], real.shape[2:], strides, dilations, how.padding)
            top, left, bottom, right = around
            x = self._fx.call_function(F.pad, (x, (left, right, top, bottom)))
        groups = int(shape[3]) // real.shape[1]
        kernel = (real.shape[2], real.shape[3])
        module = nn.Conv2d(int(shape[3]), len(real), kernel, strides, 0, dilations, groups, bias)
        return x, module

    def _activated(self, op: Any, node: fx.Node) -> fx.Node:
        kind = "ActivationFunctionType"
        fused = getattr(op.builtinOptions, "fusedActivationFunction", 0)
        for name, function in (("RELU", F.relu), ("RELU6", F.relu6)):
            if fused == flatbuffer.enum(kind, name):
                return self._fx.call_function(function, (node,))
        if fused:
            raise UnsupportedError("quantize.reconstruction", f"fused activation {fused}")
        return node

    def _at(self, op: Any, place: int) -> fx.Node:
        name = str(op.inputs[place])
        if name not in self.flow:
            kind = flatbuffer.op_name(self._model, op)
            raise UnsupportedError("quantize.reconstruction", f"{kind} of a constant")
        return self.flow[name]

    def _constant(self, op: Any, place: int) -> np.ndarray:
        value = flatbuffer.constant(self._model, self._graph.tensors[op.inputs[place]])
        return np.zeros(0) if value is None else value

    def _small(self, tensor: int) -> bool:
        """Whether an image has one place, so that flattening it keeps the order of channels."""
        shape = list(self._graph.tensors[tensor].shape)
        return len(shape) == 2 or shape[1:3] == [1, 1]

    def _valid(self, op: Any) -> bool:
        return bool(op.builtinOptions.padding == flatbuffer.enum("Padding", "VALID"))
