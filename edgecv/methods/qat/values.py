"""Every tensor that a float graph file holds for one image, and its layers' weights, by name."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import numpy as np

from edgecv.graph import Graph
from edgecv.graph_files import brought


def tensors(graph: Graph, image: np.ndarray) -> dict[str, np.ndarray]:
    """The input, what every operator makes, and the output. image: float32 (1, C, H, W)."""
    found: dict[str, np.ndarray] = _of(graph).tensors(graph, image)
    return found


def weights(graph: Graph) -> dict[str, np.ndarray]:
    """Constant weights of convolutions and dense layers, output channel first."""
    found: dict[str, np.ndarray] = _of(graph).weights(graph)
    return found


def _of(graph: Graph) -> ModuleType:
    with brought(graph.format, "learns ranges of"):
        return import_module(f"edgecv.methods.qat.for_{graph.format}")
