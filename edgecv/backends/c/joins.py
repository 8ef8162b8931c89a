"""Concat: parts that lie as an image's channels are joined, others copied to where they belong."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.c.broadcast import Broadcast
from edgecv.backends.c.nest import nest
from edgecv.backends.c.network import Step
from edgecv.backends.c.operands import Operand
from edgecv.backends.c.tokens import Tokens
from edgecv.runtime.layers import from_scope


class Joins(Tokens, Broadcast):
    """Concat: of an image's channels, and any other."""

    def _concat(self, node: Any) -> None:
        axis = next(a.i for a in node.attribute if a.name == "axis")
        if any(self._is_view(n) or self._number(n) is not None for n in node.input):
            self._stacked(node, axis)
            return
        parts = [self._at(n) for n in node.input]
        last = any(self._made_last(n) for n in node.input) or any(p.last for p in parts)
        rank = len(self.shapes.get(node.input[0]) or (0,) * 4)
        if (
            axis % rank != (rank - 1 if last else 1)
            or any(p.order for p in parts)
            or any(self._crossed(parts[0], p) for p in parts)
        ):
            self._stacked(node, axis)
            return
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
            about = self._rescaled(own, grid)
            name = f"{out}/part{i}"
            self._step(node, "rescale_i8", [part.name], part.shape, "int8", name, about=about)
            inputs.append(name)
        self._step(node, "join", inputs, shape, "int8", out)
        self.grids[out] = grid

    def _stacked(self, node: Any, axis: int) -> None:
        names = list(node.input)
        moving = [n for n in names if self._number(n) is None]
        made = self._integer(node, moving)
        parts = [self._operand(node, n, integers=made is not None) for n in names]
        axis %= parts[0].at.ndim
        sizes = [p.at.shape[axis] for p in parts]
        shape = list(parts[0].at.shape)
        shape[axis] = sum(sizes)
        flat = all(self._is_flat(n) for n in moving)
        if made is None:
            out = self._out(node.output[0], tuple(shape), flat=flat)
        else:
            parts = [self._on_grid(node, p, made[1]) for p in parts]
            out = self._out(made[0], tuple(shape), "int8", flat)
            assert out.held is not None
            self.grids[out.held] = made[1]
        walks = []
        for k, to in enumerate(np.split(out.at, np.cumsum(sizes)[:-1], axis)):
            walk = nest([parts[k].at.reshape(-1), to.reshape(-1)], by=1)
            if walk is None:  # its values in the result's order first
                order = np.argsort(to.reshape(-1), kind="stable")
                parts[k] = self._in_order(node, parts[k], order)
                walk = nest([parts[k].at, to.reshape(-1)[order]], by=1)
            if walk is None:
                raise self._refused(node, "joins values that lie in no order")
            walks.append(walk)
        inputs = list(dict.fromkeys(p.held for p in parts if p.held is not None))
        constants = {f"v{k}": p.values for k, p in enumerate(parts) if p.values is not None}
        operands = tuple(
            f"v{k}" if p.held is None else inputs.index(p.held) for k, p in enumerate(parts)
        )
        layer = from_scope(node.name) or node.name
        about = {"walks": walks, "operands": operands}
        self.steps.append(Step("stack", inputs, [str(out.held)], constants, about, layer))

    def _on_grid(self, node: Any, part: Operand, grid: Any) -> Operand:
        """A part's integers on the grid of the whole."""
        if part.values is not None:
            ints = np.clip(np.rint(part.values / grid.scale) + grid.zero, -128, 127)
            return part._replace(values=ints.astype(np.int8))
        held = str(part.held)
        own = self.grids[held]
        if own == grid:
            return part
        name = f"{held}/grid{len(self.steps)}"
        self._step(node, "rescale_i8", [held], self.tensors[held].shape, "int8", name,
                   about=self._rescaled(own, grid))  # fmt: skip
        self.grids[name] = grid
        return part._replace(held=name)
