"""Why ONNX Runtime leaves a quantized layer of a Q/DQ graph in float.

    x ─ QuantizeLinear ─ DequantizeLinear ─ Conv ─ Relu ─ QuantizeLinear ─ ...
                w int8 ─ DequantizeLinear ──┘

It fuses that into one integer convolution when everything in the picture is there (its QDQ
selectors, onnxruntime/core/optimizer/qdq_transformer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edgecv.diagnosis.why.onnx_view import OnnxView

FUSED_ACTIVATIONS = ("Relu", "Clip")
BELOW_ZERO = "its ReLU does not fold into a grid that goes below zero"


def unfused(view: OnnxView, node: Any) -> str:
    """What keeps a convolution or dense layer out of integers; "" when nothing does."""
    if not (grid := view.grid(node.input[0])):
        return "its input is not quantized"
    if view.constant(node.input[1]) is None:
        return "its weight is computed, not a constant"
    if not view.grid(node.input[1]):
        return "its weight is not quantized"
    if grid == "int8" and view.x86:
        return "its activations are signed (s8), which ONNX Runtime does not fuse on x86"
    if grid not in ("int8", "uint8"):
        return f"its activations are {grid}"
    last = activation(view, node)
    readers = view.readers.get(last.output[0], [])
    if last.output[0] in view.ends or not readers:
        return ""  # the network's own output may stay float
    if len(readers) > 1:
        return f"{len(readers)} nodes read its float output"
    if readers[0].op_type != "QuantizeLinear":
        return f"its output is not quantized before {readers[0].op_type}"
    if last.op_type == "Relu" and not from_zero(view, readers[0]):
        return BELOW_ZERO
    return ""


def activation(view: OnnxView, node: Any) -> Any:
    """The activation that is fused into a product, or the node itself."""
    readers = view.readers.get(node.output[0], ())
    if len(readers) == 1 and readers[0].op_type in FUSED_ACTIVATIONS:
        return readers[0]
    return node


def from_zero(view: OnnxView, quantize: Any) -> bool:
    """Whether a QuantizeLinear's grid begins at 0, so that a ReLU before it is part of it."""
    from onnx import numpy_helper

    zero = view.held.get(quantize.input[2]) if len(quantize.input) > 2 else None
    if zero is None:
        return True
    values = numpy_helper.to_array(zero)
    return bool((values == np.iinfo(values.dtype).min).all())
