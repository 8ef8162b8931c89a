"""Resize that mixes neighbours: along one axis after the other, a sum of few taps each.

    y[k] = Σ_m w[k, m] x[at[k, m]]

What is mixed is read off ONNX's own reference, run on one axis's unit vectors: every mode and every
convention of coordinates comes out as that has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.c.operands import Operand, Operands


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
        from onnx import TensorProto, helper, numpy_helper
        from onnx.reference import ReferenceEvaluator

        given = self._given(node)
        rank = len(self._shape_of(node, node.input[0]))
        names = [*node.input, "", "", ""][:4]
        copy = type(node)()
        copy.CopyFrom(node)
        del copy.input[:]
        scales = self.values.get(names[2])
        kept = given.get("keep_aspect_ratio_policy", b"stretch") != b"stretch"
        part = given.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
        if kept or part:
            raise self._refused(node, "resizes a part of an image, or keeps its proportions")
        held: dict[str, np.ndarray] = {}
        axes = [a % rank for a in given.get("axes") or range(rank)]
        if names[2] and scales is not None and scales.size == len(axes):
            held["scales"] = np.array([1, scales.reshape(-1)[axes.index(axis)]], np.float32)
            copy.input.extend(["x", "", "scales"])
        else:
            held["sizes"] = np.array([before, after], np.int64)
            copy.input.extend(["x", "", "", "sizes"])
        copy.output[0] = "y"
        for attribute in [a for a in copy.attribute if a.name == "axes"]:
            copy.attribute.remove(attribute)
        graph = helper.make_graph(
            [copy], "resize",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (before, before))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(v, n) for n, v in held.items()],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=self.opsets, ir_version=8)
        try:
            ran: Any = ReferenceEvaluator(model).run(None, {"x": np.eye(before, dtype=np.float32)})
        except Exception:  # the reference's own
            raise self._refused(node, "Resize is of a form without a C kernel") from None
        made = np.asarray(ran[0], np.float64)
        if made.shape != (before, after):
            raise self._refused(node, "Resize is of a form without a C kernel")
        return made.T


def _step(rows: np.ndarray) -> int | None:
    """How far the places of every row lie apart."""
    if rows.shape[1] == 1:
        return 0
    step = int(rows[0, 1] - rows[0, 0])
    return step if (np.diff(rows, axis=1) == step).all() else None
