"""Layers alone: the ONNX graph is the engine's own file."""

from __future__ import annotations

from collections.abc import Sequence

from edgecv.measuring.product import Product
from edgecv.measuring.single_layer_graphs import Made, joined, onnx_twin


def twin(product: Product, integer: bool, chain: int = 1) -> Made:
    """(files, feeds) of one layer, which follows itself `chain` times."""
    content, feeds = onnx_twin(product, integer, chain)
    return {"model.onnx": content}, feeds


def row(products: Sequence[Product], integer: bool) -> Made:
    """(files, feeds) of layers one after the other."""
    content, feeds = joined(products, integer)
    return {"model.onnx": content}, feeds
