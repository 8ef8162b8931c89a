"""Reading an ONNX graph node by node into a torch.fx graph."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.reference
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from edgecv.errors import ModelError, UnsupportedError
from edgecv.examples import INPUTS
from edgecv.graphs.onnx.index import Index

Shape = tuple[int, ...]
_ELSEWHERE = "take a target that reads ONNX (cpu, openvino), or say it with other operators"
_MENDED = "export the file again; it may run on targets that read ONNX (cpu, openvino)"
Operator = Callable[["Node"], fx.Node | list[fx.Node]]


class Reader:
    """Builds the fx graph. `nodes` holds what flows, `constants` what is known beforehand.

    Each fx node has its shape for a batch of one in `meta["shape"]` and its dtype in
    `meta["dtype"]`: torch computes them on the meta device as the graph grows, since shapes stored
    in the file, or inferred by onnx, have gaps.
    """

    def __init__(self, model: onnx.ModelProto, where: str) -> None:
        self.model, self.where = model, where
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.opset_imports = list(model.opset_import)
        self.root, self.graph = nn.Module(), fx.Graph()
        self.constants = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.uses = Index(model.graph).uses + Counter(value.name for value in model.graph.output)
        self.nodes: dict[str, fx.Node] = {}
        self.inputs: dict[str, Shape] = {}
        for value in model.graph.input:
            if value.name not in self.constants:
                flow = self.graph.placeholder(_identifier(value.name))
                dims = value.type.tensor_type.shape.dim
                flow.meta["shape"] = tuple(dim.dim_value for dim in dims)
                flow.meta["dtype"] = torch.float32
                self.nodes[value.name] = flow
                self.inputs[value.name] = flow.meta["shape"]

    def read(self, operators: dict[str, Operator]) -> nn.Module:
        """Every node: folded if all it reads is constant, else looked up in `operators`."""
        for proto in self.model.graph.node:
            node = Node(proto, self)
            if self._fold(node):
                continue
            function = operators.get(node.op) if proto.domain in ("", "ai.onnx") else None
            if function is None:
                node.refuse("this operator cannot be read into torch", _way_out(node.op))
            made = function(node)
            flows = made if isinstance(made, list) else [made]
            self.nodes.update(
                (name, f) for name, f in zip(proto.output, flows, strict=False) if name
            )
        return self._finish()

    def _fold(self, node: Node) -> bool:
        """Whether the node's value is known beforehand; if so it is kept as a constant."""
        output = node.proto.output[0]
        if node.op in ("Shape", "Size"):
            shape = np.array(node.shape(), np.int64)
            part = shape[node.attr("start", 0) : node.attr("end", len(shape))]
            self.constants[output] = part if node.op == "Shape" else np.array(np.prod(shape))
            return True
        inputs = {name: self.constants.get(name) for name in node.proto.input if name}
        if any(value is None for value in inputs.values()) or not _foldable(node.proto):
            return False
        try:
            evaluator = onnx.reference.ReferenceEvaluator(_single(node.proto, self.opset_imports))
            results = list(evaluator.run(None, inputs))
        except Exception:  # the reference raises what its numpy code raises
            node.refuse("its inputs are constants that do not fit together", _MENDED)
        self.constants.update(zip(node.proto.output, results, strict=True))
        return True

    def _finish(self) -> nn.Module:
        """The module. Several outputs become a tuple."""
        outputs = []
        for value in self.model.graph.output:
            if value.name not in self.nodes:
                raise ModelError(self.where, f"output {value.name!r} does not depend on the input")
            outputs.append(self.nodes[value.name])
        self.graph.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
        module: Any = fx.GraphModule(self.root, self.graph, class_name="ImportedONNX")
        module.graph.lint()
        setattr(module, INPUTS, self.inputs)
        return module.eval()

    def unique(self, name: str) -> str:
        """`name` as an identifier that the module does not use yet."""
        base = _identifier(name)
        taken, number = base, 2
        while hasattr(self.root, taken):
            taken, number = f"{base}_{number}", number + 1
        return taken


class Node:
    """An ONNX node as the functions of the table see it."""

    def __init__(self, proto: onnx.NodeProto, reader: Reader) -> None:
        self.proto, self.reader, self.op = proto, reader, proto.op_type
        self._attrs = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}

    def refuse(self, why: str, hint: str = "") -> NoReturn:
        name = self.proto.name or (self.proto.output[0] if self.proto.output else "")
        where = f"{self.reader.where}: node {name!r} ({self.op})"
        raise UnsupportedError(where, why, hint or _ELSEWHERE)

    def attr(self, name: str, default: Any) -> Any:
        value = self._attrs.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, index: int) -> bool:
        """Whether the optional input `index` is given."""
        return index < len(self.proto.input) and self.proto.input[index] != ""

    def constant(self, index: int) -> np.ndarray | None:
        """The value of input `index` where it is known beforehand."""
        return self.reader.constants.get(self.proto.input[index]) if self.has(index) else None

    def weight(self, index: int) -> torch.Tensor | None:
        """Input `index` as a tensor, None where it is not given. Refuses what is computed."""
        if not self.has(index):
            return None
        value = self.constant(index)
        if value is None:
            self.refuse(f"its input {index} is computed, not constant")
        return torch.from_numpy(np.array(value, dtype=np.float32))

    def integers(self, name: str, index: int) -> list[int] | None:
        """Integers that older opsets keep in attribute `name` and newer in input `index`."""
        if name in self._attrs:
            return list(self._attrs[name])
        if not self.has(index):
            return None
        value = self.constant(index)
        if value is None:
            self.refuse(f"its {name} is computed, not constant")
        return [int(v) for v in np.atleast_1d(value)]

    def shape(self, index: int = 0) -> Shape:
        """The shape of input `index`, for a batch of one."""
        name = self.proto.input[index]
        if name in self.reader.constants:
            return self.reader.constants[name].shape
        return self.reader.nodes[name].meta["shape"]

    def rank(self) -> int:
        return len(self.shape())

    def image(self) -> None:
        """Refuses anything but (N, C, H, W)."""
        if self.rank() != 4:
            self.refuse(f"its input has {self.rank()} axes, and only images (4 axes) are read")

    def x(self, index: int = 0) -> fx.Node:
        """Input `index`, which must depend on the network's input."""
        name = self.proto.input[index]
        if name not in self.reader.nodes:
            self.refuse(f"its input {name!r} does not depend on the network's input")
        return self.reader.nodes[name]

    def operand(self, index: int) -> fx.Node | float:
        """Input `index`: what flows, a number, or a constant kept as a buffer."""
        value = self.constant(index)
        return value.item() if value is not None and value.ndim == 0 else self.tensor(index)

    def tensor(self, index: int) -> fx.Node:
        """Input `index`: what flows, or a constant kept as a buffer."""
        name = self.proto.input[index]
        if name in self.reader.nodes:
            return self.reader.nodes[name]
        return self.buffer(name, self.reader.constants[name])

    def buffer(self, name: str, value: np.ndarray) -> fx.Node:
        """A constant that the module keeps as a buffer."""
        target, held = self.reader.unique(name), torch.from_numpy(np.array(value))
        self.reader.root.register_buffer(target, held)
        flow = self.reader.graph.get_attr(target)
        flow.meta["shape"], flow.meta["dtype"] = tuple(held.shape), held.dtype
        return flow

    def whole(self, index: int = 0) -> bool:
        """Whether input `index` holds integers (or truth values)."""
        name = self.proto.input[index]
        if name in self.reader.constants:
            return not np.issubdtype(self.reader.constants[name].dtype, np.floating)
        return not self.reader.nodes[name].meta["dtype"].is_floating_point

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        name = _identifier(self.proto.name or self.op)  # what an error's line shows
        graph = self.reader.graph
        flow = graph.create_node("call_function", function, args, kwargs, name)
        self._learn(flow, function, *args, **kwargs)
        return flow

    def module(self, module: nn.Module, x: fx.Node) -> fx.Node:
        """Add `module` under the name of its weight ("stem.0.weight"), else of its node."""
        weight = self.proto.input[1]
        stem = re.sub(r"\.(weight|scale|gamma)$", "", weight)
        target = self.reader.unique(stem if stem != weight else self.proto.name or self.op)
        self.reader.root.add_module(target, module)
        flow = self.reader.graph.call_module(target, (x,))
        self._learn(flow, copy.deepcopy(module).to("meta").eval(), x)
        return flow

    def _learn(
        self, flow: fx.Node, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        """Note shape and dtype of what `function` makes, without computing anything."""
        empty, named = fx.map_arg(
            (args, kwargs),
            lambda f: torch.empty(f.meta["shape"], dtype=f.meta["dtype"], device="meta"),
        )
        try:
            made = function(*empty, **named)
        except (RuntimeError, IndexError, ValueError, TypeError):
            given = [tuple(v.shape) for v in pytree.tree_leaves(empty) if hasattr(v, "shape")]
            self.refuse(f"its inputs {', '.join(map(str, given))} do not fit together", _MENDED)
        flow.meta["shape"], flow.meta["dtype"] = tuple(made.shape), made.dtype


def _way_out(op: str) -> str:
    if op in ("QuantizeLinear", "DequantizeLinear"):
        return "bring the float file, or take a target that keeps Q/DQ nodes (cpu, openvino)"
    return _ELSEWHERE


def _foldable(proto: onnx.NodeProto) -> bool:
    """Not what is random, not what holds a graph, and no Q or DQ: a quantized file stays one."""
    if proto.op_type.startswith(("Random", "Bernoulli", "Multinomial")):
        return False
    if proto.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return False
    return all(attribute.type != onnx.AttributeProto.GRAPH for attribute in proto.attribute)


def _identifier(name: str) -> str:
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return plain if plain and not plain[0].isdigit() else f"n_{plain}"


def _single(node: onnx.NodeProto, opsets: list[onnx.OperatorSetIdProto]) -> onnx.ModelProto:
    """A model of one node, for the reference evaluator."""
    inputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.input if name]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = onnx.helper.make_graph([node], "constant", inputs, outputs)
    return onnx.helper.make_model(graph, opset_imports=opsets)
