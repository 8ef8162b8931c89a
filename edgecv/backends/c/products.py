"""Convolutions, dense layers, sums, products and joins, in float32 and in integers.

    q_y = z_y + round(M (b_q + Σ (q_x − z_x) q_w)),  M = s_x s_w / s_y ≈ m / 2^k

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (CVPR 2018).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.backends.c.joins import Joins
from edgecv.backends.c.moves import View
from edgecv.backends.c.network import Step, Tensor, multiplier
from edgecv.backends.c.tokens import Tokens
from edgecv.backends.c.window import outputs, window


class Products(Tokens, Joins):
    """Conv, Gemm, MatMul, Add, Sub, Mul, Div, Concat."""

    def _conv(self, node: Any) -> None:
        if len(self._shape_of(node, node.input[0])) == 3:
            self._along_a_line(node)
            return
        self._image(node)
        about = window(node)
        weight = self.values.get(node.input[1])
        packed = self._integers(node.input[1])
        if weight is None and packed is None:
            raise self._refused(node, "its weight is no constant")
        dims = (weight if packed is None else packed[0]).shape  # type: ignore[union-attr]
        if len(dims) != 4:
            raise self._refused(node, "is no convolution of images")
        about["kernel"] = tuple(dims[2:])
        self._product(node, about, weight, packed, (0, 2, 3, 1))

    def _along_a_line(self, node: Any) -> None:
        """A convolution of (N, C, L): of images one pixel high."""
        name, about = node.input[0], window(node)
        weight, packed = self.values.get(node.input[1]), self._integers(node.input[1])
        if weight is None and packed is None:
            raise self._refused(node, "its weight is no constant")
        view, own = self._view(node, name), f"{name}/line"
        if own not in self.tensors:
            places = view.at.transpose(0, 2, 1)
            self._gathered(node, self.tensors[view.base], places, view.fill, own, places.shape)
            self.tensors[own] = replace(self.tensors[own], images=len(places))
        weight = None if weight is None else weight[:, :, None]
        packed = None if packed is None else (packed[0][:, :, None], packed[1])
        about |= {"kernel": (1, (weight if packed is None else packed[0]).shape[3]),  # type: ignore[union-attr]
                  "stride": (1, about["stride"][0]), "dilation": (1, about["dilation"][0]),
                  "pads": (0, about["pads"][0], 0, about["pads"][1])}  # fmt: skip
        before = self.names.get(name)
        self.names[name] = own
        self._product(node, about, weight, packed, (0, 2, 3, 1))
        del self.names[name]
        if before is not None:
            self.names[name] = before
        (made,) = self.steps[-1].outputs
        at = np.arange(self.tensors[made].values).reshape(self.tensors[made].shape)
        self._shaped(self.steps[-1], at.transpose(0, 2, 1))

    def _gemm(self, node: Any) -> None:
        held = {a.name: a for a in node.attribute}
        factors = {held[n].f for n in ("alpha", "beta") if n in held}
        if factors - {1.0} or ("transA" in held and held["transA"].i):
            raise self._refused(node, "is a product of another kind")
        turned = not ("transB" in held and held["transB"].i)
        self._dense(node, turned)

    def _matmul(self, node: Any) -> None:
        weight = self._number(node.input[1])
        if weight is None or weight.ndim != 2 or self._number(node.input[0]) is not None:
            self._any_matmul(node)
        else:
            self._dense(node, True)

    def _dense(self, node: Any, turned: bool) -> None:
        """A product along the last axis, row by row."""
        name = node.input[0]
        if not self._is_view(name):
            x, known = self._at(name), self.shapes.get(name)
            if x.last or (x.shape[:2] == (1, 1) and (not known or len(known) == 2)):
                self._by_weight(node, turned)
                return
        shape, view = self._shape_of(node, name), self._view(node, name)
        rows = (1, int(np.prod(shape[:-1])), shape[-1])
        own, x = f"{name}/rows", self.tensors[view.base]
        if own not in self.tensors:
            self._gathered(node, x, view.at, view.fill, own, rows)
            self.tensors[own] = replace(self.tensors[own], last=True)
        before = self.names.pop(name, None)
        self.names[name] = own
        self._by_weight(node, turned)
        del self.names[name]
        if before is not None:
            self.names[name] = before
        if len(shape) > 3 or (len(shape) == 3 and shape[0] != 1):
            (made,) = self.steps[-1].outputs
            at = np.arange(self.tensors[made].values).reshape(*shape[:-1], -1)
            self._shaped(self.steps[-1], at)

    def _shaped(self, step: Step, at: np.ndarray) -> None:
        """What a step made as a value of other axes: a view of it."""
        (name,) = step.outputs
        own = f"{name}/made"
        made = self.tensors.pop(name)
        self.tensors[own], step.outputs[0] = replace(made, name=own), own
        if name in self.grids:
            self.grids[own] = self.grids.pop(name)
        del self.names[name]
        self.names[own] = own
        self.views[name] = View(own, at, 0.0)

    def _by_weight(self, node: Any, turned: bool) -> None:
        weight, packed = self.values.get(node.input[1]), self._integers(node.input[1])
        if weight is None and packed is None:
            raise self._refused(node, "its weight is no constant")

        def laid(w: np.ndarray) -> np.ndarray:
            rows = w.T if turned else w
            order = self._at(node.input[0]).order
            if order:
                high, wide, channels = order
                rows = rows.reshape(len(rows), channels, high, wide).transpose(0, 2, 3, 1)
            return rows.reshape(len(rows), -1, 1, 1)

        weight = None if weight is None else laid(weight)
        packed = None if packed is None else (laid(packed[0]), packed[1])
        about = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pads": (0, 0, 0, 0),
                 "groups": 1}  # fmt: skip
        self._product(node, about, weight, packed, (0, 2, 3, 1))

    def _product(self, node: Any, about: dict[str, Any], weight: np.ndarray | None,
                 packed: tuple[np.ndarray, np.ndarray] | None,
                 turn: tuple[int, ...]) -> None:  # fmt: skip
        x = self._at(node.input[0])
        bias_name = node.input[2] if len(node.input) > 2 else ""
        filters = len(packed[0] if packed else weight)  # type: ignore[arg-type]
        shape = outputs(x, about, filters)
        if packed is not None and x.dtype == "int8" and np.abs(packed[0].astype(int)).max() < 129:
            self._integer_product(node, about, packed, turn, bias_name, x, shape)
            return
        if weight is None:
            assert packed is not None
            each = packed[1].reshape(-1, *[1] * (packed[0].ndim - 1))
            weight = packed[0].astype(np.float32) * each
        bias = self._constant(bias_name, filters) if bias_name else np.zeros(filters, np.float32)
        out, low, high = self._clipped(node)
        constants = {"w": np.ascontiguousarray(weight.transpose(turn), np.float32),
                     "b": bias.astype(np.float32)}  # fmt: skip
        self._step(node, "conv_f32", [self._float(node.input[0])], shape, out=out,
                   constants=constants, about={**about, "low": low, "high": high})  # fmt: skip

    def _integer_product(self, node: Any, about: dict[str, Any],
                         packed: tuple[np.ndarray, np.ndarray], turn: tuple[int, ...],
                         bias_name: str, x: Tensor, shape: tuple[int, ...]) -> None:  # fmt: skip
        grid, (ints, scales) = self.grids[x.name], packed
        each = np.broadcast_to(scales, len(ints)).astype(np.float64) * grid.scale
        held = self._integers(bias_name) if bias_name else None
        if held is not None:
            bias = held[0].astype(np.int32)
        elif bias_name:
            bias = np.rint(self._constant(bias_name, len(ints)) / each).astype(np.int32)
        else:
            bias = np.zeros(len(ints), np.int32)
        constants = {"w": np.ascontiguousarray(ints.transpose(turn)).astype(np.int8), "b": bias}
        about = {**about, "x_zero": grid.zero}
        made = self._integer(node, [node.input[0]])
        if made is None:
            constants["scale"] = each.astype(np.float32)
            self._step(node, "conv_real", [x.name], shape, constants=constants, about=about)
            return
        out, to, low, high = made
        pairs = [multiplier(e / to.scale) for e in each]
        constants |= {"m": np.array([m for m, _ in pairs], np.int32),
                      "shift": np.array([k for _, k in pairs], np.uint8)}  # fmt: skip
        about |= {"y_zero": to.zero, "low": low, "high": high}
        self._step(node, "conv_i8", [x.name], shape, "int8", out, constants=constants, about=about)
        self.grids[out] = to

    # sums and joins

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
