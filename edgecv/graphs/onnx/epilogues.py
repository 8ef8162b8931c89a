"""Activations as files spell them, each found as the one function that it is.

    silu       x sigmoid(x)                       Sigmoid, Mul
    hardswish  x clip(x / 6 + 1/2, 0, 1)          HardSigmoid, Mul; Add, Clip, Mul, Div; HardSwish
    mish       x tanh(log(1 + e^x))               Softplus, Tanh, Mul; Mish
    gelu       x (1 + erf(x / sqrt 2)) / 2        Div, Erf, Add, Mul, Mul; Gelu; or its tanh form

What lies inside is no tensor of the network: an engine that computes the whole at once keeps these
values in registers. Nodes that end in a product and read one tensor are run by ONNX's reference on
numbers, which says which function they are, however it is spelled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.graphs.onnx.index import Index

ELEMENTWISE = frozenset((
    "Add", "Clip", "Div", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "Log",
    "Max", "Min", "Mish", "Mul", "Neg", "Pow", "Relu", "Sigmoid", "Softplus", "Sub", "Swish",
    "Tanh",
))  # fmt: skip
ENDS = frozenset(("Div", "Gelu", "HardSwish", "Mish", "Mul", "Swish"))
MOST_NODES = 10
X = np.linspace(-9, 9, 73, dtype=np.float32)
CLOSE = 2e-4


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], ...]] = {
    "silu": (lambda x: x * _sigmoid(x),),
    "hardswish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1),),
    "mish": (lambda x: x * np.tanh(np.log1p(np.exp(x))),),
    "gelu": (
        lambda x: x * np.array([1 + math.erf(v / math.sqrt(2)) for v in x]) / 2,
        lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
}


@dataclass(frozen=True)
class Epilogue:
    """kind: a key of FUNCTIONS. input: the tensor that it is of. nodes: in the file's order, the
    last one gives the output."""

    kind: str
    input: str
    nodes: tuple[Any, ...]

    @property
    def output(self) -> str:
        return str(self.nodes[-1].output[0])

    @property
    def inner(self) -> tuple[str, ...]:
        """The tensors between its nodes."""
        return tuple(str(n.output[0]) for n in self.nodes[:-1])


def epilogues(model: Any) -> list[Epilogue]:
    """Those of an onnx.ModelProto, in the file's order; none shares a node with another."""
    index = Index(model.graph)
    order = {node.output[0]: i for i, node in enumerate(model.graph.node)}
    values = _values(index)
    found: list[Epilogue] = []
    taken: set[str] = set()  # nodes, by the tensor that they give
    for node in reversed(model.graph.node):  # from the end: the whole of one before a part of it
        if node.op_type not in ENDS or node.output[0] in taken:
            continue
        for source, nodes in _grown(index, node, order, values):
            own = {n.output[0] for n in nodes}
            if taken & own:
                break
            if _closed(index, nodes) and (kind := _kind(model, source, nodes, values)):
                found.append(Epilogue(kind, source, tuple(nodes)))
                taken |= own
                break
    return found[::-1]


def with_product(index: Index, found: Epilogue) -> tuple[Any, ...]:
    """Its nodes, and the product by constants that alone reads what they give, if there is one."""
    readers = index.readers[found.output]
    if len(readers) != 1 or found.output in index.ends or readers[0].op_type != "Mul":
        return found.nodes
    others = [n for n in readers[0].input if n != found.output]
    if len(others) != 1 or others[0] not in index.held:
        return found.nodes
    return (*found.nodes, readers[0])


def _values(index: Index) -> dict[str, np.ndarray]:
    """Single numbers that the graph holds."""
    from onnx import numpy_helper

    held = {name: t for name, t in index.held.items() if math.prod(t.dims) == 1}
    held |= {
        node.output[0]: a.t
        for node in index.graph.node if node.op_type == "Constant"
        for a in node.attribute if a.name == "value" and math.prod(a.t.dims) == 1
    }  # fmt: skip
    return {name: np.asarray(numpy_helper.to_array(t)) for name, t in held.items()}


def _grown(
    index: Index, end: Any, order: dict[str, int], values: dict[str, np.ndarray]
) -> Iterator[tuple[str, list[Any]]]:
    """Every set of nodes that ends in `end` and reads one tensor, the smallest first."""
    nodes = {end.output[0]: end}
    while len(nodes) <= MOST_NODES:
        leaves = {n for node in nodes.values() for n in node.input if n}
        leaves -= {*nodes} | {*values}
        if len(leaves) == 1:
            yield next(iter(leaves)), [nodes[n] for n in sorted(nodes, key=order.__getitem__)]
        makers = [index.makers[n] for n in leaves if n in index.makers]
        makers = [n for n in makers if n.op_type in ELEMENTWISE]
        if not makers:
            return
        last = max(makers, key=lambda n: order[n.output[0]])
        nodes[last.output[0]] = last


def _closed(index: Index, nodes: list[Any]) -> bool:
    """Whether nothing else reads what lies between the nodes."""
    own = {node.output[0] for node in nodes}
    return all(
        name not in index.ends and own.issuperset(r.output[0] for r in index.readers[name])
        for name in own - {nodes[-1].output[0]}
    )


def _kind(model: Any, source: str, nodes: list[Any], values: dict[str, np.ndarray]) -> str:
    """Which function of FUNCTIONS they compute; "" for another one."""
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    end = nodes[-1].output[0]
    held = {n for node in nodes for n in node.input if n in values}
    graph = helper.make_graph(
        nodes, "epilogue",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info(end, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values[n], n) for n in sorted(held)],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=8)
    try:
        answered: Any = ReferenceEvaluator(made).run(None, {source: X})
    except Exception:  # the reference's own: then it is none that is known
        return ""
    answer = np.asarray(answered[0])
    for kind, functions in FUNCTIONS.items():
        for function in functions:
            if answer.shape == X.shape and np.abs(answer - function(X)).max() < CLOSE:
                return kind
    return ""
