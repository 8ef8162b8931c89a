"""A standard ONNX graph with convolutions of ±1 → the same graph with kernels that count bits.

    Where(x >= β, 1, −1) → Conv, Gemm or MatMul of ±s_f, 0 (→ Mul, Add) (→ Add) (→ Add)
      (→ RPReLU or Relu)                                 a Unit
    a Unit whose value only signs read                   BinaryBits: sums are compared, bits go on
    a Unit that a sign reads, and others too             BinaryBoth: floats and bits at once
    any other Unit                                       BinaryConv
    AveragePool of 2x2 (→ Concat of itself), added       Halve

countable.py reads the graph, units.py says what becomes one operator. Sums are integers, so what
comes out are the floats that PyTorch computes, and not a sum of rounded products. Floats between
Units have their channels last, as the kernels write them fastest; where anything else reads or
writes them, they are transposed. What cannot be lowered (a dynamic size, a kernel the library
refuses) stays float, and is told.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from edgecv.binary.countable import Signs
from edgecv.binary.float_fallback import DOMAIN
from edgecv.binary.reference import Shape, packed
from edgecv.binary.thresholds import thresholds
from edgecv.binary.units import Unit, grown, look, others

log = logging.getLogger(__name__)
OPSET = 1
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def lower(model: Any) -> list[str]:
    """Rewrite an onnx.ModelProto in place; the names of the convolutions that are counted now."""
    return _Lowering(model).run()


class _Lowering:
    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, model.graph
        self.signs = Signs(model)
        self.units: dict[str, Unit] = {}  # by their value
        self.made: list[Any] = []
        self.infos: list[Any] = []  # sizes of what operators of edgecv give: nothing infers them
        self.bits: dict[tuple[str, bytes], str] = {}
        self.lasts: dict[str, str] = {}
        self.added: set[str] = set()  # what units add with channels last

    def run(self) -> list[str]:
        signs = self.signs
        convs = [(n, s, signs.layer(n, s[0])) for n in self.graph.node if (s := signs.signs(n))]
        for node, (x, least), layer in convs:
            name = node.name or node.output[0]
            if isinstance(layer, str):
                log.warning("%s %s: stays float", name, layer)
                continue
            signs.taken.add(node.output[0])
            unit = grown(signs, Unit(name, layer, x, least, node.output[0]))
            self.units[unit.out] = unit
        if not self.units:
            return []
        self.added = look(signs, self.units)
        for unit in self.units.values():
            self._emit_unit(unit)
        self._rebuild()
        return [u.name for u in self.units.values()]

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
        flat = len(self.signs.sizes.get(out, ())) == 2
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
        elif unit.last and others(self.signs, out):
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
        if len(self.signs.sizes[x]) == 2:
            value = f"{name}.pixel"
            self._reshape(x, value, (1, -1, 1, 1))
        high, wide = [*self.signs.sizes[x], 1, 1][2:4]
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
        past = self.signs.halved(value)
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

    def _hold(self, of: str, what: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"{of}.{what}"
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _sized(self, name: str, size: list[int], bits: bool = False) -> str:
        """Note the size of an output; its name."""
        from onnx import TensorProto, helper

        if name not in self.signs.ends:
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
        nodes = [n for n in self.graph.node if n.output[0] not in self.signs.taken] + self.made
        read = {i for n in nodes for i in n.input} | self.signs.ends
        while dead := [n for n in nodes if not any(o in read for o in n.output)]:
            gone = {n.output[0] for n in dead}
            nodes = [n for n in nodes if n.output[0] not in gone]
            read = {i for n in nodes for i in n.input} | self.signs.ends
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
