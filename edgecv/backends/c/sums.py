"""Sums, products and gates of values, in float32; sums in integers.

q_y = z_y + round((s_a (q_a − z_a) + s_b (q_b − z_b)) / s_y)
"""

from __future__ import annotations

import math
from typing import Any

from edgecv.backends.c.joins import Joins


class Sums(Joins):
    """Add, Sum, Sub, Mul, Div."""

    def _add(self, node: Any) -> None:
        self._arithmetic(node, "Add")

    def _sum(self, node: Any) -> None:
        self._arithmetic(node, "Add")

    def _sub(self, node: Any) -> None:
        self._arithmetic(node, "Sub")

    def _mul(self, node: Any) -> None:
        self._arithmetic(node, "Mul")

    def _div(self, node: Any) -> None:
        self._arithmetic(node, "Div")

    def _arithmetic(self, node: Any, op: str) -> None:
        constant = next((i for i in node.input if i in self.values or self._integers(i)), None)
        views = any(self._is_view(n) for n in node.input)
        if len(node.input) != 2:
            self._each(node)
        elif constant is not None:
            other = next(i for i in node.input if i != constant)
            first = op in ("Sub", "Div") and node.input[0] == constant
            if first or not self._along_channels(constant, other):
                self._each(node)
            else:
                self._by_channel(node, op, constant)
        elif op == "Mul" and not views and (names := self._gates(*node.input)):
            self._gate(node, names)
        elif op == "Add" and self._adds(node, views):
            self._added(node)
        else:
            self._each(node)

    def _alike(self, a: str, b: str) -> bool:
        """Whether two values have one shape and lie in one order."""
        x, y = self._at(a), self._at(b)
        known = self.shapes.get(a) and self.shapes.get(b)
        same = x.shape == y.shape and x.images == y.images
        same = same and x.order == y.order and not self._crossed(x, y)
        return same and (not known or self.shapes[a] == self.shapes[b])

    def _adds(self, node: Any, views: bool) -> bool:
        a, b = node.input
        if views and not self._dtype(a) == self._dtype(b) == "int8":
            return False
        shapes = {self.shapes.get(n, ()) for n in (a, b)}
        if views and (len(shapes) > 1 or len(shapes.pop()) != 4):
            return False
        return self._alike(a, b)

    def _added(self, node: Any) -> None:
        a, b = (self._at(n) for n in node.input)
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
        self._by_channels(node, constant, x)
        value = self._ordered(x, self._constant(constant, x.shape[2]))
        constants = {
            "Mul": lambda: {"scale": value},
            "Div": lambda: {"scale": 1 / value},
            "Add": lambda: {"bias": value},
            "Sub": lambda: {"bias": -value},
        }[op]()
        self._step(node, "affine_f32", [self._float(other)], x.shape, order=x.order,
                   constants=constants)  # fmt: skip

    def _gates(self, a: str, b: str) -> list[str] | None:
        """(a value, its gate) where one kernel multiplies them: by element or by channel."""
        if self._at(a).one[:2] == (1, 1) and self._at(b).one[:2] != (1, 1):
            a, b = b, a
        if self._alike(a, b):
            return [a, b]
        x, y = self._at(a), self._at(b)
        if x.order or y.order or y.one != (1, 1, x.shape[2]) or x.images != y.images:
            return None
        if x.images > 1 and (x.last or y.last):
            return None
        shape, given = self.shapes.get(a), self.shapes.get(b)
        if not shape or not given:
            return None if self._crossed(x, y) else [a, b]
        return [a, b] if self._by_one_axis(given, x, shape) else None

    def _gate(self, node: Any, names: list[str]) -> None:
        a, b = (self._at(n) for n in names)
        each = int(a.shape == b.shape)
        self._step(node, "gate_f32", [self._float(n) for n in names], a.shape, order=a.order,
                   about={"each": each})  # fmt: skip
