"""A network opened for looking at its layers, host side."""

from __future__ import annotations

from collections.abc import Mapping

from edgecv.diagnosis.parity.layers import Form
from edgecv.diagnosis.parity.onnx_network import OnnxNetwork


def opened(files: Mapping[str, bytes], title: str, plain: bool = False) -> Form:
    """plain: node by node, without the engine's optimiser and its fused kernels."""
    return OnnxNetwork(next(iter(files.values())), title, optimised=not plain)
