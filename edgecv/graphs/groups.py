"""Outputs that hold several quantities: a join of them along their channels, walked back to.

A detector's (1, 3549, 85) is boxes in pixels, one score for an object and 80 for its classes, which
a Concat put side by side; one figure over all says how the largest numbers fare.

From the output back through what moves or scales each number by itself. A join along the axis that
is looked at splits it; one along another axis (the levels of a pyramid) splits it as each of its
parts does, if all do so alike. An axis that a Reshape made of several is none of channels; a new
one is where it is the last (corners that are stacked, and not the steps of a sequence).

Formats say what makes each tensor (`Step`): `onnx/groups.py`, `tflite/groups.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgecv.runtime.spec import TensorSpec, first_axis

MOST = 8  # parts: a join of more is a map of features, as a dense block makes it
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Groups:
    """axis: of the output, batch first. ends: 0, where each group ends, the last being the axis's
    size. bounds: the largest magnitude of each, where the operator that makes it says one."""

    axis: int
    ends: tuple[int, ...]
    bounds: tuple[float | None, ...]


@dataclass(frozen=True)
class Step:
    """What makes a tensor.

    kind:   "join" of its inputs along an axis, "stack" along a new one; "each" number is made of
            the one at its place; "share" likewise of one distribution along an axis; "move" is each
            as it is; "turn" and "shape" give their axes another order and other sizes
    inputs: what it reads that is computed; of other kinds than join and stack one
    order:  of turn: where each axis was
    bound:  the largest magnitude that the operator gives
    """

    kind: Literal["join", "stack", "each", "share", "move", "turn", "shape", "other"]
    inputs: tuple[str, ...] = ()
    axis: int = 0
    order: tuple[int, ...] = ()
    bound: float | None = None


def found(
    outputs: Sequence[str], steps: Mapping[str, Step], shapes: Mapping[str, Shape]
) -> list[Groups | None]:
    """The groups of each output; None where it is one quantity, or one of classes.

    steps: by what they make. shapes: static ones, batch first, as far as they are known
    """
    walk = _Walk(steps, shapes)
    return [walk.groups(name) for name in outputs]


def told(outputs: Sequence[TensorSpec], parted: Sequence[Groups | None]) -> tuple[TensorSpec, ...]:
    """The outputs with their groups. parted: of each, along axes as it is laid out"""
    return tuple(
        spec if held is None else replace(
            spec, groups=(first_axis(spec, held.axis), *held.ends),
            bounds=tuple(b or 0.0 for b in held.bounds) if any(held.bounds) else None,
        )
        for spec, held in zip(outputs, parted, strict=True)
    )  # fmt: skip


class _Walk:
    def __init__(self, steps: Mapping[str, Step], shapes: Mapping[str, Shape]) -> None:
        self.steps, self.shapes = steps, shapes

    def groups(self, name: str) -> Groups | None:
        for axis in reversed(range(1, len(self.shapes.get(name, ())))):
            ends = self.ends(name, axis)
            if 2 <= len(ends) - 1 <= MOST and self.channels(name, axis):
                bounds = tuple(self.bound(name, axis, start) for start in ends[:-1])
                return Groups(axis, ends, bounds)
        return None

    def ends(self, name: str, axis: int) -> tuple[int, ...]:
        """0 and the ends of the parts of a tensor along an axis; (0, size) where it is one."""
        size = self.shapes[name][axis] if name in self.shapes else 0
        step = self.steps.get(name)
        whole = (0, size)
        if step is None or not size:
            return whole
        if step.kind == "stack" and step.axis == axis:
            return tuple(range(size + 1))
        if step.kind in ("join", "stack"):
            parts = [self.ends(n, self._of_part(step, axis)) for n in step.inputs]
            if step.axis != axis:
                return parts[0] if len(set(parts)) == 1 else whole
            if not all(part[-1] for part in parts):
                return whole  # of a size that nobody knows
            ends = [0]
            for part in parts:
                ends += [ends[-1] + end for end in part[1:]]
            return tuple(ends)
        back = self._back(step, name, axis)
        if back is None or (step.kind == "share" and step.axis == axis):
            return whole
        return self.ends(*back)

    def channels(self, name: str, axis: int) -> bool:
        """Whether every part keeps that axis up to what made it, or to where nobody can say."""
        step = self.steps.get(name)
        if step is None or name not in self.shapes:
            return True
        last = axis == len(self.shapes[name]) - 1
        if step.kind == "stack" and step.axis == axis:
            return last
        if step.kind in ("join", "stack"):
            return all(self.channels(n, self._of_part(step, axis)) for n in step.inputs)
        back = self._back(step, name, axis)
        if back is None:
            return step.kind != "shape" or (last and self.shapes[name][axis] == 1)
        return self.channels(*back)

    def bound(self, name: str, axis: int, place: int) -> float | None:
        """The largest magnitude of what stands at a place of the axis, by its operator."""
        step = self.steps.get(name)
        if step is None:
            return None
        if step.bound is not None:
            return step.bound
        if step.kind in ("join", "stack"):
            within = self._of_part(step, axis)
            if step.axis != axis:
                return self._same(step.inputs, within, place)
            if step.kind == "stack":
                return self._same(step.inputs[place : place + 1], 0, 0)
            for part in step.inputs:
                size = self.shapes.get(part, (0,) * (axis + 1))[axis]
                if place < size:
                    return self.bound(part, axis, place)
                place -= size
            return None
        back = self._back(step, name, axis)
        if back is None:  # of a new axis, whatever is behind it
            new = step.kind == "shape" and self.shapes[name][axis] == 1
            return self._same(step.inputs, 0, 0) if new else None
        return self.bound(*back, place) if step.kind in ("move", "turn", "shape") else None

    def _same(self, names: Sequence[str], axis: int, place: int) -> float | None:
        """The bound that all of them have."""
        bounds = {self.bound(name, axis, place) for name in names}
        return bounds.pop() if len(bounds) == 1 else None

    def _of_part(self, step: Step, axis: int) -> int:
        """Where an axis of a join or a stack is in what it joins."""
        return axis - (step.kind == "stack" and axis > step.axis)

    def _back(self, step: Step, name: str, axis: int) -> tuple[str, int] | None:
        """What the step reads, and where the axis is there; None where it ends here."""
        if name not in self.shapes or not step.inputs or step.kind == "other":
            return None
        source = step.inputs[0]
        if step.kind == "turn":
            return source, step.order[axis]
        if step.kind == "shape":
            place = _kept(self.shapes[name], self.shapes.get(source, ()), axis)
            return None if place is None else (source, place)
        return source, axis


def _kept(after: Shape, before: Shape, axis: int) -> int | None:
    """Where an axis was before a change of shape that leaves the order of the numbers; None where
    it was none of its own."""
    ahead = _product(after[:axis])
    for place, size in enumerate(before):
        if place and size == after[axis] and _product(before[:place]) == ahead:
            return place
    return None


def _product(sizes: Shape) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
