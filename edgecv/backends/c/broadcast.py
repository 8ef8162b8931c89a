"""Two values of any shapes that broadcast: sums, products, comparisons, choices.

y[i] = f(a[i], b[i]),  a and b as ONNX's rules for broadcasting extend them
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgecv.backends.c.network import Tensor
from edgecv.backends.c.operands import Operand, Operands

FUNCTIONS = {  # ONNX's operator: the kernel of strided.c
    "Add": "each_add", "Sub": "each_sub", "Mul": "each_mul", "Div": "each_div", "Max": "each_max",
    "Min": "each_min", "Pow": "each_pow", "Greater": "each_greater", "Less": "each_less",
    "GreaterOrEqual": "each_at_least", "LessOrEqual": "each_at_most", "Equal": "each_equal",
    "PRelu": "each_prelu", "And": "each_min", "Or": "each_max", "Sum": "each_add",
    "Mean": "each_add",
}  # fmt: skip


class Broadcast(Operands):
    """Operators of two values and more, where no kernel of images reads them."""

    def _each(self, node: Any) -> None:
        """One call for two values, one more for each that follows."""
        kind, (first, *others) = FUNCTIONS[node.op_type], node.input
        flat = all(self._is_flat(n) or self._number(n) is not None for n in node.input)
        shapes = [self._shape_of(node, n) for n in node.input]
        result = self._operand(node, first)
        for k, name in enumerate(others):
            shape = np.broadcast_shapes(*shapes[: k + 2])
            last = k + 1 == len(others) and node.op_type != "Mean"
            out = self._out(node.output[0] if last else f"{node.output[0]}/{k}", shape, flat=flat)
            a, b = result.along(shape), self._operand(node, name).along(shape)
            self._walked(node, kind, [a, b], out)
            result = out
        if node.op_type == "Mean":
            out = self._out(node.output[0], result.at.shape, flat=flat)
            share = np.array([1 / len(shapes)], np.float32)
            self._walked(node, "each_mul", [result, _alone(share, out)], out)

    def _along_channels(self, constant: str, other: str) -> bool:
        """Whether a constant is one number, or one for each channel of a value."""
        value = self._number(constant)
        if value is None or self._is_view(other):
            return False
        x, shape = self._at(other), self.shapes.get(other)
        if not shape or 0 in shape:
            return True
        return self._by_one_axis(value.shape, x, shape)

    @staticmethod
    def _by_one_axis(given: tuple[int, ...], x: Tensor, shape: tuple[int, ...]) -> bool:
        """Whether what has the shape `given` changes x, which ONNX knows by `shape`, by channel."""
        if len(given) > len(shape):
            return False
        if math.prod(given) == 1:
            return True
        axis = len(shape) - 1 if x.last else min(1, len(shape) - 1)
        whole = (1,) * (len(shape) - len(given)) + given
        return whole[axis] == x.shape[2] == math.prod(given) and shape[axis] == x.shape[2]

    def _pow(self, node: Any) -> None:
        self._each(node)

    _greater = _less = _greaterorequal = _lessorequal = _equal = _and = _or = _mean = _pow

    def _where(self, node: Any) -> None:
        shape = np.broadcast_shapes(*(self._shape_of(node, n) for n in node.input))
        flat = all(self._is_flat(n) or self._number(n) is not None for n in node.input)
        operands = [self._operand(node, n).along(shape) for n in node.input]
        self._walked(node, "each_where", operands, self._out(node.output[0], shape, flat=flat))

    def _not(self, node: Any) -> None:
        x = self._operand(node, node.input[0])
        out = self._out(node.output[0], x.at.shape, flat=self._is_flat(node.input[0]))
        one = np.array([1], np.float32)
        self._walked(node, "each_sub", [_alone(one, out), x], out)

    def _cast(self, node: Any) -> None:
        """Truths are floats here already."""
        from onnx import TensorProto

        to = next(a.i for a in node.attribute if a.name == "to")
        maker = self.makers.get(node.input[0])
        truth = maker is not None and maker.op_type in TRUTHS
        if to != TensorProto.FLOAT and not (truth and to == TensorProto.BOOL):
            raise self._refused(node, f"Cast to {TensorProto.DataType.Name(to)}")
        self._alias(node)


TRUTHS = ("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal", "And", "Or", "Not", "Cast")


def _alone(value: np.ndarray, out: Operand) -> Operand:
    return Operand(np.zeros(out.at.shape, np.int64), None, value)
