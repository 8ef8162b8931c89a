"""An ONNX graph as steps in C: what each computes, on which tensors, with which constants.

    float    Conv, Gemm, Add, pooling, activations: as they are
    int8     Q/DQ around them: q_y = z_y + round(M (b_q + Σ (q_x − z_x) q_w)),
             M = s_x s_w / s_y ≈ m / 2^k
    one bit  the operators of `edgecv.binary.lowering`

Tensors are (height, width, channels). Jacob et al., "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference" (CVPR 2018). What has no integer form here runs in
float between its own conversions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecv.errors import UnsupportedError

SIZE_OF = {"float": 4, "int8": 1, "bits": 4}
INFINITY = float("inf")


@dataclass(frozen=True)
class Grid:
    """real = scale (q − zero)"""

    scale: float
    zero: int


@dataclass(frozen=True)
class Tensor:
    """shape: height, width, channels. order: the (h, w, c) that was flattened into channels."""

    name: str
    shape: tuple[int, int, int]
    dtype: str = "float"
    order: tuple[int, int, int] | None = None

    @property
    def values(self) -> int:
        high, wide, channels = self.shape
        return high * wide * (-(-channels // 32) if self.dtype == "bits" else channels)

    @property
    def size_bytes(self) -> int:
        return self.values * SIZE_OF[self.dtype]


@dataclass
class Step:
    """One call. kind: the function in kernels.c; layer: of the model; constants: by role."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    layer: str = ""


@dataclass
class Network:
    """Steps in an order that runs; tensors by name."""

    steps: list[Step]
    tensors: dict[str, Tensor]
    source: str
    result: str


def multiplier(ratio: float) -> tuple[int, int]:
    """(m, k) with ratio ≈ m / 2^k, m of 31 bits."""
    fraction, power = math.frexp(ratio)
    m, shift = round(fraction * 2**31), 31 - power
    if m == 2**31:
        m, shift = m // 2, shift - 1
    if shift > 62:  # nothing of it is left in 8 bits
        return 0, 31
    if shift < 1 or m <= 0:
        raise UnsupportedError("c", f"two grids differ by {ratio:g}", "quantize it again")
    return m, shift


def read(model: Any, where: str) -> Network:
    """The steps of an onnx.ModelProto, lowered already. Raises UnsupportedError with the node."""
    return _Reader(model, where).run()


class _Reader:
    def __init__(self, model: Any, where: str) -> None:
        from onnx import numpy_helper

        self.where, self.graph = where, model.graph
        self.values = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        for node in self.graph.node:
            if node.op_type == "Constant":
                self.values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        self.makers = {o: n for n in self.graph.node for o in n.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.ends = {o.name for o in self.graph.output}
        self.names: dict[str, str] = {}  # a value -> the tensor that holds it
        self.tensors: dict[str, Tensor] = {}
        self.grids: dict[str, Grid] = {}
        self.steps: list[Step] = []
        self.done: set[str] = set()

    def run(self) -> Network:
        (source,) = [i for i in self.graph.input if i.name not in self.values]
        _, channels, high, wide = [d.dim_value for d in source.type.tensor_type.shape.dim]
        self._new(source.name, (high, wide, channels))
        for node in self.graph.node:
            if node.op_type == "Constant" or node.output[0] in self.done:
                continue
            handler = getattr(self, f"_{node.op_type.lower()}", None)
            if handler is None:
                raise self._refused(node, f"{node.op_type} has no C kernel")
            handler(node)
        (result,) = (o.name for o in self.graph.output)
        return Network(self.steps, self.tensors, source.name, self._float(result))

    # tensors

    def _new(self, name: str, shape: tuple[int, ...], dtype: str = "float",
             order: tuple[int, int, int] | None = None) -> str:  # fmt: skip
        self.tensors[name] = Tensor(name, (shape[0], shape[1], shape[2]), dtype, order)
        self.names[name] = name
        return name

    def _at(self, name: str) -> Tensor:
        if name not in self.names:
            raise UnsupportedError(self.where, f"{name} is computed by no step before it")
        return self.tensors[self.names[name]]

    def _float(self, name: str) -> str:
        """The tensor of a value as floats; unpacked from integers once."""
        held = self._at(name)
        if held.dtype != "int8":
            return held.name
        real = f"{held.name}/real"
        if real not in self.tensors:
            grid = self.grids[held.name]
            self._new(real, held.shape, order=held.order)
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

        out = self._new(out or node.output[0], shape, dtype, order)
        made = Step(kind, inputs, [out], layer=from_scope(node.name) or node.name, **more)
        self.steps.append(made)
        return made

    def _alias(self, node: Any) -> None:
        self.names[node.output[0]] = self._at(node.input[0]).name

    def _refused(self, node: Any, what: str) -> UnsupportedError:
        return UnsupportedError(f"{self.where}: {node.name or node.output[0]}", what,
                                "another target runs it")  # fmt: skip

    # grids

    def _quantizelinear(self, node: Any) -> None:
        held, grid = self._at(node.input[0]), self._grid(node)
        if held.dtype == "int8":  # one grid into another
            old = self.grids[held.name]
            m, shift = multiplier(old.scale / grid.scale)
            about: dict[str, Any] = {
                "x_zero": old.zero,
                "m": m,
                "shift": shift,
                "y_zero": grid.zero,
            }
            made = self._step(node, "rescale_i8", [held.name], held.shape, "int8", about=about,
                              order=held.order)  # fmt: skip
        else:
            about = {"scale": grid.scale, "zero": grid.zero}
            made = self._step(node, "quantize", [held.name], held.shape, "int8", about=about,
                              order=held.order)  # fmt: skip
        self.grids[made.outputs[0]] = grid

    def _dequantizelinear(self, node: Any) -> None:
        if node.input[0] not in self.values:
            self._alias(node)  # its readers take the integers, or `_float`

    def _grid(self, node: Any) -> Grid:
        scale = self.values[node.input[1]]
        zero = self.values[node.input[2]] if len(node.input) > 2 else np.zeros((), np.int8)
        if zero.dtype != np.int8 or scale.size != 1:
            raise self._refused(node, f"an activation is {zero.dtype}, C kernels take int8")
        return Grid(float(scale.reshape(())), int(zero.reshape(())))

    def _integers(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """(integers, scales) of a constant that a DequantizeLinear unpacks."""
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        values = self.values.get(maker.input[0])
        return None if values is None else (values, self.values[maker.input[1]].reshape(-1))

    def _ends_in(self, node: Any) -> tuple[Any, float, float, list[Any]] | None:
        """(QuantizeLinear, low, high, what is between) where one takes a node's value, clipped."""
        value, low, high = node.output[0], -INFINITY, INFINITY
        between: list[Any] = []
        while value not in self.ends and len(self.readers.get(value, ())) == 1:
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
        ends = [float(self.values[n].reshape(())) if n else None
                for n in (*node.input[1:3], "", "")[:2]]  # fmt: skip
        return (-INFINITY if ends[0] is None else ends[0],
                INFINITY if ends[1] is None else ends[1])  # fmt: skip

    def _integer(self, node: Any, inputs: list[str]) -> tuple[Any, Grid, int, int] | None:
        """(the value that it makes, its grid, lowest, highest) of a node that runs in integers."""
        if any(self._at(n).dtype != "int8" for n in inputs):
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
        while value not in self.ends and len(self.readers.get(value, ())) == 1:
            reader = self.readers[value][0]
            limits = self._limits(reader)
            if limits is None:
                break
            low, high = max(low, limits[0]), min(high, limits[1])
            value = reader.output[0]
            self.done.add(value)
        return value, low, high

    # products

    def _conv(self, node: Any) -> None:
        about = _window(node)
        weight = self.values.get(node.input[1])
        packed = self._integers(node.input[1])
        if weight is None and packed is None:
            raise self._refused(node, "its weight is no constant")
        dims = (weight if packed is None else packed[0]).shape  # type: ignore[union-attr]
        if len(dims) != 4:
            raise self._refused(node, "is no convolution of images")
        about["kernel"] = tuple(dims[2:])
        self._product(node, about, weight, packed, (0, 2, 3, 1))

    def _gemm(self, node: Any) -> None:
        held = {a.name: a for a in node.attribute}
        factors = {held[n].f for n in ("alpha", "beta") if n in held}
        if factors - {1.0} or ("transA" in held and held["transA"].i):
            raise self._refused(node, "is a product of another kind")
        turned = not ("transB" in held and held["transB"].i)
        self._dense(node, turned)

    def _matmul(self, node: Any) -> None:
        self._dense(node, True)

    def _dense(self, node: Any, turned: bool) -> None:
        weight, packed = self.values.get(node.input[1]), self._integers(node.input[1])
        if weight is None and packed is None:
            raise self._refused(node, "its weight is no constant")

        def laid(w: np.ndarray) -> np.ndarray:
            rows = w.T if turned else w
            order = self._at(node.input[0]).order
            if order:
                high, wide, channels = order
                rows = rows.reshape(len(rows), channels, high, wide).transpose(0, 2, 3, 1)
            return rows.reshape(len(rows), -1, 1, 1)

        weight = None if weight is None else laid(weight)
        packed = None if packed is None else (laid(packed[0]), packed[1])
        about = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pads": (0, 0, 0, 0),
                 "groups": 1}  # fmt: skip
        self._product(node, about, weight, packed, (0, 2, 3, 1))

    def _product(self, node: Any, about: dict[str, Any], weight: np.ndarray | None,
                 packed: tuple[np.ndarray, np.ndarray] | None,
                 turn: tuple[int, ...]) -> None:  # fmt: skip
        x = self._at(node.input[0])
        bias_name = node.input[2] if len(node.input) > 2 else ""
        filters = len(packed[0] if packed else weight)  # type: ignore[arg-type]
        shape = (*_out(x.shape, about), filters)
        if packed is not None and x.dtype == "int8":
            self._integer_product(node, about, packed, turn, bias_name, x, shape)
            return
        if weight is None:
            assert packed is not None
            each = packed[1].reshape(-1, *[1] * (packed[0].ndim - 1))
            weight = packed[0].astype(np.float32) * each
        bias = self._constant(bias_name, filters) if bias_name else np.zeros(filters, np.float32)
        out, low, high = self._clipped(node)
        constants = {"w": np.ascontiguousarray(weight.transpose(turn), np.float32),
                     "b": bias.astype(np.float32)}  # fmt: skip
        self._step(node, "conv_f32", [self._float(node.input[0])], shape, out=out,
                   constants=constants, about={**about, "low": low, "high": high})  # fmt: skip

    def _integer_product(self, node: Any, about: dict[str, Any],
                         packed: tuple[np.ndarray, np.ndarray], turn: tuple[int, ...],
                         bias_name: str, x: Tensor, shape: tuple[int, ...]) -> None:  # fmt: skip
        grid, (ints, scales) = self.grids[x.name], packed
        each = np.broadcast_to(scales, len(ints)).astype(np.float64) * grid.scale
        held = self._integers(bias_name) if bias_name else None
        if held is not None:
            bias = held[0].astype(np.int32)
        elif bias_name:
            bias = np.rint(self._constant(bias_name, len(ints)) / each).astype(np.int32)
        else:
            bias = np.zeros(len(ints), np.int32)
        constants = {"w": np.ascontiguousarray(ints.transpose(turn)).astype(np.int8), "b": bias}
        about = {**about, "x_zero": grid.zero}
        made = self._integer(node, [node.input[0]])
        if made is None:
            constants["scale"] = each.astype(np.float32)
            self._step(node, "conv_real", [x.name], shape, constants=constants, about=about)
            return
        out, to, low, high = made
        pairs = [multiplier(e / to.scale) for e in each]
        constants |= {"m": np.array([m for m, _ in pairs], np.int32),
                      "shift": np.array([k for _, k in pairs], np.uint8)}  # fmt: skip
        about |= {"y_zero": to.zero, "low": low, "high": high}
        self._step(node, "conv_i8", [x.name], shape, "int8", out, constants=constants, about=about)
        self.grids[out] = to

    def _constant(self, name: str, channels: int) -> np.ndarray:
        held = self._integers(name)
        value = self.values.get(name) if held is None else held[0].astype(np.float64) * held[1]
        if value is None or value.size not in (1, channels):
            raise UnsupportedError(self.where, f"{name} is no constant by channel")
        return np.broadcast_to(np.asarray(value, np.float32).reshape(-1), channels)

    # sums and joins

    def _add(self, node: Any) -> None:
        self._arithmetic(node, "Add")

    def _sub(self, node: Any) -> None:
        self._arithmetic(node, "Sub")

    def _mul(self, node: Any) -> None:
        self._arithmetic(node, "Mul")

    def _arithmetic(self, node: Any, op: str) -> None:
        constant = next((i for i in node.input if i in self.values or self._integers(i)), None)
        if constant is not None:
            self._by_channel(node, op, constant)
            return
        a, b = (self._at(n) for n in node.input)
        if op == "Mul":
            self._gate(node, a, b)
            return
        if op != "Add" or a.shape != b.shape:
            raise self._refused(node, f"{op} of {a.shape} and {b.shape}")
        made = self._integer(node, list(node.input))
        values = a.values
        if made is None:
            out, low, high = self._clipped(node)
            inputs = [self._float(n) for n in node.input]
            self._step(node, "add_f32", inputs, a.shape, out=out, order=a.order,
                       about={"n": values, "low": low, "high": high})  # fmt: skip
            return
        out, grid, low, high = made
        grids = [self.grids[t.name] for t in (a, b)]
        ratios = [g.scale / grid.scale for g in grids]
        shift = 30 - math.frexp(max(ratios))[1]
        factors = [round(r * 2**shift) for r in ratios]
        about = {"n": values, "a_zero": grids[0].zero, "b_zero": grids[1].zero, "a_m": factors[0],
                 "b_m": factors[1], "shift": shift, "y_zero": grid.zero, "low": low,
                 "high": high}  # fmt: skip
        self._step(node, "add_i8", [a.name, b.name], a.shape, "int8", out, a.order, about=about)
        self.grids[out] = grid

    def _by_channel(self, node: Any, op: str, constant: str) -> None:
        other = next(i for i in node.input if i != constant)
        x = self._at(other)
        if op == "Sub" and node.input[0] == constant:
            raise self._refused(node, "a constant minus a value")
        value = self._ordered(x, self._constant(constant, _channels(x)))
        constants = {"scale": value} if op == "Mul" else {"bias": -value if op == "Sub" else value}
        self._step(node, "affine_f32", [self._float(other)], x.shape, order=x.order,
                   constants=constants)  # fmt: skip

    def _gate(self, node: Any, a: Tensor, b: Tensor) -> None:
        names = list(node.input)
        if a.shape[:2] == (1, 1) and b.shape[:2] != (1, 1):
            names, a, b = names[::-1], b, a
        if b.shape not in (a.shape, (1, 1, a.shape[2])):
            raise self._refused(node, f"Mul of {a.shape} and {b.shape}")
        each = int(a.shape == b.shape)
        self._step(node, "gate_f32", [self._float(n) for n in names], a.shape,
                   about={"each": each})  # fmt: skip

    def _concat(self, node: Any) -> None:
        axis = next(a.i for a in node.attribute if a.name == "axis")
        parts = [self._at(n) for n in node.input]
        last = any(self._made_last(n) for n in node.input)
        if axis not in ((3, -1) if last else (1, -3)) or any(p.order for p in parts):
            raise self._refused(node, f"joins along axis {axis}")
        shape = (*parts[0].shape[:2], sum(p.shape[2] for p in parts))
        made = self._integer(node, list(node.input))
        if made is None:
            self._step(node, "join", [self._float(n) for n in node.input], shape)
            return
        out, grid, _, _ = made
        inputs = []
        for i, part in enumerate(parts):
            own = self.grids[part.name]
            if own == grid:
                inputs.append(part.name)
                continue
            m, shift = multiplier(own.scale / grid.scale)
            about = {"x_zero": own.zero, "m": m, "shift": shift, "y_zero": grid.zero}
            name = f"{out}/part{i}"
            self._step(node, "rescale_i8", [part.name], part.shape, "int8", name, about=about)
            inputs.append(name)
        self._step(node, "join", inputs, shape, "int8", out)
        self.grids[out] = grid

    def _made_last(self, name: str) -> bool:
        """Whether an operator of edgecv made it with its channels last."""
        maker = self.makers.get(name)
        if maker is None or maker.domain != "edgecv":
            return False
        return maker.op_type == "Halve" or any(
            a.name == "last" and list(a.ints) == [1] for a in maker.attribute
        )

    # activations

    def _map(self, node: Any, kind: str, constants: dict[str, np.ndarray] | None = None,
             **about: Any) -> None:  # fmt: skip
        """A function of one value: a table of 256 where it reads and makes integers."""
        x = self._at(node.input[0])
        made = None if constants else self._integer(node, [node.input[0]])
        if made is None:
            self._step(node, kind, [self._float(node.input[0])], x.shape, order=x.order,
                       constants=constants or {}, about=about)  # fmt: skip
            return
        from edgecv.backends.c.reference import FUNCTIONS

        out, grid, low, high = made
        own = self.grids[x.name]
        reals = np.float32(own.scale) * (np.arange(-128, 128) - own.zero).astype(np.float32)
        y = np.rint(FUNCTIONS[kind](reals, about) / np.float32(grid.scale)) + grid.zero
        table = np.clip(y, low, high).astype(np.int8)
        self._step(node, "lut_i8", [x.name], x.shape, "int8", out, x.order,
                   constants={"table": table})  # fmt: skip
        self.grids[out] = grid

    def _relu(self, node: Any) -> None:
        self._map(node, "clamp_f32", low=0.0, high=INFINITY)

    def _clip(self, node: Any) -> None:
        low, high = self._limits(node) or (-INFINITY, INFINITY)
        self._map(node, "clamp_f32", low=low, high=high)

    def _leakyrelu(self, node: Any) -> None:
        slope = next((a.f for a in node.attribute if a.name == "alpha"), 0.01)
        x = self._at(node.input[0])
        if slope == 1.0:  # what keeps a layer in float elsewhere (`hold_float`)
            self._alias(node)
            return
        self._map(node, "prelu_f32", {"slope": np.full(_channels(x), slope, np.float32)})

    def _prelu(self, node: Any) -> None:
        x = self._at(node.input[0])
        slope = self._ordered(x, self._constant(node.input[1], _channels(x)))
        self._map(node, "prelu_f32", {"slope": slope})

    def _sigmoid(self, node: Any) -> None:
        self._map(node, "sigmoid_f32")

    def _tanh(self, node: Any) -> None:
        self._map(node, "tanh_f32")

    def _hardswish(self, node: Any) -> None:
        self._map(node, "hardswish_f32")

    def _hardsigmoid(self, node: Any) -> None:
        held = {a.name: a.f for a in node.attribute}
        self._map(node, "hardsigmoid_f32", slope=held.get("alpha", 0.2), bias=held.get("beta", 0.5))

    def _softmax(self, node: Any) -> None:
        x = self._at(node.input[0])
        if x.shape[:2] != (1, 1):
            raise self._refused(node, "Softmax of an image")
        self._step(node, "softmax_f32", [self._float(node.input[0])], x.shape)

    # pools and shapes

    def _maxpool(self, node: Any) -> None:
        self._pool(node, _window(node), True)

    def _averagepool(self, node: Any) -> None:
        self._pool(node, _window(node), False)

    def _globalaveragepool(self, node: Any) -> None:
        high, wide, _ = self._at(node.input[0]).shape
        self._pool(node, {"kernel": (high, wide), "stride": (1, 1), "dilation": (1, 1),
                          "pads": (0, 0, 0, 0), "ceil": 0, "whole": 0}, False)  # fmt: skip

    def _reducemean(self, node: Any) -> None:
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
        if axes is None and len(node.input) > 1:
            axes = self.values[node.input[1]].tolist()
        if sorted(a % 4 for a in axes or ()) != [2, 3]:
            raise self._refused(node, f"a mean over axes {axes}")
        self._globalaveragepool(node)

    def _pool(self, node: Any, about: dict[str, Any], largest: bool) -> None:
        x = self._at(node.input[0])
        about = {**about, "groups": 1, "largest": int(largest), "whole": about.get("whole", 0)}
        shape = (*_out(x.shape, about), x.shape[2])
        made = self._integer(node, [node.input[0]])
        if made is None:
            self._step(node, "pool_f32", [self._float(node.input[0])], shape, about=about)
            return
        out, grid, _, _ = made
        own = self.grids[x.name]
        m, shift = multiplier(own.scale / grid.scale)
        about |= {"x_zero": own.zero, "m": m, "shift": shift, "y_zero": grid.zero}
        self._step(node, "pool_i8", [x.name], shape, "int8", out, about=about)
        self.grids[out] = grid

    def _flatten(self, node: Any) -> None:
        x = self._at(node.input[0])
        if x.shape[:2] == (1, 1):
            self._alias(node)
            return
        flat = Tensor(f"{x.name}/flat", (1, 1, math.prod(x.shape)), x.dtype, x.shape)
        self.tensors[flat.name] = flat
        self.names[node.output[0]] = flat.name
        if x.name in self.grids:
            self.grids[flat.name] = self.grids[x.name]
        self.steps.append(Step("same", [x.name], [flat.name]))

    def _reshape(self, node: Any) -> None:
        wanted = self.values.get(node.input[1])
        sizes = [] if wanted is None else [int(v) for v in wanted.reshape(-1)]
        if len(sizes) == 2 or (len(sizes) == 4 and sizes[2:] == [1, 1]):
            self._flatten(node)
            return
        raise self._refused(node, f"Reshape to {sizes}")

    def _squeeze(self, node: Any) -> None:
        self._flatten(node)

    def _identity(self, node: Any) -> None:
        self._alias(node)

    def _dropout(self, node: Any) -> None:
        self._alias(node)

    def _transpose(self, node: Any) -> None:
        """Between the layouts of the one-bit operators and others': one layout here."""
        readers = [r for r in self.readers.get(node.output[0], ()) if r.domain == "edgecv"]
        perm = next(tuple(a.ints) for a in node.attribute if a.name == "perm")
        into = perm == (0, 2, 3, 1) and bool(readers)
        back = perm == (0, 3, 1, 2) and self._made_last(node.input[0])
        good = into or back
        if not good:
            raise self._refused(node, f"Transpose by {perm}")
        self._alias(node)

    # one bit

    def _ordered(self, x: Tensor, values: np.ndarray) -> np.ndarray:
        """Values by channel in the order in which x lies."""
        if x.order is None:
            return values
        high, wide, channels = x.order
        return np.ascontiguousarray(
            values.reshape(channels, high, wide).transpose(1, 2, 0)
        ).reshape(-1)

    def _binarize(self, node: Any) -> None:
        x = self._at(node.input[0])
        constants = {"least": self._ordered(x, self.values[node.input[1]]),
                     "flip": self._ordered(x, self.values[node.input[2]])}  # fmt: skip
        self._step(node, "binarize", [self._float(node.input[0])], x.shape, "bits",
                   constants=constants, order=x.order)  # fmt: skip

    def _binarybits(self, node: Any) -> None:
        self._bits(node)

    def _binaryconv(self, node: Any) -> None:
        self._bits(node)

    def _binaryboth(self, node: Any) -> None:
        self._bits(node)

    def _bits(self, node: Any) -> None:
        from edgecv.binary.reference import unpacked

        names = [*node.input, *[""] * 12][:12]
        x = self._at(names[0])
        numbers = next(list(a.ints) for a in node.attribute if a.name == "shape")
        _, _, channels, filters, *rest = numbers
        about = {"kernel": tuple(rest[0:2]), "stride": tuple(rest[2:4]),
                 "dilation": tuple(rest[4:6]), "pads": tuple(rest[6:10]),
                 "groups": rest[10]}  # fmt: skip
        own = channels // rest[10]
        constants = {}
        for role, name in (("w", names[1]), ("mask", names[2])):
            if name:
                ones = unpacked(self.values[name], own)
                if x.order and own > 1:  # a dense layer behind a flattened image
                    high, wide, deep = x.order
                    ones = ones.reshape(filters, deep, high, wide).transpose(0, 2, 3, 1)
                    ones = ones.reshape(filters, 1, 1, own)
                constants[role] = words(ones)
        shape = (*_out(x.shape, about), filters)
        if node.op_type == "BinaryBits":
            constants |= {"least": self.values[names[3]], "flip": self.values[names[4]]}
            self._step(node, "conv_bits", [x.name], shape, "bits", constants=constants, about=about)
            return
        roles = ("scale", "bias", "", "", "before", "slope", "after", "border", "flip")
        for role, name in zip(roles, names[3:], strict=True):
            if role and name:
                constants[role] = self.values[name]
        added = [self._float(n) for n in names[5:7] if n]
        about["real"] = True
        made = self._step(
            node, "conv_bits", [x.name, *added], shape, constants=constants, about=about
        )
        if node.op_type == "BinaryBoth":
            made.outputs.append(self._new(node.output[1], shape, "bits"))

    def _halve(self, node: Any) -> None:
        high, wide, own, filters = next(list(a.ints) for a in node.attribute if a.name == "size")
        self._step(node, "halve", [self._float(node.input[0])],
                   (-(-high // 2), -(-wide // 2), filters),
                   about={"times": filters // own})  # fmt: skip


def words(ones: np.ndarray) -> np.ndarray:
    """Booleans (..., channels) as uint32 (..., ceil(channels / 32)), the first channel lowest."""
    channels = ones.shape[-1]
    whole = np.zeros((*ones.shape[:-1], -(-channels // 32) * 32), np.uint8)
    whole[..., :channels] = ones
    return np.packbits(whole, axis=-1, bitorder="little").view("<u4")


def _channels(x: Tensor) -> int:
    return x.shape[2]


def _window(node: Any) -> dict[str, Any]:
    """What a convolution or pooling says of its window."""
    from onnx import helper

    held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if held.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        raise UnsupportedError(node.name, "pads by itself", "export it again")
    return {
        "kernel": tuple(held.get("kernel_shape", ())), "stride": tuple(held.get("strides", (1, 1))),
        "dilation": tuple(held.get("dilations", (1, 1))),
        "pads": tuple(held.get("pads", (0, 0, 0, 0))), "groups": held.get("group", 1),
        "ceil": held.get("ceil_mode", 0), "whole": held.get("count_include_pad", 0),
    }  # fmt: skip


def _out(shape: tuple[int, int, int], about: dict[str, Any]) -> tuple[int, int]:
    """Height and width of what a window gives."""
    sides = []
    for i in range(2):
        room = shape[i] + about["pads"][i] + about["pads"][i + 2]
        room -= about["dilation"][i] * (about["kernel"][i] - 1) + 1
        stride = about["stride"][i]
        side = (-(-room // stride) if about.get("ceil") else room // stride) + 1
        if about.get("ceil") and (side - 1) * stride >= shape[i] + about["pads"][i]:
            side -= 1  # a window may not begin behind the image
        sides.append(side)
    return sides[0], sides[1]
