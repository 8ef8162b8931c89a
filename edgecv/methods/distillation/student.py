"""An ONNX graph as a torch network whose weights know where they lie in the file.

Read, trained and written back: the graph keeps its nodes and the names of its tensors, and other
numbers stand in its initializers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import PRODUCTS
from edgecv.models.importing.operators import OPERATORS
from edgecv.models.importing.reader import Reader


@dataclass(frozen=True)
class Layer:
    """A layer whose numbers may change.

    module: its name in the torch network. tensor: what it gives, by its name in the file
    held:   parameter ("weight", "bias") → (initializer, whether it lies transposed there)
    """

    module: str
    tensor: str
    held: dict[str, tuple[str, bool]]


@dataclass(frozen=True)
class Student:
    """net: (N, C, H, W) → the graph's outputs, in their order. flow: the node that makes each
    tensor of the file, by its name. layers: in the file's order."""

    net: fx.GraphModule
    flow: dict[str, fx.Node]
    layers: tuple[Layer, ...]


def read(model: Any, where: str) -> Student:
    """The network of an onnx.ModelProto, in evaluation mode; nothing asks for gradients.

    Raises UnsupportedError naming the node that cannot be read into torch.
    """
    reader = Reader(model, where)
    net: Any = reader.read(OPERATORS)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return Student(net, reader.nodes, tuple(_layers(model, net, reader.nodes)))


def _layers(model: Any, net: nn.Module, flow: dict[str, fx.Node]) -> Iterator[Layer]:
    index = Index(model.graph)
    for node in model.graph.node:
        made = flow.get(node.output[0])
        if node.op_type not in PRODUCTS or made is None or made.op != "call_module":
            continue
        module = net.get_submodule(str(made.target))
        found = {}
        for parameter, name in zip(("weight", "bias"), node.input[1:3], strict=False):
            value = getattr(module, parameter, None)
            if name not in index.held or index.uses[name] > 1 or value is None:
                continue
            lies = _lies(value.detach().numpy(), index.held[name])
            if lies is not None:
                found[parameter] = (name, lies)
        if found:
            yield Layer(str(made.target), node.output[0], found)


def _lies(value: np.ndarray, tensor: Any) -> bool | None:
    """Whether an array stands transposed in the file; None where it stands there otherwise."""
    from onnx import numpy_helper

    held = np.asarray(numpy_helper.to_array(tensor))
    if held.shape == value.shape and np.array_equal(held, value):
        return False
    return True if held.T.shape == value.shape and np.array_equal(held.T, value) else None


def written(model: Any, layers: Sequence[Layer], values: Mapping[str, torch.Tensor]) -> Any:
    """A copy of the onnx.ModelProto with other numbers in its initializers.

    values: as torch holds them, by initializer
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    held = {tensor.name: tensor for tensor in made.graph.initializer}
    for layer in layers:
        for name, transposed in layer.held.values():
            value = values[name].detach().to(torch.float32).numpy()
            array = np.array(value.T if transposed else value, order="C")
            held[name].CopyFrom(onnx.numpy_helper.from_array(array, name))
    return made
