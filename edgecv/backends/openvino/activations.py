"""x HardSigmoid(x; 1/6, 1/2) becomes HSwish(x), which OpenVINO computes with the layer before it.

Its reader of .onnx files makes the two of HardSwish in some files, and of files that spell it so;
the CPU plugin then runs each by itself, in float, with a change of layout on both sides of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.openvino.constants import value
from edgecv.graphs.openvino.nodes import kind, name, source

ALPHA, BETA = 1 / 6, 0.5


def joined(model: Any) -> int:
    """Rewrite an ov.Model in place; how many there were."""
    from openvino import opset13 as ops

    count = 0
    for node in model.get_ordered_ops():
        if kind(node) != "Multiply":
            continue
        for gate, other in ((0, 1), (1, 0)):
            inner = source(node, gate)
            if kind(inner) != "HardSigmoid" or not _hard(inner):
                continue
            if inner.input_value(0) != node.input_value(other):
                continue
            made = ops.hswish(node.input_value(other))
            made.set_friendly_name(name(node))
            made.output(0).get_tensor().set_names(node.output(0).get_names())
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(made.output(0))
            count += 1
            break
    return count


def _hard(node: Any) -> bool:
    slopes = [value(source(node, place))[0] for place in (1, 2)]
    if any(held is None or np.size(held) != 1 for held in slopes):
        return False
    alpha, beta = (float(np.ravel(held)[0]) for held in slopes if held is not None)
    return bool(np.isclose(alpha, ALPHA, rtol=1e-5) and np.isclose(beta, BETA, rtol=1e-5))
