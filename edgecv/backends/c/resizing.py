"""Resize that mixes neighbours: along one axis after the other, a sum of few taps each.

    y[k] = Σ_m w[k, m] x[at[k, m]]

What is mixed is read off ONNX's own reference (`edgecv.graphs.onnx.resizing`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.c.operands import Operand, Operands
from edgecv.graphs.onnx.resizing import axis_matrix


class Resizing(Operands):
    """Resize: nearest only moves values (`moves.py`), linear and cubic mix them."""

    def _resize(self, node: Any) -> None:
        given = self._given(node)
        if given.get("mode", b"nearest") == b"nearest":
            self._move(node)
            return
        name = node.input[0]
        x, shape = self._operand(node, name), self._shape_of(node, name)
        wanted = self._shape_of(node, node.output[0])
        if len(wanted) != len(shape):
            raise self._refused(node, "is of a form without a C kernel")
        axes = [d for d in range(len(shape)) if shape[d] != wanted[d]]
        if not axes:
            self._alias(node)
            return
        for k, axis in enumerate(axes):
            last = k + 1 == len(axes)
            now = (*wanted[: axis + 1], *shape[axis + 1 :])
            out = self._out(node.output[0] if last else f"{node.output[0]}/{k}", now,
                            flat=self._is_flat(name))  # fmt: skip
            self._mixed(node, x, out, axis, self._matrix(node, axis, shape[axis], wanted[axis]))
            x = out

    def _mixed(self, node: Any, x: Operand, out: Operand, axis: int, matrix: np.ndarray) -> None:
        """matrix: (places of y, places of x)"""
        count = int((matrix != 0).sum(1).max())
        at = np.argsort(matrix == 0, 1, kind="stable")[:, :count]
        w = np.take_along_axis(matrix, at, 1)
        source, to = (np.moveaxis(o.at, axis, -1).reshape(-1, o.at.shape[axis]) for o in (x, out))
        steps = _step(source), _step(to)
        if None in steps:
            raise self._refused(node, "resizes values that lie in no order")
        self._walked(node, "taps", [x._replace(at=source[:, 0])], out._replace(at=to[:, 0]),
                     n=len(matrix), count=count, x_step=steps[0], y_step=steps[1])  # fmt: skip
        self.steps[-1].constants |= {"at": at.astype(np.int32), "w": w.astype(np.float32)}

    def _matrix(self, node: Any, axis: int, before: int, after: int) -> np.ndarray:
        """What a Resize does along one axis: (places of y, places of x)."""
        rank = len(self._shape_of(node, node.input[0]))
        scales = self.values.get([*node.input, "", ""][2])
        made = axis_matrix(node, self.opsets, rank, axis, before, after, scales)
        if made is None:
            raise self._refused(node, "Resize is of a form without a C kernel")
        return made


def _step(rows: np.ndarray) -> int | None:
    """How far the places of every row lie apart."""
    if rows.shape[1] == 1:
        return 0
    step = int(rows[0, 1] - rows[0, 0])
    return step if (np.diff(rows, axis=1) == step).all() else None
