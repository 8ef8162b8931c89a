"""A lowered graph → a standard one of the same numbers, for where the kernels are not: slow.

    Binarize     (x >= least) ^ flip                      GreaterOrEqual, Xor, Where: ±1 in floats
    BinaryBits   (dot >= least) ^ flip                    Conv, GreaterOrEqual, Xor, Where
    BinaryConv   scale · dot + bias (+ add, RPReLU)       Conv of ±1 and 0, Round, Mul, Add, ...
    BinaryBoth   that, and (value >= border) ^ flip
    Halve        means of 2x2 pixels, channels repeated   Pad, Slice, Add, Mul, Concat

Sums of ±1 are exact in float32. Round changes nothing, and keeps ONNX Runtime from folding the
scale into the weights, which would round otherwise than the kernels do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.binary.reference import unpacked
from edgecv.errors import missing

DOMAIN = "edgecv"
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def plain(content: bytes) -> bytes:
    """The .onnx file without operators of edgecv. Raises MissingExtraError: no onnx package."""
    try:
        import onnx
    except ImportError:
        raise missing("onnx", "compress", "a network of one bit without its kernels") from None
    model = onnx.load_model_from_string(content)
    _Plain(model).run()
    return bytes(model.SerializeToString(deterministic=True))


class _Plain:
    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self.model, self.graph = model, model.graph
        self.values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.nodes: list[Any] = []
        self.said = {f.name for f in model.functions}  # the file itself says what they mean

    def run(self) -> None:
        for node in self.graph.node:
            if node.domain != DOMAIN or node.op_type in self.said:
                self.nodes.append(node)
            else:
                make = {"Binarize": self._binarize, "Halve": self._halve}
                make.get(node.op_type, self._conv)(node)
        nodes = [type(n).FromString(n.SerializeToString()) for n in self.nodes]
        del self.graph.node[:]
        del self.graph.value_info[:]
        self.graph.node.extend(nodes)
        read = {i for n in nodes for i in n.input}
        for tensor in [t for t in self.graph.initializer if t.name not in read]:
            self.graph.initializer.remove(tensor)
        kept = [o for o in self.model.opset_import if o.domain != DOMAIN or self.said]
        del self.model.opset_import[:]
        self.model.opset_import.extend(kept)

    def _binarize(self, node: Any) -> None:
        x, least, flip = node.input
        if _ints(node, "last") == [1]:
            x = self._turned(x, TO_FIRST, node.output[0])
        self._signs(x, self.values[least], self.values[flip], node.output[0])

    def _halve(self, node: Any) -> None:
        """Sums in the kernel's order: an engine's own pooling adds in another one."""
        (x,), (out,) = node.input, node.output
        height, width, channels, filters = _ints(node, "size")
        odd = np.array([0, 0, 0, 0, 0, height % 2, width % 2, 0])
        whole = self._emit("Pad", [x, self._hold(out, "odd", odd)], f"{out}.whole")
        held = {n: self._hold(out, n, np.array(v)) for n, v in
                (("end", [height + 1, width + 1]), ("axes", [1, 2]), ("two", [2, 2]))}  # fmt: skip
        total = ""
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            start = self._hold(out, f"{i}{j}", np.array([i, j]))
            part = self._emit(
                "Slice", [whole, start, held["end"], held["axes"], held["two"]], f"{out}.at{i}{j}"
            )
            total = self._emit("Add", [total, part], f"{out}.sum{i}{j}") if total else part
        share = np.full((-(-height // 2), -(-width // 2), 1), 0.25, np.float32)
        share[height // 2 :] *= 2  # an odd border has half as many pixels
        share[:, width // 2 :] *= 2
        means = self._emit("Mul", [total, self._hold(out, "share", share)], f"{out}.means")
        self._emit("Concat", [means] * (filters // channels), out, axis=3)

    def _conv(self, node: Any) -> None:
        names = [*node.input, *[""] * 12][:12]
        _, _, channels, _, kh, kw, sh, sw, dh, dw, *pads, groups = _ints(node, "shape")
        own = channels // groups
        weight = np.where(unpacked(self.values[names[1]], own), np.float32(1), np.float32(-1))
        if names[2]:
            weight = weight * unpacked(self.values[names[2]], own)
        out = node.output[0]
        taps = self._hold(out, "taps", weight.transpose(0, 3, 1, 2).astype(np.float32))
        dots = self._emit(
            "Conv", [names[0], taps], f"{out}.dots", node.name, kernel_shape=[kh, kw],
            strides=[sh, sw], dilations=[dh, dw], pads=pads, group=groups,
        )  # fmt: skip
        if node.op_type == "BinaryBits":
            least, flip = (self.values[n] for n in names[3:5])
            self._signs(dots, least.astype(np.float32), flip, out)
            return
        last = _ints(node, "last") == [1]
        value = self._emit("Round", [dots], f"{out}.exact")
        value = self._by_filter("Mul", value, names[3], f"{out}.scaled")
        value = self._by_filter("Add", value, names[4], f"{out}.own")
        for i, name in enumerate(filter(None, names[5:7])):
            added = self._turned(name, TO_FIRST, f"{out}.{i}") if last else name
            value = self._emit("Add", [value, added], f"{out}.sum{i}")
        if names[7]:
            value = self._by_filter("Sub", value, names[7], f"{out}.moved")
            value = self._by_filter("PRelu", value, names[8], f"{out}.bent")
            value = self._by_filter("Add", value, names[9], f"{out}.act")
        if len(node.output) > 1:
            self._signs(value, self.values[names[10]], self.values[names[11]], node.output[1])
        if last:
            self._emit("Transpose", [value], out, perm=TO_LAST)
        else:
            self._emit("Identity", [value], out)

    def _by_filter(self, op: str, value: str, constant: str, out: str) -> str:
        return self._emit(op, [value, self._hold(out, "by", _planes(self.values[constant]))], out)

    def _turned(self, x: str, perm: tuple[int, ...], of: str) -> str:
        return self._emit("Transpose", [x], f"{of}.first", perm=perm)

    def _signs(self, x: str, least: np.ndarray, flip: np.ndarray, out: str) -> None:
        above = self._emit(
            "GreaterOrEqual", [x, self._hold(out, "border", _planes(least))], f"{out}.above"
        )
        if flip.any():
            turned = self._hold(out, "flips", _planes(flip.astype(bool)))
            above = self._emit("Xor", [above, turned], f"{out}.turned")
        signs = [self._hold(out, n, np.float32(v)) for n, v in (("one", 1), ("minus", -1))]
        self._emit("Where", [above, *signs], out)

    def _hold(self, of: str, what: str, value: Any) -> str:
        from onnx import numpy_helper

        name = f"{of}.plain.{what}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _emit(self, op: str, inputs: list[str], out: str, name: str = "", **about: Any) -> str:
        from onnx import helper

        name = name or f"{out}.{op}"
        self.nodes.append(helper.make_node(op, inputs, [out], name=name, **about))
        return out


def _ints(node: Any, name: str) -> list[int]:
    """An attribute of whole numbers; [] where there is none."""
    return next((list(a.ints) for a in node.attribute if a.name == name), [])


def _planes(values: np.ndarray) -> np.ndarray:
    """(channels,) → (channels, 1, 1), to go along a tensor's channels."""
    return values.reshape(-1, 1, 1)
