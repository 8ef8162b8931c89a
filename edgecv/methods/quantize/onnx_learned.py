"""Scales that `qat` learned (`learned.py`), as ONNX Runtime's quantizer takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecv.graph import Graph
from edgecv.methods.quantize.learned import scales_of
from edgecv.methods.quantize.vnni_saturation import saturating, stretch
from edgecv.target import Grid


def overrides(
    graph: Graph, grid: Grid, weights: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, list[dict[str, Any]]]:
    """Scales of weights as ONNX Runtime's quantizer takes them (`TensorQuantOverrides`).

    weights: by name, (O, K), and the pairs of K that saturate where they are large
    (`vnni_saturation.py`): on such a grid a channel that was trained to do so gets a larger step,
    and is rounded anew
    Raises UnsupportedError: a grid that cannot hold what was learned.
    """
    from onnxruntime.quantization import QuantType

    kind = {"quant_type": QuantType.QInt8, "zero_point": np.int8(0)}
    found = {}
    for name, learned in scales_of(graph, grid).items():
        scales = np.array(learned)
        if grid.reduce_range:
            scales = _held(scales, *weights[name])
        axis = [{"axis": 0}] * len(scales) if len(scales) > 1 else [{}]
        found[name] = [
            {**kind, **a, "scale": np.float32(s)} for a, s in zip(axis, scales, strict=True)
        ]
    return found


def _held(scales: np.ndarray, rows: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The scales (O,) or (1,), grown until the integers do not saturate."""
    q = np.rint(rows / scales[:, None])
    grown = np.where(saturating(q, pairs), stretch(q[None], pairs)[0], 1)
    return scales * (grown if len(scales) > 1 else grown.max())
