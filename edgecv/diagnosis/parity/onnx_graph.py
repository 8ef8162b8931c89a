"""The layers of an ONNX graph, seen through its Q/DQ pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.diagnosis.parity.layers import INPUT, Grid, Layer, module_path
from edgecv.errors import ModelError
from edgecv.graphs.onnx import layers
from edgecv.graphs.onnx.constants import axis_of, dequantized
from edgecv.graphs.onnx.index import Index

KINDS = {
    **layers.KINDS, "ConvInteger": "conv", "Add": "add",
    "GlobalAveragePool": "mean", "ReduceMean": "mean", "Flatten": "reshape", "Reshape": "reshape",
    "Squeeze": "reshape", "Unsqueeze": "reshape",
}  # fmt: skip
PAIR = ("QuantizeLinear", "DequantizeLinear")
COMPARED = ("strides", "pads", "dilations", "group", "kernel_shape", "auto_pad")


class OnnxGraph:
    """Who makes what, seen through Q/DQ pairs.

    read:     tensor -> the tensor that holds it in real numbers, behind its pair if it has one
    integers: tensor -> the tensor in its pair, which an optimised graph keeps where the other
              would take a fused kernel apart
    grids:    tensor -> the grid of its pair

    tabled:   what convolutions give of which tables are read

    A convolution whose result is looked up in tables (`backends/onnxruntime/tables.py`) is one
    layer with what the tables give: between them lie numbers of tables.
    """

    def __init__(self, model: Any, title: str) -> None:
        import onnx

        self.nodes = list(model.graph.node)
        index = Index(model.graph)
        self.held, self._outputs, self._producer = index.held, index.ends, index.makers
        inputs = [i.name for i in model.graph.input if i.name not in self.held]
        if not inputs:
            raise ModelError(title, "has no input")
        self.inputs, self.input = inputs, inputs[0]
        self._array = onnx.numpy_helper.to_array
        self.shapes = {
            i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim)
            for i in (*model.graph.value_info, *model.graph.output)
        }
        self._fixed = self._constant_names()
        self.grids: dict[str, Grid] = {}
        self._floors: dict[str, float] = {}  # where grids of channels end
        self.integers: dict[str, str] = {}
        self.read: dict[str, str] = {INPUT: self.input, **{name: name for name in inputs}}
        self._names: dict[str, str] = {self.input: INPUT}
        self.made_by: dict[str, Any] = {}
        self.tabled: set[str] = set()
        self._inside = self._looked_up(index)
        self._pairs()
        self.layers = tuple(self._layers())

    def constant(self, name: str) -> np.ndarray | None:
        """A weight in real numbers: what is held, or a DequantizeLinear of what is."""
        if name in self.held:
            return np.asarray(self._array(self.held[name]))
        node = self._producer.get(name)
        if node is None or name not in self._fixed:
            return None
        if node.op_type == "Constant":
            return np.asarray(self._array(next(a.t for a in node.attribute if a.name == "value")))
        if node.op_type != "DequantizeLinear":
            return None
        parts = [self.constant(n) for n in node.input]
        q, scale = parts[0], parts[1]
        if q is None or scale is None:
            return None
        return dequantized(q, scale, parts[2] if len(parts) > 2 else None, axis_of(node))

    def _constant_names(self) -> set[str]:
        known = set(self.held)
        for node in self.nodes:
            if all(name in known for name in node.input if name):
                known |= set(node.output)
        return known

    def rearranged(self, node: Any) -> bool:
        """Whether it reads the image by `backends/onnxruntime/stem.py`."""
        unpack = self._producer.get(node.input[0])
        maker = self._producer.get(unpack.input[0]) if unpack is not None else None
        return maker is not None and maker.op_type == "SpaceToDepth"

    def _looked_up(self, index: Index) -> set[str]:
        """The tensors between such a convolution's result and what is read of the tables."""
        inside: set[str] = set()
        for node in self.nodes:
            if node.op_type != "Lookup" or node.domain != "edgecv":
                continue
            before, (behind,) = self._producer[node.input[0]], index.readers[node.output[0]]
            pack = self._producer[before.input[0]]
            inside |= {n.output[0] for n in (pack, before, node, behind)}
            self.tabled.add(pack.input[0])
            self._names[pack.input[0]] = behind.output[0]
            self.integers[pack.input[0]] = behind.output[0]
        return inside

    def _root(self, name: str) -> str:
        """The tensor that a chain of Q, DQ and Identity repeats, or that tables were read by."""
        node = self._producer.get(name)
        while node is not None and node.input:
            if node.op_type not in (*PAIR, "Identity") and node.output[0] not in self._inside:
                break
            name = node.input[0]
            node = self._producer.get(name)
        return name

    def _pairs(self) -> None:
        for node in self.nodes:
            if node.op_type not in PAIR or node.output[0] in self._fixed | self._inside:
                continue
            root = self._root(node.input[0])
            scale, zero = self.constant(node.input[1]), None
            if len(node.input) > 2:
                zero = self.constant(node.input[2])
            if scale is not None and zero is not None and scale.size > 1:
                low = np.iinfo(zero.dtype).min
                self._floors[root] = float((scale * (low - zero.astype(np.float64))).min())
            elif scale is not None and scale.size == 1:
                zero = np.zeros((), np.uint8) if zero is None else zero
                limits = np.iinfo(zero.dtype)
                self.grids.setdefault(
                    root,
                    Grid(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), int(limits.min),
                         int(limits.max)),
                )  # fmt: skip
            if node.op_type == "QuantizeLinear":
                self.integers.setdefault(root, node.output[0])
            else:
                self.read[root] = node.output[0]
                if root == self.input:
                    self.read[INPUT] = node.output[0]
            # the float graph calls its answer by the graph's own output's name
            if node.output[0] in self._outputs:
                self._names[root] = node.output[0]

    def _layers(self) -> list[Layer]:
        found = []
        for node in self.nodes:
            outside = node.output[0] not in self._fixed | self._inside
            if node.op_type in (*PAIR, "Identity") or not outside:
                continue
            root = node.output[0]
            name = self._names.get(root, root)
            self.read[name] = self.read.get(root, root)
            self.made_by[name] = node
            self._names |= dict.fromkeys(node.output[1:], name)  # of a Split: one layer
            if root in self.integers:
                self.integers[name] = self.integers[root]
            if root in self.grids:
                self.grids[name] = self.grids[root]
            grid = self.grids.get(root)
            roots = [self._root(n) for n in node.input if n and n not in self._fixed]
            kind = KINDS.get(node.op_type, node.op_type.lower())
            weight = self._root(node.input[1]) if kind in ("conv", "dense") else ""
            path = module_path(node.name) or module_path(weight)
            found.append(
                Layer(
                    name=node.name or root,
                    kind=kind,
                    tensor=name,
                    inputs=tuple(self._names.get(r, r) for r in roots),
                    shape=self.shapes.get(root, ()),
                    path=path,
                    clip=self._clip(root),
                    grid=grid,
                    attributes=_attributes(node),
                )
            )
        return found

    def _clip(self, root: str) -> tuple[float, float] | None:
        """What the low end of a grid clips: a ReLU, or what is flat of an activation that follows
        (`methods/quantize/onnx_tables.py`)."""
        grid = self.grids.get(root)
        if grid is not None:
            return (0.0, np.inf) if grid.zero_point == grid.low else None
        return (self._floors[root], np.inf) if root in self._floors else None


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    found = {
        a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.name in COMPARED
    }
    return {k: list(v) if isinstance(v, list | tuple) else v for k, v in found.items()}
