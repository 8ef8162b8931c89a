"""Concat along any axis: every part is copied to where it belongs, wherever it lies."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.c.broadcast import Broadcast
from edgecv.backends.c.nest import nest
from edgecv.backends.c.network import Step
from edgecv.backends.c.operands import Operand
from edgecv.runtime.layers import from_scope


class Joins(Broadcast):
    """Concat that is no join of an image's channels."""

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
