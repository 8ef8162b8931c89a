"""A compiled network as `edgecv why` looks at it, whatever its format.

`onnx_view.py`, `ir_view.py` and `tflite_view.py` make one from each engine's own file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edgecv.measuring.product import Product
from edgecv.runtime.spec import Layer


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

    def gates(self, kernel: str) -> bool:  # noqa: ARG002
        """Whether a kernel of the profile multiplies by what an activation function gives."""
        return False

    def multiplier(self, row: Layer) -> str:
        """What the file calls the convolution or dense layer of a profile's row, "" for none."""
        return row.layer

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
