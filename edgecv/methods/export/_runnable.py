"""What valid ONNX says in ways that ONNX Runtime does not run, said so that it does.

- A container of a newer version than its opsets ask for: the version that they ask for.
- Two nodes of one name: the second gets a number behind it.
- SAME of a dilated convolution with stride 1, whatever the image's size:
  total = (k - 1) d, the odd one at the end for SAME_UPPER, at the beginning for SAME_LOWER
"""

from __future__ import annotations

from typing import Any

from edgecv.graphs.onnx.canonical.windows import SAME, halved
from edgecv.graphs.onnx.draft import attributes, bodies, write_attributes

OLD_IR = 10  # which every runtime reads


def make_runnable(model: Any) -> None:
    """Edit an onnx.ModelProto in place; what it answers stays."""
    import onnx

    needed = onnx.helper.find_min_ir_version_for(list(model.opset_import), True)
    model.ir_version = min(model.ir_version, max(OLD_IR, needed))
    _name_apart(model.graph, set())
    explicit_same(model, dilated=True)


def explicit_same(model: Any, dilated: bool = False) -> Any:
    """Write auto_pad of convolutions with stride 1 out as numbers, in place; the model.

    dilated: of dilated ones alone
    """
    weights = {t.name: t.dims for t in model.graph.initializer}
    for node in model.graph.node:
        given = attributes(node)
        auto, steps = given.get("auto_pad"), given.get("dilations", [1])
        if node.op_type != "Conv" or auto not in SAME or max(given.get("strides", [1])) > 1:
            continue
        kernel = list(given.get("kernel_shape") or weights.get(node.input[1], ())[2:])
        if not kernel or (dilated and max(steps) == 1):
            continue
        steps = steps if len(steps) == len(kernel) else [1] * len(kernel)
        spans = [d * (k - 1) for d, k in zip(steps, kernel, strict=True)]
        write_attributes(node, {"auto_pad": None, "pads": halved(spans, auto == "SAME_UPPER")})
    return model


def _name_apart(graph: Any, taken: set[str]) -> None:
    for node in graph.node:
        if node.name:
            name, number = node.name, 2
            while node.name in taken:
                node.name, number = f"{name}_{number}", number + 1
            taken.add(node.name)
        for inner in bodies(node):
            _name_apart(inner, set())
