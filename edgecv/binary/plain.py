"""A lowered graph → a standard one of the same numbers, for where the kernels are not: slow.

    Binarize     (x >= least) ^ flip                      GreaterOrEqual, Xor, Where: ±1 in floats
    BinaryConv   scale · dot + bias (+ add)               Conv of ±1 and 0, Round, Mul, Add (, Add)
    BinaryBits   (dot >= least) ^ flip                    Conv, GreaterOrEqual, Xor, Where

Sums of ±1 are exact in float32. Round changes nothing, and keeps ONNX Runtime from folding the scale
into the weights, which would round otherwise than the kernels do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.binary.reference import unpacked
from edgecv.errors import missing

DOMAIN = "edgecv"
OPERATORS = ("Binarize", "BinaryConv", "BinaryBits")


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

    def run(self) -> None:
        for node in self.graph.node:
            if node.domain != DOMAIN:
                self.nodes.append(node)
            elif node.op_type == "Binarize":
                self._binarize(node)
            else:
                self._conv(node)
        nodes = [type(n).FromString(n.SerializeToString()) for n in self.nodes]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        read = {i for n in nodes for i in n.input}
        for tensor in [t for t in self.graph.initializer if t.name not in read]:
            self.graph.initializer.remove(tensor)
        kept = [o for o in self.model.opset_import if o.domain != DOMAIN]
        del self.model.opset_import[:]
        self.model.opset_import.extend(kept)

    def _binarize(self, node: Any) -> None:
        x, least, flip = node.input
        self._signs(x, self.values[least], self.values[flip], node.output[0])

    def _conv(self, node: Any) -> None:
        names = [*node.input, *[""] * 6][:6]
        numbers = list(next(a.ints for a in node.attribute if a.name == "shape"))
        _, _, channels, _, kh, kw, sh, sw, dh, dw, top, left, bottom, right, groups = numbers
        own = channels // groups
        weight = np.where(unpacked(self.values[names[1]], own), np.float32(1), np.float32(-1))
        if names[2]:
            weight = weight * unpacked(self.values[names[2]], own)
        out = node.output[0]
        taps = self._hold(out, "taps", weight.transpose(0, 3, 1, 2).astype(np.float32))
        dots = self._emit(
            "Conv", [names[0], taps], f"{out}.dots", kernel_shape=[kh, kw], strides=[sh, sw],
            dilations=[dh, dw], pads=[top, left, bottom, right], group=groups,
        )  # fmt: skip
        first, second = self.values[names[3]], self.values[names[4]]
        if node.op_type == "BinaryBits":
            self._signs(dots, first.astype(np.float32), second, out)
            return
        exact = self._emit("Round", [dots], f"{out}.exact")
        scaled = self._emit(
            "Mul", [exact, self._hold(out, "scales", _planes(first))], f"{out}.scaled"
        )
        biases = self._hold(out, "biases", _planes(second))
        if names[5]:
            self._emit("Add", [self._emit("Add", [scaled, biases], f"{out}.own"), names[5]], out)
        else:
            self._emit("Add", [scaled, biases], out)

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

    def _emit(self, op: str, inputs: list[str], out: str, **about: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [out], name=f"{out}.{op}", **about))
        return out


def _planes(values: np.ndarray) -> np.ndarray:
    """(channels,) → (channels, 1, 1), to go along a tensor's channels."""
    return values.reshape(-1, 1, 1)
