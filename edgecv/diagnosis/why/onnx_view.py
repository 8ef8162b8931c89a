"""An .onnx file as `edgecv why` looks at it: its layers, on which grids, in what surroundings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.profile import KERNELS, Names
from edgecv.diagnosis.why.onnx_fusing import unfused
from edgecv.diagnosis.why.view import Transposed, View
from edgecv.diagnosis.why.walk import beyond
from edgecv.errors import EngineError, missing, one_line
from edgecv.graphs.onnx import wire
from edgecv.graphs.onnx.geometry import geometry
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import KINDS
from edgecv.measuring.product import Product
from edgecv.runtime.layers import from_scope
from edgecv.runtime.spec import Layer

COUNTED = ("BinaryConv", "BinaryBits", "BinaryBoth")
_FLOATS = (1, 10, 11)  # TensorProto: FLOAT, FLOAT16, DOUBLE
_LOOKS_THROUGH = frozenset(
    ("DequantizeLinear", "QuantizeLinear", "Identity", "Transpose", "Reshape", "Cast")
)
_FAR = 6
GATES = ("Sigmoid", "HardSigmoid", "Tanh")  # functions whose answers multiply


class OnnxView(View):
    """A `View` of .onnx bytes. Raises MissingExtraError, EngineError (not an ONNX model).

    name: of the engine's main file
    x86:  whether signed activations stay unfused where it runs
    """

    def __init__(self, name: str, content: bytes, x86: bool) -> None:
        try:
            import onnx
        except ImportError:
            raise missing("onnx", "compress", "edgecv why") from None
        self._onnx, self._name, self.x86 = onnx, name, x86
        try:
            model = onnx.load_model_from_string(content)
            self.model = onnx.shape_inference.infer_shapes(model)
        except Exception as e:
            raise EngineError(name, one_line(e, 200), "is it an ONNX file?") from None
        _hold_constants(self.model)
        _name_layers(self.model)
        content = self.model.SerializeToString()
        self.files: Mapping[str, bytes] = {name: content}
        self._names = Names(wire.read(content))
        graph = self.model.graph
        index = Index(graph)
        self.held, self.makers, self.readers = index.held, index.makers, index.readers
        values = (*graph.value_info, *graph.input, *graph.output)
        self._shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
        self.ends = index.ends
        self._starts = {i.name for i in graph.input} - self.held.keys()

    @cached_property
    def products(self) -> tuple[Product, ...]:
        made = (self._product(n) for n in self.model.graph.node if n.op_type in KINDS)
        return tuple(p for p in made if p is not None)

    @cached_property
    def counted(self) -> tuple[Product, ...]:  # type: ignore[override]  # a property of others too
        return tuple(self._counted(n) for n in self.model.graph.node if n.op_type in COUNTED)

    @cached_property
    def transposes(self) -> tuple[Transposed, ...]:
        return tuple(
            Transposed(node.name or node.output[0], (self._around(node, -1), self._around(node, 1)))
            for node in self.model.graph.node
            if node.op_type == "Transpose" and node.input[0] not in self.held
        )

    def floats(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, tensor in self.held.items():
            if tensor.data_type in _FLOATS:
                reader = next(iter(self.readers.get(name, ())), None)
                layer = self.layer(reader) if reader is not None else ""
                yield layer or name, self._onnx.numpy_helper.to_array(tensor)

    def activations(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        from edgecv.diagnosis.why.onnx_int8 import values

        floats = {
            v.name: self.makers[v.name]
            for v in self.model.graph.value_info
            if v.type.tensor_type.elem_type in _FLOATS and v.name in self.makers
        }
        made = {n: m for n, m in floats.items() if m.op_type not in _LOOKS_THROUGH}
        for name, array in values(self.model, made, feeds).items():
            yield self.layer(made[name]) or name, array

    def gates(self, kernel: str) -> bool:
        node = self._names.named(kernel)
        if node is None or node.op != "Mul":
            return False
        return any(self._made_by(name) in GATES for name in node.inputs)

    def _made_by(self, name: str) -> str:
        """The operator that makes a tensor, through the nodes that only move its numbers."""
        node = self.makers.get(name)
        for _ in range(_FAR):
            if node is None or node.op_type not in _LOOKS_THROUGH:
                break
            node = self.makers.get(node.input[0])
        return str(node.op_type) if node is not None else ""

    def multiplier(self, row: Layer) -> str:
        if row.op not in KERNELS:
            return ""
        node = self._names.multiplier(row.name)
        return row.layer or (node.name or node.outputs[0] if node else "")

    def without_transposes(self) -> Mapping[str, bytes] | None:
        from edgecv.diagnosis.why.onnx_mend import without_transposes

        return self.written(without_transposes(self.model, self._shapes))

    def without_subnormals(self) -> Mapping[str, bytes] | None:
        from edgecv.graphs.onnx.subnormals import flush_onnx

        model = self._copy()
        return self.written(model) if flush_onnx(model) else None

    def unsigned(self) -> Mapping[str, bytes] | None:
        """The same with activations on u8 grids in place of s8."""
        from edgecv.diagnosis.why.onnx_mend import unsigned

        return self.written(unsigned(self.model))

    def unpacked(self) -> Mapping[str, bytes] | None:
        """The same with float weights where integers were unpacked for float layers."""
        from edgecv.diagnosis.why.onnx_mend import unpacked

        return self.written(unpacked(self.model))

    def in_integers(
        self, layers: set[str], feeds: Mapping[str, np.ndarray]
    ) -> Mapping[str, bytes] | None:
        """The same with those layers in int8 too, on ranges of one input."""
        from edgecv.diagnosis.why.onnx_int8 import in_integers

        nodes = [n for n in self.model.graph.node if n.op_type in KINDS]
        return self.written(in_integers(self, [n for n in nodes if self.layer(n) in layers], feeds))

    def written(self, model: Any) -> Mapping[str, bytes] | None:
        """A model as the engine's files."""
        return None if model is None else {self._name: model.SerializeToString()}

    def layer(self, node: Any) -> str:
        """The layer of the model that a node belongs to, "" when unknown."""
        return self._names.layer(node.name or node.output[0], node.op_type, None)

    def grid(self, tensor: str) -> str:
        """The dtype that a DequantizeLinear unpacks the tensor from, "" when none makes it."""
        maker = self.makers.get(tensor)
        if maker is None or maker.op_type != "DequantizeLinear":
            return ""
        zero = self.held.get(maker.input[2]) if len(maker.input) > 2 else None
        source = self.held.get(maker.input[0])
        kind = zero or source
        return "uint8" if kind is None else _dtype(kind.data_type)

    def constant(self, tensor: str) -> Any:
        """The initializer behind a tensor, through nodes that unpack it; None for an activation."""
        for _ in range(_FAR):
            if tensor in self.held:
                return self.held[tensor]
            maker = self.makers.get(tensor)
            if maker is None or maker.op_type not in _LOOKS_THROUGH:
                return None
            tensor = maker.input[0]
        return None

    def _product(self, node: Any) -> Product | None:
        weight = self.constant(node.input[1])
        into, out = (self._shapes.get(t, []) for t in (node.input[0], node.output[0]))
        if not into or not out or 0 in (*into, *out):
            return None
        dims = list(weight.dims) if weight is not None else self._shapes.get(node.input[1], [])
        if len(dims) < 2:
            return None
        common: dict[str, Any] = {
            "layer": self.layer(node) or node.name,
            "kind": KINDS[node.op_type],
            "activations": self.grid(node.input[0]) or "float32",
            "weights": ""
            if weight is None
            else self.grid(node.input[1]) or _dtype(weight.data_type),
            "fixed": (self._reaches(node, -1), self._reaches(node, 1)),
            "unfused": unfused(self, node),
        }
        if node.op_type != "Conv":
            return Product(channels=(into[-1], out[-1]), **common)
        if len(dims) != 4:
            return None
        strides, dilations, pads, groups = geometry(node)
        return Product(
            channels=(into[1], dims[0]), size=(into[2], into[3]),
            result=(out[2], out[3]), kernel=(dims[2], dims[3]),
            strides=tuple(strides), dilations=tuple(dilations), pads=tuple(pads), groups=groups,
            **common,
        )  # fmt: skip

    def _counted(self, node: Any) -> Product:
        """A layer of one bit, by its attribute `shape`."""
        numbers = next(list(a.ints) for a in node.attribute if a.name == "shape")
        height, width, channels, filters, *rest = numbers
        kernel, strides, dilations = rest[0:2], rest[2:4], rest[4:6]
        pads, groups = rest[6:10], rest[10]
        result = [
            (side + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
            for i, side in enumerate((height, width))
        ]
        return Product(
            self.layer(node) or node.name, "conv", (channels, filters), (height, width),
            tuple(result), tuple(kernel), tuple(strides), tuple(dilations), tuple(pads), groups,
            "binary", "binary",
        )  # fmt: skip

    def _beyond(self, node: Any, way: int) -> Iterator[Any]:
        """The nodes before (way -1) or after (1) a node up to the next products, nearest first."""

        def near(at: Any) -> list[Any]:
            if way > 0:
                return [r for t in at.output for r in self.readers.get(t, ())]
            return [self.makers[t] for t in at.input if t in self.makers]

        return beyond(node, near, id, lambda at: at.op_type in KINDS)

    def _reaches(self, node: Any, way: int) -> bool:
        """Whether the network's input (way -1) or output (1) is next to it, no product between."""
        ends = self._starts if way < 0 else self.ends
        passed = (n for n in self._beyond(node, way) if n.op_type not in KINDS)
        return any(
            ends & set(at.input if way < 0 else at.output) for at in itertools.chain([node], passed)
        )

    def _around(self, node: Any, way: int) -> str:
        """The nearest product before (-1) or after (1) a node."""
        found = next((n for n in self._beyond(node, way) if n.op_type in KINDS), None)
        return (self.layer(found) or str(found.name)) if found is not None else ""

    def _copy(self) -> Any:
        model = self._onnx.ModelProto()
        model.CopyFrom(self.model)
        return model


def _hold_constants(model: Any) -> None:
    """Constant nodes as initializers: exporters and quantizers write either."""
    for node in [n for n in model.graph.node if n.op_type == "Constant"]:
        (found,) = node.attribute
        if found.name != "value":
            continue
        model.graph.initializer.append(found.t)
        model.graph.initializer[-1].name = node.output[0]
        model.graph.node.remove(node)


def _name_layers(model: Any) -> None:
    """Give nodes without a scope one of their own name, by which the profile knows them again."""
    for i, node in enumerate(model.graph.node):
        if node.op_type in (*KINDS, *COUNTED) and not from_scope(node.name):
            name = "".join(c if c.isalnum() else "_" for c in node.name or f"{node.op_type}_{i}")
            node.name = f"/{name}/{node.op_type}"


def _dtype(kind: int) -> str:
    """ "uint8" for TensorProto.UINT8, "int4" for INT4, "float32" for FLOAT."""
    import onnx

    name = str(onnx.TensorProto.DataType.Name(kind)).lower()
    return "float32" if name == "float" else name
