"""Values of any rank as operands of kernels that walk them (`nest.py`), and where results lie.

Images (N, C, H, W) are written as (h, w, c), a row or tokens (N, T, C) as ONNX has them, and what
has another rank flat in ONNX's order, as a view that kernels of images read a copy of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from edgecv.backends.c.moves import MOST, Moves, View
from edgecv.backends.c.nest import nest
from edgecv.backends.c.network import Step, Tensor
from edgecv.runtime.layers import from_scope

Shape = tuple[int, ...]


class Operand(NamedTuple):
    """at: places in ONNX's shape; held: the tensor, or None where `values` are constants."""

    at: np.ndarray
    held: str | None = None
    values: np.ndarray | None = None

    def along(self, shape: Shape) -> Operand:
        """Broadcast to a shape."""
        return self._replace(at=np.broadcast_to(self.at, shape))


class Operands(Moves):
    """What the readers of walked kernels share."""

    @staticmethod
    def _given(node: Any) -> dict[str, Any]:
        """A node's attributes."""
        from onnx import helper

        return {a.name: helper.get_attribute_value(a) for a in node.attribute}

    def _shape_of(self, node: Any, name: str) -> Shape:
        """A value's shape in ONNX."""
        value = self._number(name)
        if value is not None:
            return value.shape
        shape = self.views[name].at.shape if name in self.views else self.shapes.get(name)
        if shape is None or 0 in shape:
            raise self._refused(node, f"the shape of {name} is not known before it runs")
        return shape

    def _number(self, name: str) -> np.ndarray | None:
        """A constant, unpacked where it is integers."""
        if name in self.values:
            return self.values[name]
        held = self._integers(name)
        if held is None:
            return None
        ints, scales = held
        if scales.size > 1:
            axis = next((a.i for a in self.makers[name].attribute if a.name == "axis"), 1)
            scales = scales.reshape([-1 if d == axis % ints.ndim else 1 for d in range(ints.ndim)])
        return np.asarray(ints.astype(np.float32) * scales, np.float32)

    def _operand(self, node: Any, name: str, integers: bool = False) -> Operand:
        """A value for a kernel to walk; as floats, unless integers may stay."""
        value = self._number(name)
        if value is not None:
            value = np.asarray(value, np.float32)
            if value.size and (value == value.flat[0]).all():
                return Operand(np.zeros(value.shape, np.int64), None, value.reshape(-1)[:1])
            return Operand(np.arange(value.size).reshape(value.shape), None, value.reshape(-1))
        view = self._view(node, name)
        if (view.at < 0).any() or nest([view.at.reshape(-1)]) is None:
            view = self._in_a_row(node, name, view)
        base = view.base
        return Operand(view.at, base if integers else self._floats(base))

    def _floats(self, tensor: str) -> str:
        """A tensor as floats."""
        self.names.setdefault(tensor, tensor)
        return self._float(tensor)

    def _out(self, name: str, shape: Shape, dtype: str = "float", flat: bool = False) -> Operand:
        """A new tensor for a result of any rank. flat: an image too in ONNX's order."""
        self.shapes[name] = shape
        size = int(np.prod(shape, dtype=np.int64))
        at = np.arange(size, dtype=np.int64).reshape(shape)
        if len(shape) == 4 and not flat:
            n, c, h, w = shape
            self._new(name, (n * h, w, c), dtype, images=n)
            return Operand(np.arange(size).reshape(n, h, w, c).transpose(0, 3, 1, 2), name)
        if len(shape) == 3 and (shape[0] == 1 or not flat):
            self._new(name, shape, dtype, last=True, images=shape[0])
        elif len(shape) == 2:
            self._new(name, (1, shape[0], shape[1]), dtype, last=shape[0] > 1)
        else:
            own = f"{name}/whole"
            self.tensors[own] = Tensor(own, (1, 1, size), dtype)
            self.views[name] = View(own, at, 0.0)
            return Operand(at, own)
        return Operand(at, name)

    def _walked(self, node: Any, kind: str, operands: Sequence[Operand], out: Operand,
                inner: Sequence[Operand] | None = None, **about: Any) -> None:  # fmt: skip
        """One call of a walked kernel.

        operands, out: of one shape, the places that the outer loops visit
        inner:         the same operands over what is summed or normalised
        """
        if out.at.size > MOST:
            raise self._refused(node, f"{node.op_type} of {out.at.size:,} values")
        walk = nest([o.at.reshape(-1) for o in (*operands, out)], by=len(operands))
        whole = out.at.size == self.tensors[str(out.held)].values
        if walk is None and inner is None and whole:  # each in the result's order first
            order = np.argsort(out.at.reshape(-1), kind="stable")
            operands = [self._in_order(node, o, order) for o in operands]
            walk = nest([*(o.at for o in operands), np.arange(order.size)], by=len(operands))
        within = None if inner is None else nest([o.at.reshape(-1) for o in inner], by=0)
        if walk is None or (inner is not None and within is None):
            raise self._refused(node, f"{node.op_type} of values that lie in no order")
        inputs = list(dict.fromkeys(o.held for o in operands if o.held is not None))
        constants = {f"v{k}": o.values for k, o in enumerate(operands) if o.values is not None}
        about |= {
            "walk": walk,
            "operands": tuple(
                f"v{k}" if o.held is None else inputs.index(o.held) for k, o in enumerate(operands)
            ),
        }
        if within is not None:
            about["inner"] = within._replace(starts=(0,) * len(within.steps))
        assert out.held is not None
        layer = from_scope(node.name) or node.name
        self.steps.append(Step(kind, inputs, [out.held], constants, about, layer))

    def _in_order(self, node: Any, operand: Operand, order: np.ndarray) -> Operand:
        """An operand's values in one row."""
        at = operand.at.reshape(-1)[order]
        row = np.arange(at.size)
        if operand.values is not None:
            return Operand(row, None, operand.values[at])
        assert operand.held is not None
        own = f"{operand.held}/row{len(self.steps)}"
        x = self.tensors[operand.held]
        self._gathered(node, x, at, 0.0, own, (1, 1, at.size))
        return Operand(row, own)

    def _is_flat(self, name: str) -> bool:
        """Whether a value lies in ONNX's order though an image of its shape would not."""
        if not self._is_view(name):
            return False
        at = self.views[name].at
        return bool((at.reshape(-1) == np.arange(at.size)).all())

    def _stepwise(self, node: Any, name: str) -> Operand:
        """A value that has one step along each axis."""
        x = self._operand(node, name)
        if x.held is not None and not _stepped(x.at):
            row = self._in_a_row(node, name, self._view(node, name))
            x = Operand(row.at, self._floats(row.base))
        return x


def _stepped(at: np.ndarray) -> bool:
    """Whether each axis has one step."""
    rest = at
    for axis in range(at.ndim):
        first = np.take(rest, [0], axis)
        along = np.arange(at.shape[axis]).reshape([-1 if d == axis else 1 for d in range(at.ndim)])
        step = 0 if at.shape[axis] == 1 else int(np.take(at, 1, axis).flat[0] - at.flat[0])
        if (rest != first + step * along).any():
            return False
        rest = first
    return True


def split(at: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """(what is kept, what the axes hold), in the order of the axes."""
    kept = [d for d in range(at.ndim) if d not in axes]
    count = int(np.prod([at.shape[d] for d in kept], dtype=np.int64))
    return at.transpose(*kept, *sorted(axes)).reshape(count, -1)
