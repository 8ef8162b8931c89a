"""A softmax over the channels of an image, of which height and width are one axis.

    Softmax(x: (N, C, H, W); axis 1)  =  Reshape(Softmax(Reshape(x; (N, C, H W)); axis 1))

ONNX Runtime brings the axis last by a swap, and what lies between two axes that are swapped is
copied number by number; with nothing between them it is one transpose of a matrix: 80 channels of
22x22 take 50 µs for 340, of FastestDet's 4,500. (Transposes in the graph itself would be moved
through the softmax again by its optimizer.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes


def flattened(model: Any) -> int:
    """Rewrite such softmaxes of an onnx.ModelProto in place; how many there were."""
    draft, count = Draft(model, "compile"), 0
    for node in draft.nodes("Softmax"):
        shape = draft.known_shape(node.input[0])
        if shape is None or len(shape) != 4 or attributes(node).get("axis", -1) not in (1, -3):
            continue
        if draft.opset < 13 or 1 in shape[1:]:
            continue
        x, out = node.input[0], node.output[0]
        before, after = draft.unique(f"{out}/flat"), draft.unique(f"{out}/softmax")
        sizes = [
            draft.hold(f"{out}/{kind}", np.array(size, np.int64))
            for kind, size in (("pixels", (*shape[:2], -1)), ("image", shape))
        ]
        draft.before(node, draft.make("Reshape", [x, sizes[0]], before))
        draft.behind(node, draft.make("Reshape", [after, sizes[1]], out))
        node.input[0], node.output[0] = before, after
        node.name = after if node.name == out else node.name  # no two nodes of one name
        del node.attribute[:]
        node.attribute.append(_axis())
        count += 1
    return count


def _axis() -> Any:
    from onnx import helper

    return helper.make_attribute("axis", 1)
