"""What a Resize does along one axis, read off ONNX's own reference.

    y[k] = Σ_m W[k, m] x[m]

The reference, run on the unit vectors of the axis, gives W of every mode and every convention of
coordinates, antialiasing too, as onnx/docs/Operators.md has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def axis_matrix(node: Any, opsets: Sequence[Any], rank: int, axis: int, before: int, after: int,
                scales: np.ndarray | None) -> np.ndarray | None:  # fmt: skip
    """W, float64 (after, before), of a Resize's `axis`; None where it has another form: of a part
    of the image, that keeps proportions, or that its reference does not run.

    scales: the node's own, constant, None where it gives sizes
    """
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if given.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        return None
    if given.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        return None
    copy = type(node)()
    copy.CopyFrom(node)
    del copy.input[:]
    held: dict[str, np.ndarray] = {}
    axes = [a % rank for a in given.get("axes") or range(rank)]
    if scales is not None and scales.size == len(axes):
        held["scales"] = np.array([1, scales.reshape(-1)[axes.index(axis)]], np.float32)
        copy.input.extend(["x", "", "scales"])
    else:
        held["sizes"] = np.array([before, after], np.int64)
        copy.input.extend(["x", "", "", "sizes"])
    copy.output[0] = "y"
    for attribute in [a for a in copy.attribute if a.name == "axes"]:
        copy.attribute.remove(attribute)
    graph = helper.make_graph(
        [copy], "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (before, before))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, n) for n, v in held.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    try:
        ran: Any = ReferenceEvaluator(model).run(None, {"x": np.eye(before, dtype=np.float32)})
    except Exception:  # the reference's own
        return None
    made = np.asarray(ran[0], np.float64)
    return made.T if made.shape == (before, after) else None
