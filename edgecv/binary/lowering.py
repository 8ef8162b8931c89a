"""A standard ONNX graph with convolutions of ±1 → the same graph with kernels that count bits.

    Where(x >= β, 1, −1) → Conv, Gemm or MatMul of ±s_f, 0 (→ Mul, Add) (→ Add) (→ Add)
      (→ RPReLU or Relu)                                 a Unit
    a Unit whose value only signs read                   BinaryBits: sums are compared, bits go on
    a Unit that a sign reads, and others too             BinaryBoth: floats and bits at once
    any other Unit                                       BinaryConv
    AveragePool of 2x2 (→ Concat of itself), added       Halve

A filter's weights have one size s_f, which becomes its scale; the sums are integers, so what comes
out are the floats that PyTorch computes, and not a sum of rounded products. Floats between Units
have their channels last, as the kernels write them fastest; where anything else reads or writes
them, they are transposed. A dense layer is a convolution of one pixel. What cannot be lowered (a
dynamic size, a kernel the library refuses) stays float, and is told.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgecv.binary.plain import DOMAIN
from edgecv.binary.reference import Shape, packed
from edgecv.binary.thresholds import thresholds
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import FORWARD

log = logging.getLogger(__name__)
OPSET = 1
MOST = 65535  # products of one output, as the kernels count them
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class Layer:
    """A convolution that can be counted: its ±1 and 0, and what becomes of the sums."""

    shape: Shape
    ones: np.ndarray  # bool (filters, kh, kw, channels / groups)
    mask: np.ndarray | None  # where a weight is not zero; None: nowhere it is
    scale: np.ndarray
    bias: np.ndarray

    @property
    def most(self) -> np.ndarray:
        """|dot| is no larger, int64 (filters,)."""
        held = np.ones_like(self.ones) if self.mask is None else self.mask
        return held.reshape(len(held), -1).sum(1).astype(np.int64)


@dataclass
class Unit:
    """One operator to be: what it reads, what it takes over, and what its value is called.

    adds: up to two values; act: before, slope, after by filter
    """

    name: str
    layer: Layer
    x: str
    least: np.ndarray
    out: str
    adds: list[str] = field(default_factory=list)
    act: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    relu: bool = False
    signs: list[np.ndarray] = field(default_factory=list)  # borders that its value is compared with
    real: bool = False  # whether its value is read as it is
    last: bool = False  # whether its value has channels last


def lower(model: Any) -> list[str]:
    """Rewrite an onnx.ModelProto in place; the names of the convolutions that are counted now."""
    return _Lowering(model).run()


def countable(model: Any) -> set[str]:
    """The outputs of the convolutions that `lower` would take; the model stays as it is."""
    found = _Lowering(model)
    return {
        node.output[0]
        for node in model.graph.node
        if (signs := found.signs(node)) and not isinstance(found.layer(node, signs[0]), str)
    }


class _Lowering:
    def __init__(self, model: Any) -> None:
        import onnx
        from onnx import numpy_helper

        self.model, self.graph = model, model.graph
        self.values = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False).graph
        self.sizes = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in (*inferred.value_info, *inferred.input, *inferred.output)
        }
        index = Index(self.graph)
        self.makers, self.readers, self.ends = index.makers, index.readers, index.ends
        self.taken: set[str] = set()  # first outputs of nodes that units take over
        self.units: dict[str, Unit] = {}  # by their value
        self.made: list[Any] = []
        self.infos: list[Any] = []  # sizes of what operators of edgecv give: nothing infers them
        self.bits: dict[tuple[str, bytes], str] = {}
        self.lasts: dict[str, str] = {}
        self.added: set[str] = set()  # what units add with channels last

    def run(self) -> list[str]:
        convs = [(n, s, self.layer(n, s[0])) for n in self.graph.node if (s := self.signs(n))]
        for node, (x, least), layer in convs:
            if isinstance(layer, str):
                log.warning("%s %s: stays float", node.name or node.output[0], layer)
                continue
            self.taken.add(node.output[0])
            unit = self._grown(Unit(node.name or node.output[0], layer, x, least, node.output[0]))
            self.units[unit.out] = unit
        if not self.units:
            return []
        self._look()
        for unit in self.units.values():
            self._emit_unit(unit)
        self._rebuild()
        return [u.name for u in self.units.values()]

    def signs(self, node: Any) -> tuple[str, np.ndarray] | None:
        """(x, β) where a convolution reads Where(x >= β, 1, −1)."""
        if node.op_type not in FORWARD or node.input[1] not in self.values:
            return None
        where = self.makers.get(node.input[0])
        if where is None or where.op_type != "Where":
            return None
        condition = self.makers.get(where.input[0])
        one, minus = (self.values.get(name) for name in where.input[1:])
        if condition is None or condition.op_type != "GreaterOrEqual" or one is None:
            return None
        x, least = condition.input
        if minus is None or least not in self.values or x in self.values:
            return None
        if not (np.all(one == 1) and np.all(minus == -1) and one.size == minus.size == 1):
            return None
        size = self.sizes.get(x, [])
        if len(size) != (4 if node.op_type == "Conv" else 2):
            return None
        border = self._by_channel(least, size[1], len(size))
        return None if border is None else (x, border)

    def layer(self, node: Any, x: str) -> Layer | str:
        """The layer, or why it cannot be counted."""
        from onnx import helper

        weight = self.values[node.input[1]]
        held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        size = [*self.sizes[x], 1, 1][:4]
        if node.op_type != "Conv":
            if weight.ndim != 2 or held.get("transA") or {held.get("alpha", 1.0)} != {1.0}:
                return "is a product of another kind"
            weight = (weight if held.get("transB") else weight.T)[:, :, None, None]
        if weight.ndim != 4 or size[0] != 1 or min(size) < 1:
            return f"has size {size} and weights {weight.shape}"
        if held.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
            return "pads by itself"
        scale = np.abs(weight).reshape(len(weight), -1).max(1)
        sizes = np.abs(weight)
        unit = scale.reshape(-1, 1, 1, 1)
        if not np.all((sizes == unit) | (sizes == 0)):
            return "has weights of several sizes in one filter"
        if -(-weight.shape[1] // 8) * 8 * weight[0, 0].size > MOST:
            return f"adds {weight[0].size} products"
        top, left, bottom, right = held.get("pads", [0, 0, 0, 0])
        shape = Shape(
            size[2], size[3], size[1], len(weight), tuple(weight.shape[2:]),
            tuple(held.get("strides", (1, 1))), tuple(held.get("dilations", (1, 1))),
            (top, left, bottom, right), held.get("group", 1),
        )  # fmt: skip
        taps = weight.transpose(0, 2, 3, 1)
        bias = self.values.get(node.input[2]) if len(node.input) > 2 else None
        if len(node.input) > 2 and (bias is None or held.get("beta", 1.0) != 1.0):
            return "has a bias that is no constant"
        return Layer(
            shape, taps > 0, None if sizes.all() else taps != 0, scale.astype(np.float32),
            np.zeros(len(weight), np.float32) if bias is None else
            np.broadcast_to(bias.astype(np.float32).reshape(-1), len(weight)),
        )  # fmt: skip

    def _grown(self, unit: Unit) -> Unit:
        """With the sums and the activation behind it, as far as they are its own."""
        self._scaled(unit)
        while (
            len(self.sizes.get(unit.out, ())) == 4
            and (node := self._only_reader(unit.out)) is not None
        ):
            other = next((i for i in node.input if i != unit.out), "")
            if node.op_type != "Add" or len(unit.adds) == 2 or not other:
                break
            if other in self.values or self.sizes.get(other) != self.sizes.get(unit.out):
                break
            unit.adds.append(other)
            self._take(unit, node)
        return self._activated(unit)

    def _scaled(self, unit: Unit) -> None:
        """A factor and a constant by filter, where its own are 1 and 0: no sum is rounded anew."""
        layer, filters = unit.layer, unit.layer.shape.filters
        for op, free in (("Mul", (layer.scale == 1).all() and not layer.bias.any()), ("Add", True)):
            node = self._only_reader(unit.out)
            if node is None or node.op_type != op or not free or unit.layer.bias.any():
                continue
            constant = next((i for i in node.input if i in self.values), "")
            found = self._by_channel(constant, filters, len(self.sizes.get(unit.out, ())))
            if found is None or (op == "Mul" and not (found != 0).all()):
                continue
            unit.layer = (
                replace(layer, scale=found) if op == "Mul" else replace(unit.layer, bias=found)
            )
            self._take(unit, node)

    def _activated(self, unit: Unit) -> Unit:
        filters, rank = unit.layer.shape.filters, len(self.sizes.get(unit.out, ()))
        node = self._only_reader(unit.out)
        if node is not None and node.op_type == "Relu":
            unit.relu = True
            self._take(unit, node)
            return unit
        nodes, before, after = [], np.zeros(filters, np.float32), np.zeros(filters, np.float32)
        out = unit.out
        if node is not None and node.op_type == "Sub" and node.input[0] == out:
            found = self._by_channel(node.input[1], filters, rank)
            if found is None:
                return unit
            before, out = found, node.output[0]
            nodes.append(node)
            node = self._only_reader(out)
        if node is None or node.op_type != "PRelu" or node.input[0] != out:
            return unit
        slope = self._by_channel(node.input[1], filters, rank)
        if slope is None:
            return unit
        nodes.append(node)
        node = self._only_reader(node.output[0])
        if node is not None and node.op_type == "Add":
            constant = next((i for i in node.input if i in self.values), "")
            found = self._by_channel(constant, filters, rank)
            if found is not None:
                after = found
                nodes.append(node)
        unit.act = (before, slope, after)
        for own in nodes:
            self._take(unit, own)
        return unit

    def _take(self, unit: Unit, node: Any) -> None:
        self.taken.add(node.output[0])
        unit.out = node.output[0]

    def _look(self) -> None:
        """Who reads what: signs, sums of other units, and the rest of the graph."""
        for unit in self.units.values():
            if (source := self.units.get(unit.x)) is not None:
                known = {v.tobytes() for v in source.signs}
                if unit.least.tobytes() not in known:
                    source.signs.append(unit.least)
        for unit in self.units.values():
            if self._others(unit.out):
                unit.real = True
            for name in unit.adds:
                past = self._halved(name)
                source = self.units.get(past[0] if past else name)
                if source is not None:
                    source.real = source.last = True
                if source is not None or past:  # an engine's own pooling adds in another order
                    unit.last = True
        for unit in self.units.values():
            if unit.last:
                self.added |= {(self._halved(name) or (name,))[0] for name in unit.adds}

    def _others(self, value: str) -> bool:
        """Whether anything reads a value that is not a sign of a unit, and no sum that one took."""
        return value in self.ends or any(
            n.output[0] not in self.taken and not self._is_sign(n) and not self._is_past(n)
            for n in self.readers[value]
        )

    def _is_sign(self, node: Any) -> bool:
        """A comparison that only units read."""
        if node.op_type != "GreaterOrEqual":
            return False
        wheres = self.readers[node.output[0]]
        return all(
            w.op_type == "Where"
            and all(n.output[0] in self.taken for n in self.readers[w.output[0]])
            for w in wheres
        )

    def _is_past(self, node: Any) -> bool:
        """A pooling that only sums of units read."""
        out = node.output[0]
        repeated = [n.output[0] for n in self.readers[out] if self._halved(n.output[0])]
        return self._halved(out) is not None and all(
            n.output[0] in self.taken or n.output[0] in repeated
            for value in (out, *repeated) for n in self.readers[value]
        )  # fmt: skip

    def _halved(self, value: str) -> tuple[str, int, int, int, int] | None:
        """(x, its height, width and channels, the value's channels) where a value is x's 2x2 means
        with the channels over and over."""
        from onnx import helper

        node = self.makers.get(value)
        if node is not None and node.op_type == "Concat" and len({*node.input}) == 1:
            axis = next(a.i for a in node.attribute if a.name == "axis")
            node = self.makers.get(node.input[0]) if axis in (1, -3) else None
        if node is None or node.op_type != "AveragePool":
            return None
        held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        size, x = self.sizes.get(value), node.input[0]
        inner = self.sizes.get(x)
        if size is None or inner is None or held.get("strides") != [2, 2]:
            return None
        # of odd sides the last window holds what there is: the canonical form says it by end pads
        sides = [0, 0, inner[2] % 2, inner[3] % 2]
        if held["kernel_shape"] != [2, 2] or held.get("pads", [0] * 4) != sides:
            return None
        whole = not any(sides) or not held.get("count_include_pad", 0)
        return (x, inner[2], inner[3], inner[1], size[1]) if whole else None

    def _emit_unit(self, unit: Unit) -> None:
        layer, out = unit.layer, unit.out
        mask = "" if layer.mask is None else self._hold(out, "mask", packed(layer.mask))
        weights = self._hold(out, "weights", packed(layer.ones))
        read = [self._binarized(unit.x, unit.least), weights, mask]
        about = {"shape": numbers(layer.shape)}
        filters = layer.shape.filters
        packed_size = [1, *layer.shape.out, -(-filters // 64)]
        if len(unit.signs) == 1 and not (unit.real or unit.adds or unit.act):
            least = unit.signs[0]
            first, flip = thresholds(layer.scale, layer.bias, least, layer.most, unit.relu)
            read += [self._hold(out, "border", first),
                     self._hold(out, "turned", flip.astype(np.uint8))]  # fmt: skip
            name = self._sized(self._bits_of(out, least), packed_size, True)
            self._emit("BinaryBits", unit.name, read, [name], **about)
            return
        act = unit.act
        if unit.relu:  # 0 v is ±0, and no comparison tells them apart
            act = (np.zeros_like(layer.bias),) * 3
        read += [self._hold(out, "scale", layer.scale), self._hold(out, "bias", layer.bias)]
        added = [self._add(name, unit.last) for name in unit.adds]
        read += [*added, *[""] * (2 - len(added))]
        names = ("before", "slope", "after")
        read += (
            [self._hold(out, n, v) for n, v in zip(names, act, strict=True)] if act else [""] * 3
        )
        flat = len(self.sizes.get(out, ())) == 2
        value = self._last_name(out) if unit.last or flat else out
        if unit.last:
            self.lasts[out] = value
        about |= {"last": [int(unit.last)]}
        high, wide = layer.shape.out
        self._sized(value, [1, high, wide, filters] if unit.last else [1, filters, high, wide])
        if not unit.signs:
            while not read[-1]:
                read.pop()
            self._emit("BinaryConv", unit.name, read, [value], **about)
        else:
            least = unit.signs[0]
            read += [self._hold(out, "border", least),
                     self._hold(out, "turned", np.zeros(len(least), np.uint8))]  # fmt: skip
            bits = self._sized(self._bits_of(out, least), packed_size, True)
            self._emit("BinaryBoth", unit.name, read, [value, bits], **about)
        if flat:
            self._reshape(value, out, (1, -1))
        elif unit.last and self._others(out):
            self._transpose(value, out, TO_FIRST)

    def _binarized(self, x: str, least: np.ndarray) -> str:
        """The bits of x, made once for all that read them."""
        key = x, least.tobytes()
        if key in self.bits:
            return self.bits[key]
        name, source = self._bits_of(x, least), self.units.get(x)
        if source is not None and source.signs[0].tobytes() == least.tobytes():
            return name  # the unit gives them
        held = [self._hold(name, "least", least),
                self._hold(name, "flip", np.zeros(len(least), np.uint8))]  # fmt: skip
        last = x in self.added if source is None else source.last
        value = self._last(x) if last else x
        if len(self.sizes[x]) == 2:
            value = f"{name}.pixel"
            self._reshape(x, value, (1, -1, 1, 1))
        high, wide = [*self.sizes[x], 1, 1][2:4]
        self._sized(name, [1, high, wide, -(-len(least) // 64)], True)
        self._emit("Binarize", f"{name}.Binarize", [value, *held], [name], last=[int(last)])
        return name

    def _bits_of(self, x: str, least: np.ndarray) -> str:
        name: str = self.bits.setdefault((x, least.tobytes()), f"{x}.bits{len(self.bits)}")
        return name

    def _add(self, value: str, last: bool) -> str:
        """What a unit adds, laid out as its own value."""
        if not last:
            return value
        past = self._halved(value)
        if past is None:
            return self._last(value)
        name = self._last_name(value)
        if value not in self.lasts:
            self.lasts[value] = name
            size = [1, -(-past[1] // 2), -(-past[2] // 2), past[4]]
            self._sized(name, size)
            self._emit("Halve", f"{name}.Halve", [self._last(past[0])], [name], size=[*past[1:]])
        return name

    def _last(self, value: str) -> str:
        """A value with channels last; transposed where it is not so already."""
        unit = self.units.get(value)
        if value not in self.lasts and (unit is None or not unit.last):
            self._transpose(value, self._last_name(value), TO_LAST)
        self.lasts[value] = self._last_name(value)
        return self.lasts[value]

    @staticmethod
    def _last_name(value: str) -> str:
        return f"{value}.last"

    def _transpose(self, x: str, out: str, perm: tuple[int, ...]) -> None:
        from onnx import helper

        name = f"{out}.Transpose"
        self.made.append(helper.make_node("Transpose", [x], [out], name=name, perm=perm))

    def _reshape(self, x: str, out: str, shape: tuple[int, ...]) -> None:
        from onnx import helper

        wanted = self._hold(out, "shape", np.array(shape, np.int64))
        self.made.append(helper.make_node("Reshape", [x, wanted], [out], name=f"{out}.Reshape"))

    def _by_channel(self, name: str, channels: int, rank: int) -> np.ndarray | None:
        """A constant of one value for all channels or for each, float32 (channels,)."""
        value = self.values.get(name)
        if value is None or value.dtype != np.float32 or value.size not in (1, channels):
            return None
        behind = [1] * (rank - 2)
        if value.size > 1 and list(value.shape[-rank + 1 :]) != [channels, *behind]:
            return None
        return np.ascontiguousarray(np.broadcast_to(value.reshape(-1), channels))

    def _only_reader(self, value: str) -> Any:
        """The one node that reads a value and is not taken, or None."""
        found = self.readers[value]
        if value in self.ends or len(found) != 1 or found[0].output[0] in self.taken:
            return None
        return found[0]

    def _hold(self, of: str, what: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"{of}.{what}"
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _sized(self, name: str, size: list[int], bits: bool = False) -> str:
        """Note the size of an output; its name."""
        from onnx import TensorProto, helper

        if name not in self.ends:
            kind = TensorProto.UINT64 if bits else TensorProto.FLOAT
            self.infos.append(helper.make_tensor_value_info(name, kind, size))
        return name

    def _emit(
        self, op: str, name: str, inputs: list[str], outputs: list[str], **about: Any
    ) -> None:
        from onnx import helper

        made = helper.make_node(op, inputs, outputs, name=name, domain=DOMAIN, **about)
        self.made.append(made)

    def _rebuild(self) -> None:
        """The nodes that are left and those that were made, in an order that runs; nothing else."""
        nodes = [n for n in self.graph.node if n.output[0] not in self.taken] + self.made
        read = {i for n in nodes for i in n.input} | self.ends
        while dead := [n for n in nodes if not any(o in read for o in n.output)]:
            gone = {n.output[0] for n in dead}
            nodes = [n for n in nodes if n.output[0] not in gone]
            read = {i for n in nodes for i in n.input} | self.ends
        held = [_copy(t) for t in self.graph.initializer if t.name in read]
        ready = {i.name for i in self.graph.input} | {t.name for t in held} | {""}
        left, ordered = [_copy(n) for n in nodes], []
        while left:
            runs = [n for n in left if all(i in ready for i in n.input)]
            if not runs:
                raise ValueError("a circle in the graph")
            ordered += runs
            ready |= {o for n in runs for o in n.output}
            left = [n for n in left if n.output[0] not in ready]
        del self.graph.node[:]
        del self.graph.initializer[:]
        del self.graph.value_info[:]
        self.graph.value_info.extend(self.infos)
        self.graph.node.extend(ordered)
        self.graph.initializer.extend(held)
        self.model.opset_import.add(domain=DOMAIN, version=OPSET)


def numbers(s: Shape) -> list[int]:
    """A shape as the operators' attribute has it."""
    return [s.height, s.width, s.channels, s.filters, *s.kernel, *s.stride, *s.dilation, *s.pads,
            s.groups]  # fmt: skip


def _copy(message: Any) -> Any:
    made = type(message)()
    made.CopyFrom(message)
    return made
