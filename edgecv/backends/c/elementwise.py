"""Functions of one value, pools, and what only arranges values anew; grids of integers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.backends.c.broadcast import Broadcast
from edgecv.backends.c.graph_builder import INFINITY
from edgecv.backends.c.network import Step, Tensor
from edgecv.backends.c.resizing import Resizing
from edgecv.backends.c.tokens import Tokens
from edgecv.backends.c.window import outputs, window


class Maps(Resizing, Tokens, Broadcast):
    """Relu ... Softmax, pooling, Flatten ... Transpose, QuantizeLinear, DequantizeLinear."""

    def _quantizelinear(self, node: Any) -> None:
        if self._passed_on(node, self._grid(node)):
            return
        grid = self._grid(node)
        held, out = self._over(node.input[0], node.output[0])
        if held.dtype == "int8":  # one grid into another
            about = self._rescaled(self.grids[held.name], grid)
            made = self._step(node, "rescale_i8", [held.name], held.shape, "int8", out, held.order,
                              about=about)  # fmt: skip
        else:
            about = {"scale": grid.scale, "zero": grid.zero}
            made = self._step(node, "quantize", [held.name], held.shape, "int8", out, held.order,
                              about=about)  # fmt: skip
        self.grids[made.outputs[0]] = grid

    def _dequantizelinear(self, node: Any) -> None:
        if node.input[0] not in self.values and not self._passed_on(node):
            self._alias(node)  # its readers take the integers, or `_float`

    # activations

    def _map(self, node: Any, kind: str, constants: dict[str, np.ndarray] | None = None,
             **about: Any) -> None:  # fmt: skip
        """A function of one value: a table of 256 where it reads and makes integers."""
        name = node.input[0]
        made = None if constants else self._integer(node, [name])
        if made is None:
            x, own = self._over(name, node.output[0])
            self._step(node, kind, [self._floats(x.name)], x.shape, "float", own, x.order,
                       constants=constants or {}, about=about)  # fmt: skip
            return
        from edgecv.backends.c.reference import FUNCTIONS

        out, grid, low, high = made
        x, out = self._over(name, out)
        before = self.grids[x.name]
        reals = np.float32(before.scale) * (np.arange(-128, 128) - before.zero).astype(np.float32)
        y = np.rint(FUNCTIONS[kind](reals, about) / np.float32(grid.scale)) + grid.zero
        table = np.clip(y, low, high).astype(np.int8)
        self._step(node, "lut_i8", [x.name], x.shape, "int8", out, x.order,
                   constants={"table": table})  # fmt: skip
        self.grids[out] = grid

    def _relu(self, node: Any) -> None:
        self._map(node, "clamp_f32", low=0.0, high=INFINITY)

    def _clip(self, node: Any) -> None:
        limits = self._limits(node)
        if limits is None:
            raise self._refused(node, "Clip by what is no constant")
        self._map(node, "clamp_f32", low=limits[0], high=limits[1])

    def _leakyrelu(self, node: Any) -> None:
        slope = next((a.f for a in node.attribute if a.name == "alpha"), 0.01)
        if slope == 1.0:  # what keeps a layer in float elsewhere (`hold_float`)
            self._alias(node)
            return
        x, _ = self._over(node.input[0], node.output[0])
        self._map(node, "prelu_f32", {"slope": np.full(x.shape[2], slope, np.float32)})

    def _prelu(self, node: Any) -> None:
        if not self._along_channels(node.input[1], node.input[0]):
            self._each(node)
            return
        x = self._at(node.input[0])
        slope = self._ordered(x, self._constant(node.input[1], x.shape[2]))
        self._map(node, "prelu_f32", {"slope": slope})

    def _sigmoid(self, node: Any) -> None:
        self._map(node, "sigmoid_f32")

    def _tanh(self, node: Any) -> None:
        self._map(node, "tanh_f32")

    def _abs(self, node: Any) -> None:
        self._map(node, "abs_f32")

    def _neg(self, node: Any) -> None:
        self._map(node, "neg_f32")

    def _exp(self, node: Any) -> None:
        self._map(node, "powers_f32")

    def _log(self, node: Any) -> None:
        self._map(node, "logs_f32")

    def _sqrt(self, node: Any) -> None:
        self._map(node, "sqrt_f32")

    def _erf(self, node: Any) -> None:
        self._map(node, "erf_f32")

    def _softplus(self, node: Any) -> None:
        self._map(node, "softplus_f32")

    def _softsign(self, node: Any) -> None:
        self._map(node, "softsign_f32")

    def _floor(self, node: Any) -> None:
        self._map(node, "floors_f32")

    def _ceil(self, node: Any) -> None:
        self._map(node, "ceils_f32")

    def _round(self, node: Any) -> None:
        self._map(node, "rounds_f32")

    def _sign(self, node: Any) -> None:
        self._map(node, "sign_f32")

    def _reciprocal(self, node: Any) -> None:
        self._map(node, "inverse_f32")

    def _thresholdedrelu(self, node: Any) -> None:
        self._map(node, "threshold_f32", alpha=self._real(node, "alpha", 1.0))

    def _gelu(self, node: Any) -> None:
        tanh = self._given(node).get("approximate") == b"tanh"
        self._map(node, "gelu_tanh_f32" if tanh else "gelu_f32")

    def _lrn(self, node: Any) -> None:
        self._image(node)
        x, given = self._at(node.input[0]), self._given(node)
        about = {n: given.get(n, usual) for n, usual in (
            ("size", 1), ("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))}  # fmt: skip
        self._step(node, "lrn_f32", [self._float(node.input[0])], x.shape, about=about)

    def _mish(self, node: Any) -> None:
        self._map(node, "mish_f32")

    def _elu(self, node: Any) -> None:
        alpha = self._real(node, "alpha", 1.0)
        self._map(node, "elu_f32", above=1.0, below=alpha, inside=1.0)

    def _celu(self, node: Any) -> None:
        alpha = self._real(node, "alpha", 1.0)
        self._map(node, "elu_f32", above=1.0, below=alpha, inside=1.0 / alpha)

    def _selu(self, node: Any) -> None:
        gamma = self._real(node, "gamma", 1.0507009873554805)
        alpha = self._real(node, "alpha", 1.6732632423543772)
        self._map(node, "elu_f32", above=gamma, below=gamma * alpha, inside=1.0)

    def _max(self, node: Any) -> None:
        self._bounded(node, "low")

    def _min(self, node: Any) -> None:
        self._bounded(node, "high")

    def _bounded(self, node: Any, end: str) -> None:
        """The larger or smaller of a value and one number."""
        held = [i for i in node.input if i in self.values]
        others = [i for i in node.input if i not in self.values]
        if len(others) != 1 or len(held) != 1 or self.values[held[0]].size != 1:
            self._each(node)
            return
        x, own = self._over(others[0], node.output[0])
        about = {"low": -INFINITY, "high": INFINITY, end: float(self.values[held[0]].flat[0])}
        self._step(node, "clamp_f32", [self._floats(x.name)], x.shape, "float", own, x.order,
                   about=about)  # fmt: skip

    @staticmethod
    def _real(node: Any, name: str, otherwise: float) -> float:
        return next((float(a.f) for a in node.attribute if a.name == name), otherwise)

    def _hardswish(self, node: Any) -> None:
        self._map(node, "hardswish_f32")

    def _hardsigmoid(self, node: Any) -> None:
        held = {a.name: a.f for a in node.attribute}
        self._map(node, "hardsigmoid_f32", slope=held.get("alpha", 0.2), bias=held.get("beta", 0.5))

    def _softmax(self, node: Any) -> None:
        shape = self.shapes.get(node.input[0]) or (0,)
        wide = shape[int(self._given(node).get("axis", -1)) % len(shape)]
        view = self._is_view(node.input[0])
        if view or (x := self._at(node.input[0])).shape != (1, 1, wide or x.shape[2]) or x.order:
            self._any_softmax(node)
            return
        self._step(node, "softmax_f32", [self._float(node.input[0])], x.shape)

    # pools and shapes

    def _maxpool(self, node: Any) -> None:
        self._image(node)
        self._pool(node, window(node), True)

    def _averagepool(self, node: Any) -> None:
        self._image(node)
        self._pool(node, window(node), False)

    def _globalmaxpool(self, node: Any) -> None:
        self._image(node)
        self._whole(node, True)

    def _globalaveragepool(self, node: Any) -> None:
        self._image(node)
        self._whole(node, False)

    def _whole(self, node: Any, largest: bool) -> None:
        high, wide, _ = self._at(node.input[0]).one
        self._pool(node, {"kernel": (high, wide), "stride": (1, 1), "dilation": (1, 1),
                          "pads": (0, 0, 0, 0), "ceil": 0, "whole": 0}, largest)  # fmt: skip

    def _reducemax(self, node: Any) -> None:
        self._reducemean(node, True)

    def _reducemean(self, node: Any, largest: bool = False) -> None:
        rank = len(self.shapes.get(node.input[0]) or (0,) * 4)
        axes, view = self._axes(node, self._given(node), rank), self._is_view(node.input[0])
        x = None if view else self._at(node.input[0])
        places = [*range(1, rank - 1)] if x and x.last else [*range(2, rank)]
        if x is None or x.order or axes != places or rank < 3:
            self._reduced(node)
        else:
            self._whole(node, largest)

    def _pool(self, node: Any, about: dict[str, Any], largest: bool) -> None:
        x = self._at(node.input[0])
        about = {**about, "groups": 1, "largest": int(largest), "whole": about.get("whole", 0)}
        shape = outputs(x, about, x.shape[2])
        made = self._integer(node, [node.input[0]])
        if made is None:
            out = node.output[0]
            self._step(node, "pool_f32", [self._float(node.input[0])], shape, about=about)
        else:
            out, grid, _, _ = made
            about |= self._rescaled(self.grids[x.name], grid)
            self._step(node, "pool_i8", [x.name], shape, "int8", out, about=about)
            self.grids[out] = grid
        if x.images > 1 and len(self.shapes.get(node.output[0], ())) == 2:  # one row an image
            rows = (1, x.images, x.shape[2])
            self.tensors[out] = replace(self.tensors[out], shape=rows, last=True, images=1)

    def _flatten(self, node: Any) -> None:
        if self._is_view(node.input[0]):
            self._move(node)
            return
        x, after = self._at(node.input[0]), self.shapes.get(node.output[0])
        row, pixel = (x.images, math.prod(x.one)), x.one[:2] == (1, 1)
        forms = (row, (*row, 1, 1), row[1:] if x.images == 1 else row)
        if after and after not in forms:
            self._move(node)
            return
        if x.last and self._rows(node):
            return
        rows = x.images > 1 and len(after or row) == 2
        if pixel and not rows:
            self._alias(node)
            return
        if x.last:
            self._move(node)
            return
        shape = (1, *row) if rows else (x.images, 1, row[1])
        flat = Tensor(f"{x.name}/flat{len(after or row)}" if x.images > 1 else f"{x.name}/flat",
                      shape, x.dtype, x.order if pixel else x.one, rows,
                      1 if rows else x.images)  # fmt: skip
        self.tensors[flat.name] = flat
        self.names[node.output[0]] = flat.name
        if x.name in self.grids:
            self.grids[flat.name] = self.grids[x.name]
        self.steps.append(Step("same", [x.name], [flat.name]))

    def _reshape(self, node: Any) -> None:
        if self._rows(node):
            return
        wanted = self.values.get(node.input[1])
        sizes = [] if wanted is None else [int(v) for v in wanted.reshape(-1)]
        if len(sizes) == 2 or (len(sizes) == 4 and sizes[2:] == [1, 1]):
            self._flatten(node)
        else:
            self._move(node)

    def _squeeze(self, node: Any) -> None:
        if self._rows(node):
            return
        if not self._is_view(node.input[0]) and self._at(node.input[0]).one[:2] == (1, 1):
            self._flatten(node)
        else:
            self._move(node)

    def _unsqueeze(self, node: Any) -> None:
        if not self._rows(node):
            self._move(node)

    def _identity(self, node: Any) -> None:
        self._alias(node)

    def _dropout(self, node: Any) -> None:
        self._alias(node)

    def _transpose(self, node: Any) -> None:
        """Between the layouts of the one-bit operators and others': one layout here."""
        readers = [r for r in self.readers.get(node.output[0], ()) if r.domain == "edgecv"]
        perm = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), ())
        into = perm == (0, 2, 3, 1) and bool(readers)
        back = perm == (0, 3, 1, 2) and self._made_last(node.input[0])
        if into or back:
            self._alias(node)
        elif not self._swapped(node):
            self._move(node)
