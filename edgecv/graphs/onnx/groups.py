"""Outputs that hold several quantities: a Concat of them along their channels, walked back to.

A detector's (1, 3549, 85) is boxes in pixels, one score for an object and 80 for its classes, which
a Concat put side by side; one figure over all says how the largest numbers fare.

From the output back through what moves or scales each number by itself. A Concat along the axis
that is looked at splits it; one along another axis (the levels of a pyramid) splits it as each of
its parts does, if all do so alike. An axis that a Reshape made of several is none of channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgecv.graphs.onnx.bounded import BOUNDS
from edgecv.graphs.onnx.index import Index

MOST = 8  # parts: a Concat of more is a map of features, as a dense block makes it
_ALIKE = (
    "Identity", "Cast", "Dropout", "Relu", "LeakyRelu", "Clip", "Neg", "Exp", "Log", "Sqrt", "Abs",
    "Softplus", "QuantizeLinear", "DequantizeLinear", *BOUNDS,
)  # fmt: skip
_WITH_CONSTANT = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max")
_SHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_NORMED = ("Softmax", "LogSoftmax")  # of one distribution, but for an axis beside it


@dataclass(frozen=True)
class Groups:
    """axis: of the output, batch first. ends: 0, where each group ends, the last being the axis's
    size. bounds: the largest magnitude of each, where the operator that makes it says one."""

    axis: int
    ends: tuple[int, ...]
    bounds: tuple[float | None, ...]


def groups(model: Any) -> dict[str, Groups]:
    """The groups of each output that has several, by its name. model: onnx.ModelProto"""
    if not any(n.op_type == "Concat" for n in model.graph.node):
        return {}
    walk = _Walk(model)
    found = {}
    for output in model.graph.output:
        for axis in reversed(range(1, len(walk.shapes.get(output.name, ())))):
            ends = walk.ends(output.name, axis)
            if 2 <= len(ends) - 1 <= MOST and walk.channels(output.name, axis):
                bounds = tuple(walk.bound(output.name, axis, start) for start in ends[:-1])
                found[output.name] = Groups(axis, ends, bounds)
                break
    return found


class _Walk:
    def __init__(self, model: Any) -> None:
        import onnx

        made = onnx.shape_inference.infer_shapes(model)
        index = Index(made.graph)
        self.makers, self._held = index.makers, index.held
        known = (*made.graph.value_info, *made.graph.output, *made.graph.input)
        self.shapes = {v.name: _static(v) for v in known}
        self.shapes = {n: s for n, s in self.shapes.items() if s}

    def ends(self, name: str, axis: int) -> tuple[int, ...]:
        """0 and the ends of the parts of a tensor along an axis; (0, size) where it is one."""
        size = self.shapes[name][axis] if name in self.shapes else 0
        node = self.makers.get(name)
        whole = (0, size)
        if node is None or not size:
            return whole
        if node.op_type == "Concat":
            parts = [self.ends(n, axis) for n in node.input]
            if self._axis(node, name) != axis:
                return parts[0] if len(set(parts)) == 1 else whole
            if not all(part[-1] for part in parts):
                return whole  # of a size that nobody knows
            found = [0]
            for part in parts:
                found += [found[-1] + end for end in part[1:]]
            return tuple(found)
        back = self._back(node, name, axis)
        if back is None or (node.op_type in _NORMED and self._axis(node, name) == axis):
            return whole
        return self.ends(*back)

    def channels(self, name: str, axis: int) -> bool:
        """Whether every part keeps that axis up to what made it, or to where nobody can say."""
        node = self.makers.get(name)
        if node is None:
            return True
        if node.op_type == "Concat":
            return all(self.channels(n, axis) for n in node.input)
        back = self._back(node, name, axis)
        return node.op_type not in _SHAPES if back is None else self.channels(*back)

    def bound(self, name: str, axis: int, place: int) -> float | None:
        """The largest magnitude of what stands at a place of the axis, by its operator."""
        node = self.makers.get(name)
        if node is None:
            return None
        if node.op_type in BOUNDS:
            return BOUNDS[node.op_type]
        if node.op_type == "Concat":
            for part in node.input if self._axis(node, name) == axis else node.input[:1]:
                size = self.shapes.get(part, (0,) * (axis + 1))[axis]
                if place < size:
                    return self.bound(part, axis, place)
                place -= size
        back = self._back(node, name, axis)
        moved = node.op_type in ("Transpose", "Identity", *_SHAPES)
        return self.bound(*back, place) if back and moved else None

    def _back(self, node: Any, name: str, axis: int) -> tuple[str, int] | None:
        """What the node reads, and where the axis is there; None where it ends here."""
        if name not in self.shapes:
            return None
        if node.op_type in (*_ALIKE, *_NORMED):
            return node.input[0], axis
        if node.op_type == "Transpose":
            given = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            order = given or list(reversed(range(len(self.shapes[name]))))
            return node.input[0], order[axis]
        if node.op_type in _WITH_CONSTANT:
            read = [n for n in node.input if n not in self._held and not self._fixed(n)]
            same = len(read) == 1 and self.shapes.get(read[0]) == self.shapes.get(name)
            return (read[0], axis) if same else None
        if node.op_type in _SHAPES:
            place = _kept(self.shapes[name], self.shapes.get(node.input[0], ()), axis)
            return None if place is None else (node.input[0], place)
        return None

    def _fixed(self, name: str) -> bool:
        node = self.makers.get(name)
        return node is not None and node.op_type == "Constant"

    def _axis(self, node: Any, name: str) -> int:
        axis = next((int(a.i) for a in node.attribute if a.name == "axis"), -1)
        return axis % len(self.shapes[name])


def _kept(after: tuple[int, ...], before: tuple[int, ...], axis: int) -> int | None:
    """Where an axis was before a change of shape that leaves the order of the numbers; None where
    it was none of its own."""
    ahead = _product(after[:axis])
    for place, size in enumerate(before):
        if size == after[axis] and _product(before[:place]) == ahead:
            return place
    return None


def _product(sizes: tuple[int, ...]) -> int:
    found = 1
    for size in sizes:
        found *= size
    return found


def _static(value: Any) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    sizes = tuple(int(d.dim_value) for d in dims)
    return sizes if all(size > 0 for size in sizes) else ()
