"""Convolutions and dense layers, in float32 and in integers.

    q_y = z_y + round(M (b_q + Σ (q_x − z_x) q_w)),  M = s_x s_w / s_y ≈ m / 2^k

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (CVPR 2018).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.backends.c.moves import View
from edgecv.backends.c.network import Step, Tensor, multiplier
from edgecv.backends.c.sums import Sums
from edgecv.backends.c.window import outputs, window


class Products(Sums):
    """Conv, Gemm, MatMul."""

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
