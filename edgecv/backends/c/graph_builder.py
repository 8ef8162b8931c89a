"""What every operator's reader needs: values and the tensors that hold them, grids, new steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.c.network import Grid, Step, Tensor, multiplier
from edgecv.errors import UnsupportedError
from edgecv.graphs.onnx.constants import constants
from edgecv.graphs.onnx.index import Index

INFINITY = float("inf")


class Held:
    """An ONNX graph while it becomes steps. An operator is read by the method of its name."""

    def __init__(self, model: Any, where: str) -> None:
        self.where, self.graph = where, model.graph
        self.values = constants(self.graph)
        index = Index(self.graph)
        self.makers, self.readers = index.makers, index.readers
        self.uses, self.ends = index.uses, index.ends
        self.opsets = list(model.opset_import)
        self.shapes = _shapes(model)
        self.views: dict[str, Any] = {}  # values that lie in other tensors: `moves.View`
        self.names: dict[str, str] = {}  # a value -> the tensor that holds it
        self.tensors: dict[str, Tensor] = {}
        self.grids: dict[str, Grid] = {}
        self.steps: list[Step] = []
        self.done: set[str] = set()

    # tensors

    def _new(self, name: str, shape: tuple[int, ...], dtype: str = "float",
             order: tuple[int, int, int] | None = None, last: bool = False,
             images: int = 1) -> str:  # fmt: skip
        high, wide, channels = shape
        self.tensors[name] = Tensor(name, (high, wide, channels), dtype, order, last, images)
        self.names[name] = name
        return name

    def _at(self, name: str) -> Tensor:
        if name not in self.names:
            raise UnsupportedError(self.where, f"{name} is computed by no step before it")
        return self.tensors[self.names[name]]

    def _dtype(self, name: str) -> str:
        """Of a value's tensor."""
        return self._at(name).dtype

    def _float(self, name: str) -> str:
        """The tensor of a value as floats; unpacked from integers once."""
        held = self._at(name)
        if held.dtype != "int8":
            return held.name
        real = f"{held.name}/real"
        if real not in self.tensors:
            grid = self.grids[held.name]
            self._new(real, held.shape, order=held.order, last=held.last, images=held.images)
            self.steps.append(
                Step(
                    "dequantize",
                    [held.name],
                    [real],
                    about={"scale": grid.scale, "zero": grid.zero},
                )
            )
        return real

    def _step(self, node: Any, kind: str, inputs: list[str], shape: tuple[int, ...],
              dtype: str = "float", out: str | None = None, order: Any = None,
              **more: Any) -> Step:  # fmt: skip
        from edgecv.runtime.layers import from_scope

        like = self.tensors[inputs[0]]
        out = self._new(out or node.output[0], shape, dtype, order, like.last, like.images)
        name = node.name if node is not None else ""  # of an input that is copied there is none
        made = Step(kind, inputs, [out], layer=from_scope(name) or name, **more)
        self.steps.append(made)
        return made

    def _alias(self, node: Any) -> None:
        self.names[node.output[0]] = self._at(node.input[0]).name

    def _refused(self, node: Any, what: str) -> UnsupportedError:
        return UnsupportedError(f"{self.where}: {node.name or node.output[0]}", what,
                                "another target runs it")  # fmt: skip

    def _ordered(self, x: Tensor, values: np.ndarray) -> np.ndarray:
        """Values by channel in the order in which x lies."""
        if x.order is None:
            return values
        high, wide, channels = x.order
        return np.ascontiguousarray(
            values.reshape(channels, high, wide).transpose(1, 2, 0)
        ).reshape(-1)

    def _value(self, name: str) -> np.ndarray | None:
        """A constant, as it is or on a grid of one scale."""
        held = self._integers(name)
        return self.values.get(name) if held is None else held[0].astype(np.float64) * held[1]

    def _constant(self, name: str, channels: int) -> np.ndarray:
        value = self._value(name)
        if value is None or value.size not in (1, channels):
            raise UnsupportedError(self.where, f"{name} is no constant by channel")
        return np.broadcast_to(np.asarray(value, np.float32).reshape(-1), channels)

    def _made_last(self, name: str) -> bool:
        """Whether an operator of edgecv made it with its channels last."""
        maker = self.makers.get(name)
        if maker is None or maker.domain != "edgecv":
            return False
        return maker.op_type == "Halve" or any(
            a.name == "last" and list(a.ints) == [1] for a in maker.attribute
        )

    # grids

    def _grid(self, node: Any) -> Grid:
        scale = self.values[node.input[1]]
        signed = any(a.name == "output_dtype" and a.i == 3 for a in node.attribute)
        zero = np.zeros((), np.int8 if signed else np.uint8)
        if len(node.input) > 2 and node.input[2]:
            zero = self.values[node.input[2]]
        if zero.dtype not in (np.int8, np.uint8) or scale.size != 1:
            what = f"{scale.size} grids of {zero.dtype}"
            raise self._refused(node, f"an activation is on {what}, C kernels take one of int8")
        shift = 128 if zero.dtype == np.uint8 else 0  # the same integers, counted from -128 on
        return Grid(float(scale.reshape(())), int(zero.reshape(())) - shift)

    @staticmethod
    def _rescaled(old: Grid, new: Grid) -> dict[str, Any]:
        """One grid into another: m / 2^shift is the ratio of their scales."""
        m, shift = multiplier(old.scale / new.scale)
        return {"x_zero": old.zero, "m": m, "shift": shift, "y_zero": new.zero}

    def _integers(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """(integers less their zero, scales) of a constant that a DequantizeLinear unpacks."""
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        values = self.values.get(maker.input[0])
        if values is None:
            return None
        zero = self.values.get(maker.input[2]) if len(maker.input) > 2 else None
        if zero is not None and zero.any():  # a constant among activations: of one scale
            values = values.astype(np.int32) - zero.astype(np.int32)
        return values, self.values[maker.input[1]].reshape(-1)

    def _ends_in(self, node: Any) -> tuple[Any, float, float, list[Any]] | None:
        """(QuantizeLinear, low, high, what is between) where one takes a node's value, clipped."""
        value, low, high = node.output[0], -INFINITY, INFINITY
        between: list[Any] = []
        while value not in self.ends and self.uses[value] == 1:
            reader = self.readers[value][0]
            if reader.op_type == "QuantizeLinear":
                return reader, low, high, between
            limits = self._limits(reader)
            if limits is None:
                return None
            low, high = max(low, limits[0]), min(high, limits[1])
            between.append(reader)
            value = reader.output[0]
        return None

    def _limits(self, node: Any) -> tuple[float, float] | None:
        """What Relu and Clip clip to."""
        if node.op_type == "Relu":
            return 0.0, INFINITY
        if node.op_type != "Clip":
            return None
        ends = [-INFINITY, INFINITY]
        for i, name in enumerate(node.input[1:3]):
            value = self._value(name) if name else ends[i]
            if value is None:
                return None
            ends[i] = float(np.asarray(value).reshape(()))
        return ends[0], ends[1]

    def _integer(self, node: Any, inputs: list[str]) -> tuple[Any, Grid, int, int] | None:
        """(the value that it makes, its grid, lowest, highest) of a node that runs in integers."""
        if any(self._dtype(n) != "int8" for n in inputs):
            return None
        found = self._ends_in(node)
        if found is None:
            return None
        quantize, low, high, between = found
        grid = self._grid(quantize)
        ends = [
            int(np.clip(np.rint(v / grid.scale) + grid.zero, -128, 127)) if np.isfinite(v) else edge
            for v, edge in ((low, -128), (high, 127))
        ]
        self.done |= {n.output[0] for n in (quantize, *between)}
        return quantize.output[0], grid, ends[0], ends[1]

    def _clipped(self, node: Any) -> tuple[str, float, float]:
        """(the value behind them, low, high) with the Relu and Clip that alone read a node."""
        value, low, high = node.output[0], -INFINITY, INFINITY
        while value not in self.ends and self.uses[value] == 1:
            reader = self.readers[value][0]
            limits = self._limits(reader)
            if limits is None:
                break
            low, high = max(low, limits[0]), min(high, limits[1])
            value = reader.output[0]
            self.done.add(value)
        return value, low, high


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every value that ONNX knows of; an axis that it does not is 0."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    return {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in (*graph.input, *graph.value_info, *graph.output)
        if v.type.tensor_type.HasField("shape")
    }
