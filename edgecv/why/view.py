"""A compiled network as `edgecv why` looks at it, whatever its format.

    MACs = H_out W_out C_out (C_in / groups) k_h k_w

`onnx_view.py`, `ir_view.py` and `tflite_view.py` make one from each engine's own file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np


@dataclass(frozen=True)
class Product:
    """A layer that multiplies and accumulates: a convolution or a dense layer.

    layer:       its name in the model
    kind:        "conv" or "dense"
    channels:    (in, out)
    size, result: height and width of its input and of its output; (1, 1) for a dense layer
    pads:        top, left, bottom, right
    activations: dtype that its input has in the file: "float32", "uint8", "int8", ...
    weights:     dtype in which the file holds its weight; "" for a weight that is computed
    fixed:       whether (input, output) channels are the image's or the classes, not to be changed
    unfused:     why the engine cannot run it in integers as the file has it; "" when it can
    """

    layer: str
    kind: str
    channels: tuple[int, int]
    size: tuple[int, ...] = (1, 1)
    result: tuple[int, ...] = (1, 1)
    kernel: tuple[int, ...] = (1, 1)
    strides: tuple[int, ...] = (1, 1)
    dilations: tuple[int, ...] = (1, 1)
    pads: tuple[int, ...] = (0, 0, 0, 0)
    groups: int = 1
    activations: str = "float32"
    weights: str = "float32"
    fixed: tuple[bool, bool] = (False, False)
    unfused: str = ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        each = self.channels[0] // self.groups * prod(self.kernel)
        return prod(self.result) * self.channels[1] * each

    @property
    def integer(self) -> bool:
        """Whether the file has its input on an integer grid."""
        return self.activations in ("int8", "uint8")


@dataclass(frozen=True)
class Transposed:
    """A transposition that the file holds; between: the layers before and after, "" for none."""

    name: str
    between: tuple[str, str]

    @property
    def place(self) -> str:
        """ "between a and b"."""
        before, after = self.between
        return f"between {before or 'the input'} and {after or 'the output'}"


class View:
    """What each format's reader offers; mends that a format has not give None.

    files: the engine's files, with every layer named: what experiments are compared with
    """

    files: Mapping[str, bytes]
    counted: tuple[Product, ...] = ()  # layers of one bit, as xnor and popcount

    @property
    def products(self) -> tuple[Product, ...]:
        """Its convolutions and dense layers, in the file's order."""
        raise NotImplementedError

    @property
    def transposes(self) -> tuple[Transposed, ...]:
        """Its transpositions of activations."""
        raise NotImplementedError

    def floats(self) -> Iterator[tuple[str, np.ndarray]]:
        """(layer or tensor, values) of every float constant."""
        raise NotImplementedError

    def activations(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:  # noqa: ARG002
        """(layer or tensor, values) of every float activation, for one input."""
        return iter(())

    def without_transposes(self) -> Mapping[str, bytes] | None:
        """The same with every transposition's copying taken out; shapes are kept."""
        return None

    def without_subnormals(self) -> Mapping[str, bytes] | None:
        """The same with subnormal constants set to zero."""
        return None

    def unsigned(self) -> Mapping[str, bytes] | None:
        """The same with activations on u8 grids in place of s8."""
        return None

    def unpacked(self) -> Mapping[str, bytes] | None:
        """The same with float weights where integers were unpacked for float layers."""
        return None

    def in_integers(
        self,
        layers: set[str],  # noqa: ARG002
        feeds: Mapping[str, np.ndarray],  # noqa: ARG002
    ) -> Mapping[str, bytes] | None:
        """The same with those layers in int8 too, on the ranges that one input has."""
        return None
