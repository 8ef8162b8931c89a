"""ONNX Runtime's own profile of a session, as layers.

    events of the profile      which kernels ran, how long, on which tensors
    the optimised graph        which weights each of them holds: a profile leaves out those that
                               were packed when the session was made
    the network's own graph    which layer it was: optimised nodes are called after a node or an
                               output of it ("/stem/stem.2/Relu_output_0_nchwc")

Imports with the standard library and numpy alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgecv.graphs.onnx.wire import Network, Node
from edgecv.runtime.layers import layer_of, typical_ms
from edgecv.runtime.spec import Layer

# Kernels that multiply and accumulate, and what in; contrib and NCHWc variants included
# (docs/ContribOperators.md of ONNX Runtime).
KERNELS = {
    "BinaryConv": "binary",
    "BinaryBits": "binary",
    "BinaryBoth": "binary",
    "QLinearConv": "int8",
    "QLinearConvTranspose": "int8",
    "QGemm": "int8",
    "QLinearMatMul": "int8",
    "ConvInteger": "int8",
    "MatMulInteger": "int8",
    "MatMulIntegerToFloat": "int8",
    "DynamicQuantizeMatMul": "int8",
    "QAttention": "int8",
    "Conv": "fp32",
    "FusedConv": "fp32",
    "ConvTranspose": "fp32",
    "Gemm": "fp32",
    "FusedGemm": "fp32",
    "MatMul": "fp32",
    "FusedMatMul": "fp32",
}
# Kernels that compute nothing: they copy, or convert between precisions.
MOVES = frozenset((
    "Binarize", "Cast", "Concat", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity",
    "Pad", "QLinearConcat", "QuantizeLinear", "ReorderInput", "ReorderOutput", "Reshape", "Shape",
    "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
))  # fmt: skip
PRECISIONS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64",
              "uint8": "int8", "int8": "int8"}  # fmt: skip

ONES = "/ones"  # in the names of convolutions that pick channels or average them
_FAR = 8  # nodes between a kernel and its weight, or a fused activation and its layer
_SUFFIX = "_kernel_time"
_OPTIMISED = re.compile(r"_(?:nchwc|nhwc|token_\d+)$")
# A weight's road to its layer in a Q/DQ graph.
_PASSED_THROUGH = frozenset(
    ("DequantizeLinear", "QuantizeLinear", "Identity", "Transpose", "Reshape", "Cast")
)


def kernels(events: Iterable[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any], list[int]]]:
    """(node, arguments, microseconds of each run) of every kernel in a profile, as they ran."""
    found: dict[tuple[str, str], tuple[str, Mapping[str, Any], list[int]]] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(_SUFFIX):
            continue
        name, args = event["name"].removesuffix(_SUFFIX), event["args"]
        key = name, args.get("node_index", "")
        found.setdefault(key, (name, args, []))[2].append(event["dur"])
    return list(found.values())


def layers(
    events: Iterable[Mapping[str, Any]], optimised: Network, network: Network, warmup: int
) -> tuple[Layer, ...]:
    """One Layer per kernel; the first `warmup` runs are dropped."""
    names = Names(network)
    held = {node.name: node for node in optimised.nodes}
    made = []
    for name, args, calls in kernels(events):
        op = args["op_name"]
        node = held.get(name)
        layer, size = names.layer(name, op, node), _moved(args, node, optimised.weights)
        made.append(Layer(name, layer, op, _precision(op, args), typical_ms(calls[warmup:]), size))
    return tuple(made)


def _precision(op: str, args: Mapping[str, Any]) -> str:
    if op in MOVES:
        return ""
    if (own := KERNELS.get(op)) in ("int8", "binary"):
        return str(own)
    kind = next((str(k) for tensor in args.get("input_type_shape", ()) for k in tensor), "")
    return PRECISIONS.get(kind, kind)


def _moved(args: Mapping[str, Any], node: Node | None, weights: Mapping[str, int]) -> int:
    """Bytes: activations in and out as the profile counts them, and the node's weights."""
    if node is None:
        parameters = int(args.get("parameter_size", 0))
    else:
        parameters = sum(weights.get(name, 0) for name in node.inputs)
    return int(args.get("activation_size", 0)) + int(args.get("output_size", 0)) + parameters


class Names:
    """From an optimised node back to a layer of the model."""

    def __init__(self, network: Network) -> None:
        self._weights = network.weights
        self._nodes = {node.name: node for node in network.nodes if node.name}
        self._makers = network.makers
        self._readers: dict[str, list[Node]] = {}
        for node in network.nodes:
            for name in map(self._weight, node.inputs if node.op in KERNELS else ()):
                self._readers.setdefault(name, []).append(node)

    def layer(self, name: str, op: str, optimised: Node | None) -> str:
        """The layer that the kernel `op` of that name computes, "" when unknown."""
        node = self.named(name)
        if op in KERNELS:
            # A convolution is called after the activation that was fused into it.
            node = self._reader(optimised) or self._multiplier(node)
        if node is None:
            return ""
        return layer_of(map(self._weight, node.inputs[1:]), (node.name,))

    def named(self, name: str) -> Node | None:
        """The node that the optimiser named its own after: by its name, or by its output."""
        while (shorter := _OPTIMISED.sub("", name)) != name:
            name = shorter
        return self._nodes.get(name) or self._makers.get(name)

    def multiplier(self, name: str) -> Node | None:
        """The convolution or product that the kernel of that name computes, or follows."""
        return self._multiplier(self.named(name))

    def _reader(self, optimised: Node | None) -> Node | None:
        """The one node of the network that reads a weight which the optimised node still holds."""
        for name in optimised.inputs if optimised else ():
            readers = self._readers.get(name, ())
            if len(readers) == 1:
                return readers[0]
        return None

    def _multiplier(self, node: Node | None) -> Node | None:
        """The node itself if it multiplies, else the one it follows; None where that is not one."""
        for _ in range(_FAR):
            if node is None or node.op in KERNELS:
                return node
            makers = [self._makers[name] for name in node.inputs if name in self._makers]
            makers = [maker for maker in makers if maker.op != "Constant"]
            node = makers[0] if len(makers) == 1 else None
        return None

    def _weight(self, name: str) -> str:
        """The weight that a node reads through the nodes that unpack it, "" for an activation."""
        for _ in range(_FAR):
            maker = self._makers.get(name)
            if maker is None or maker.op not in _PASSED_THROUGH:
                break
            name = maker.inputs[0]
        return name if name in self._weights else ""


def counts(events: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Kernels that multiply, by precision: {"int8": 9}. By ones: that is no layer."""
    found: dict[str, int] = {}
    for name, args, _ in kernels(events):
        precision = KERNELS.get(args["op_name"])
        if precision and ONES not in name:
            found[precision] = found.get(precision, 0) + 1
    return found
