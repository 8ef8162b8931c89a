"""A network opened for looking at its layers, host side."""

from __future__ import annotations

from collections.abc import Mapping

from edgecv.diagnosis.parity.layers import Form
from edgecv.diagnosis.parity.tflite_network import TfliteNetwork


def opened(files: Mapping[str, bytes], title: str, plain: bool = False) -> Form:
    """plain: LiteRT's own kernels instead of XNNPACK's."""
    return TfliteNetwork(next(iter(files.values())), title, delegated=not plain)
