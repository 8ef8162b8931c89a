"""Which axis holds the channels: the last of tokens (1, T, C), the second of an image (1, C, H, W).

Memory is (h, w, c) either way, so that the Reshape and Transpose that make tokens of an image and
an image of tokens move nothing: only `Tensor.last` says how ONNX counts the axes. What would have
to move values is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.backends.c.network import Step, Tensor
from edgecv.backends.c.reductions import Reductions

SWAPS = {(0, 2, 1): None, (0, 2, 3, 1): True, (0, 3, 1, 2): False}


class Tokens(Reductions):
    """Reshape and Transpose of tokens, LayerNormalization, BatchNormalization."""

    def _rows(self, node: Any) -> bool:
        """A Reshape, Squeeze, Unsqueeze or Flatten between an image, tokens and rows of a matrix;
        False where it is none."""
        if self._moved(node):
            return False
        x, before = self._at(node.input[0]), self.shapes.get(node.input[0])
        after = self.shapes.get(node.output[0])
        if before is None or after is None or x.order is not None:
            return False
        if x.images > 1 or (x.last and 1 not in (*before[:1], *after[:1])):
            return self._batch(node, x, before, after)
        high, wide, channels = x.shape
        rows = (1, high * wide, channels)
        if x.last:
            if after in (rows, rows[1:]):
                self._retagged(node, rows, True)
            elif after == (1, *x.shape):
                self._retagged(node, x.shape, True)
            elif len(after) == 4 and after[0] == 1 and after[3] == channels:
                self._retagged(node, after[1:], True)
            elif after == (1, math.prod(x.shape)):
                self._retagged(node, (1, 1, after[1]), False)
            else:
                return False
            return True
        if len(before) == 4 and after == (1, channels, high * wide) and high * wide > 1:
            self._retagged(node, rows, False)
            return True
        if len(before) == 3 and len(after) == 4 and after[:2] == (1, channels):
            self._retagged(node, (*after[2:], channels), False)
            return True
        if len(before) == 2 and after == (1, 1, channels):
            self._retagged(node, (1, 1, channels), True)
            return True
        return False

    def _batch(self, node: Any, x: Tensor, before: tuple[int, ...],
               after: tuple[int, ...]) -> bool:  # fmt: skip
        """As `_rows`, of several images or rows."""
        count, channels = len(after), x.shape[2]
        if x.last and before[:1] == after[:1] and after[1:] == (channels, 1, 1):
            self._retagged(node, (after[0], 1, channels), False, after[0])  # rows as images
        elif x.last and count in (2, 3, 4):  # it lies as ONNX has it
            high, wide = (1, *after[:-1])[-2:] if count < 4 else after[1:3]
            images = after[0] if count > 2 else 1
            high = images * high if count == 4 else images
            self._retagged(node, (high, wide, after[-1]), after[:-1] != (1,), images)
        elif not x.last and count in (3, 4) and before[:2] == after[:2] == (x.images, channels):
            high, wide = (1, *after[2:])[-2:]  # (N, C, H, W) and (N, C, H W)
            self._retagged(node, (x.images * high, wide, channels), False, x.images)
        else:
            return False
        return True

    def _swapped(self, node: Any) -> bool:
        """A Transpose that only moves the channels' axis; False where it moves values."""
        if self._moved(node):
            return False
        x = self._at(node.input[0])
        perm = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), ())
        if perm not in SWAPS or x.order is not None:
            return False
        last = not x.last if SWAPS[perm] is None else SWAPS[perm]
        if last == x.last:
            return False
        self._retagged(node, x.shape, bool(last), x.images)
        return True

    def _moved(self, node: Any) -> bool:
        """Whether what it reads is a table of places so far (`moves.py`)."""
        return self._is_view(node.input[0])

    def _retagged(self, node: Any, shape: tuple[int, ...], last: bool, images: int = 1) -> None:
        """The same values under another shape."""
        x = self._at(node.input[0])
        name, (high, wide, channels) = f"{node.output[0]}/view", shape
        self.tensors[name] = Tensor(name, (high, wide, channels), x.dtype, None, last, images)
        self.names[node.output[0]] = name
        if x.name in self.grids:
            self.grids[name] = self.grids[x.name]
        self.steps.append(Step("same", [x.name], [name]))

    def _layernormalization(self, node: Any) -> None:
        from onnx import helper

        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        x, rank = None, len(self.shapes.get(node.input[0], ()))
        if not self._is_view(node.input[0]):
            x = self._at(node.input[0])
        axis = given.get("axis", -1) % max(rank, 1)
        if x is None or not x.last or axis != rank - 1 or len(node.output) > 1:
            self._layers(node)
            return
        named = dict(zip(("scale", "bias"), node.input[1:3], strict=False))
        constants = {role: self._ordered(x, self._constant(n, x.shape[2]))
                     for role, n in named.items() if n}  # fmt: skip
        self._step(node, "layernorm_f32", [self._float(node.input[0])], x.shape, order=x.order,
                   constants=constants, about={"epsilon": given.get("epsilon", 1e-5)})  # fmt: skip

    def _batchnormalization(self, node: Any) -> None:
        """scale x + bias by channel, where no layer before it took it in."""
        parts = [self._number(n) for n in node.input[1:5]]
        if any(p is None for p in parts) or len(self._shape_of(node, node.input[0])) not in (2, 4):
            raise self._refused(node, "BatchNormalization is of a form without a C kernel")
        scale, bias, mean, var = (np.asarray(p, np.float64) for p in parts)
        if len(self._shape_of(node, node.input[0])) == 4:
            self._image(node)
        x = self._at(node.input[0])
        factor = scale / np.sqrt(var + self._given(node).get("epsilon", 1e-5))
        constants = {"scale": factor, "bias": bias - mean * factor}
        held = {k: self._ordered(x, v.astype(np.float32)) for k, v in constants.items()}
        self._step(node, "affine_f32", [self._floats(x.name)], x.shape, order=x.order,
                   constants=held)  # fmt: skip

    def _by_channels(self, node: Any, name: str, x: Tensor) -> None:
        """Refuses a constant that lies along another axis than the channels."""
        value = self.values.get(name)
        if value is None:
            held = self._integers(name)
            value = None if held is None else held[0]
        if value is None or np.size(value) == 1 or x.shape[:2] == (1, 1):
            return
        rank = len(self.shapes.get(name, np.shape(value)))
        shape = (1,) * max(0, 4 - rank) + tuple(np.shape(value))
        own = shape[-1] if x.last else shape[-2 if self._rank(x) == 3 else -3]
        if own != np.size(value):
            raise self._refused(node, f"a constant of shape {np.shape(value)} beside {x.shape}")

    def _image(self, node: Any) -> None:
        """What it reads lies as an image, whose channels ONNX has second."""
        name = node.input[0]
        if not self._at(name).last:
            return
        shape, own = self._shape_of(node, name), f"{name}/image"
        if len(shape) != 4:
            raise self._refused(node, f"takes a value of shape {shape}, which is no image")
        view = self._view(node, name)
        places = view.at.transpose(0, 2, 3, 1).reshape(-1, shape[3], shape[1])
        self._gathered(node, self.tensors[view.base], places, 0.0, own, places.shape)
        self.tensors[own] = replace(self.tensors[own], images=shape[0])
        self.names[name] = own

    @staticmethod
    def _crossed(a: Tensor, b: Tensor) -> bool:
        """Whether two tensors count their axes differently."""
        return a.last != b.last and (1, 1) not in (a.shape[:2], b.shape[:2])

    def _rank(self, x: Tensor) -> int:
        ranks = [len(self.shapes[n]) for n, t in self.names.items()
                 if t == x.name and self.shapes.get(n)]  # fmt: skip
        return ranks[0] if ranks else 4
