"""Means, largest values, norms, softmax and products along any axes of values of any rank.

    reduce   y[k] = f(x[k, ·])
    norm     y[k, i] = scale (x[k, i] − mean x[k, ·]) / sqrt(variance x[k, ·] + ε) + bias
    softmax  y[k, i] = exp(x[k, i]) / Σ exp(x[k, ·])
    dot      y[k] = Σ a[k, ·] b[k, ·]

Outer loops visit what is kept, inner loops what the axes hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.c.operands import Operand, Operands, Shape, split

REDUCED = {  # ONNX's operator: the kernel of strided.c
    "ReduceMean": "reduce_mean", "ReduceSum": "reduce_sum", "ReduceMax": "reduce_max",
    "ReduceMin": "reduce_min", "ReduceProd": "reduce_prod", "ReduceL1": "reduce_l1",
    "ReduceL2": "reduce_l2", "ReduceSumSquare": "reduce_square",
}  # fmt: skip


class Reductions(Operands):
    """Reduce..., InstanceNormalization, GroupNormalization, LayerNormalization, Softmax, MatMul."""

    def _reduced(self, node: Any) -> None:
        name, given = node.input[0], self._given(node)
        rank = len(self._shape_of(node, name))
        axes = self._axes(node, given, rank)
        if axes is None:
            self._alias(node)
            return
        kind = REDUCED.get(node.op_type)
        if kind is None:
            raise self._refused(node, f"{node.op_type} has no C kernel")
        x = self._stepwise(node, name)
        table = split(x.at, axes)
        keep = given.get("keepdims", 1)
        shape = tuple(1 if d in axes else n for d, n in enumerate(x.at.shape)
                      if keep or d not in axes)  # fmt: skip
        out = self._out(node.output[0], shape, flat=self._is_flat(name))
        flat = out._replace(at=out.at.reshape(-1))
        self._walked(node, kind, [x._replace(at=table[:, 0])], flat, [x._replace(at=table[0])])

    _reducesum = _reducemin = _reduceprod = _reducel1 = _reducel2 = _reducesumsquare = _reduced

    def _axes(self, node: Any, given: dict[str, Any], rank: int) -> list[int] | None:
        """The axes of a Reduce; None where it does nothing."""
        axes = given.get("axes")
        if axes is None and len(node.input) > 1 and node.input[1]:
            if node.input[1] not in self.values:
                raise self._refused(node, "its axes are no constant")
            axes = self.values[node.input[1]].reshape(-1).tolist()
        if not axes:
            return None if given.get("noop_with_empty_axes") else list(range(rank))
        return sorted(int(a) % rank for a in axes)

    def _instancenormalization(self, node: Any) -> None:
        shape = self._shape_of(node, node.input[0])
        by = (1, -1, *[1] * (len(shape) - 2))
        self._normalised(node, shape, list(range(2, len(shape))), by)

    def _groupnormalization(self, node: Any) -> None:
        shape, groups = self._shape_of(node, node.input[0]), self._given(node)["num_groups"]
        parts = (shape[0], groups, shape[1] // groups, *shape[2:])
        each = self._number(node.input[1])
        own = each is not None and each.size == groups  # before opset 21
        by = (1, groups, 1 if own else -1, *[1] * (len(shape) - 2))
        self._normalised(node, parts, list(range(2, len(parts))), by)

    def _layers(self, node: Any) -> None:
        """LayerNormalization from an axis on."""
        shape = self._shape_of(node, node.input[0])
        axis = self._given(node).get("axis", -1) % len(shape)
        if len([o for o in node.output if o]) > 1:
            raise self._refused(node, "gives its mean and variance too")
        self._normalised(node, shape, list(range(axis, len(shape))), None)

    def _rmsnormalization(self, node: Any) -> None:
        """scale x / √(mean x² + ε) over the axes from one on."""
        x, given, out = self._stepwise(node, node.input[0]), self._given(node), node.output[0]
        shape, flat = x.at.shape, self._is_flat(node.input[0])
        axes = list(range(given.get("axis", -1) % len(shape), len(shape)))
        few = tuple(1 if d in axes else n for d, n in enumerate(shape))
        square = self._out(f"{out}/square", shape, flat=flat)
        self._walked(node, "each_mul", [x, x], square)
        mean, table = self._out(f"{out}/mean", few, flat=True), split(square.at, axes)
        self._walked(node, "reduce_mean", [square._replace(at=table[:, 0])],
                     mean._replace(at=mean.at.reshape(-1)),
                     [square._replace(at=table[0])])  # fmt: skip
        for kind, number in (("each_add", given.get("epsilon", 1e-5)), ("each_pow", -0.5)):
            value = Operand(np.zeros(few, np.int64), None, np.array([number], np.float32))
            made = self._out(f"{out}/{kind}", few, flat=True)
            self._walked(node, kind, [mean, value], made)
            mean = made
        whole = self._out(f"{out}/unscaled", shape, flat=flat)
        self._walked(node, "each_mul", [x, mean.along(shape)], whole)
        scale = self._operand(node, node.input[1]).along(shape)
        self._walked(node, "each_mul", [whole, scale], self._out(out, shape, flat=flat))

    def _meanvariancenormalization(self, node: Any) -> None:
        shape = self._shape_of(node, node.input[0])
        axes = sorted(a % len(shape) for a in self._given(node).get("axes", (0, 2, 3)))
        self._normalised(node, shape, axes, None, 1e-9)

    def _lpnormalization(self, node: Any) -> None:
        """x over its own norm along an axis."""
        given, x = self._given(node), self._stepwise(node, node.input[0])
        axis = given.get("axis", -1) % x.at.ndim
        size = self._out(f"{node.output[0]}/norm", tuple(
            1 if d == axis else n for d, n in enumerate(x.at.shape)), flat=True)  # fmt: skip
        kind, table = f"reduce_l{given.get('p', 2)}", split(x.at, [axis])
        self._walked(node, kind, [x._replace(at=table[:, 0])],
                     size._replace(at=size.at.reshape(-1)), [x._replace(at=table[0])])  # fmt: skip
        out = self._out(node.output[0], x.at.shape, flat=self._is_flat(node.input[0]))
        self._walked(node, "each_div", [x, size.along(x.at.shape)], out)

    def _normalised(self, node: Any, parts: Shape, axes: list[int], by: Shape | None,
                    epsilon: float = 1e-5) -> None:  # fmt: skip
        """parts: the value's shape with its groups apart; by: the shape of scale and bias."""
        x = self._stepwise(node, node.input[0])
        out = self._out(node.output[0], x.at.shape, flat=self._is_flat(node.input[0]))
        table = split(x.at.reshape(parts), axes)
        factors = [self._factor(node, k, parts, axes, by) for k in (1, 2)]
        tables = [table, split(out.at.reshape(parts), axes), *(t for t, _ in factors)]
        held = [x, out, *(Operand(t, None, v) for t, v in factors)]
        outer = [o._replace(at=t[:, 0]) for o, t in zip(held, tables, strict=True)]
        inner = [o._replace(at=t[0]) for o, t in zip(held, tables, strict=True)]
        self._walked(node, "norm", [outer[0], *outer[2:]], outer[1],
                     [inner[0], *inner[2:], inner[1]],
                     epsilon=float(self._given(node).get("epsilon", epsilon)))  # fmt: skip

    def _factor(self, node: Any, k: int, parts: Shape, axes: list[int],
                by: Shape | None) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """(places, values) of a norm's scale or bias."""
        name = node.input[k] if len(node.input) > k else ""
        value = self._number(name) if name else np.full(1, 2.0 - k, np.float32)
        if value is None:
            raise self._refused(node, f"{name} is no constant")
        shaped = np.arange(value.size).reshape(by if by and value.size > 1 else value.shape)
        table = split(np.broadcast_to(shaped, parts), axes)
        return table, np.asarray(value, np.float32).reshape(-1)

    def _any_softmax(self, node: Any) -> None:
        x, rank = node.input[0], len(self._shape_of(node, node.input[0]))
        axis = self._given(node).get("axis", -1) % rank
        held = self._stepwise(node, x)
        table = split(held.at, [axis])
        out = self._out(node.output[0], held.at.shape, flat=self._is_flat(x))
        to = split(out.at, [axis])
        self._walked(
            node, "log_softmax" if node.op_type == "LogSoftmax" else "softmax",
            [held._replace(at=table[:, 0])], out._replace(at=to[:, 0]),
            [held._replace(at=table[0]), out._replace(at=to[0])],
        )  # fmt: skip

    _logsoftmax = _any_softmax

    def _any_matmul(self, node: Any) -> None:
        """Matrices by matrices, over what stands before them broadcast."""
        p, q = (self._shape_of(node, n) for n in node.input)
        a, b = (self._stepwise(node, n) for n in node.input)
        left = a.at if len(p) > 1 else a.at[None]
        right = b.at.swapaxes(-1, -2) if len(q) > 1 else b.at[None]
        full = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2],
                right.shape[-2])  # fmt: skip
        shape = full if len(q) > 1 else full[:-1]
        shape = shape if len(p) > 1 else (*full[:-2], *shape[len(full) - 1 :])
        out = self._out(node.output[0], shape, flat=True)
        outer = [left[..., :, None, 0], right[..., None, :, 0]]
        outer = [np.broadcast_to(at, full).reshape(-1) for at in outer]
        inner = [at.reshape(-1, at.shape[-1])[0] for at in (left, right)]
        self._walked(
            node, "dot", [o._replace(at=at) for o, at in zip((a, b), outer, strict=True)],
            out._replace(at=out.at.reshape(-1)),
            [o._replace(at=at) for o, at in zip((a, b), inner, strict=True)],
        )  # fmt: skip
