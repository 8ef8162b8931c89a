"""How a user's .onnx file begins: one image, static, float32 (1, C, H, W) for all that follows.

A file that takes its image channels-last, or as bytes, keeps doing so behind a Transpose; the image
goes in as (1, C, H, W) all the same, bytes as floats of 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.errors import ModelError
from edgecv.graphs.onnx.draft import body_reads

# What only arranges values, whatever their type.
MOVES = ("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Slice", "Flatten", "Split")


@dataclass(frozen=True)
class Entry:
    """What the file itself takes. bytes: pixels as they are, uint8; last: channels-last."""

    bytes: bool
    last: bool
    kind: np.dtype[Any]

    def taken(self, image: np.ndarray) -> np.ndarray:
        """An image (1, C, H, W) as the file takes it."""
        image = image.transpose(0, 2, 3, 1) if self.last else image
        return np.ascontiguousarray(image.astype(self.kind))

    def facts(self) -> dict[str, Any]:
        return {"takes": "bytes"} if self.bytes else {}


def enter(model: Any, where: str, layout: str | None = None) -> Entry:
    """Make the model, whose inputs are static, take one float32 image (1, C, H, W), in place.

    layout: of its image, "NCHW" or "NHWC"
    Raises ModelError: several inputs, no image, a batch of several.
    """
    import onnx

    graph = model.graph
    weights = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in weights]
    del graph.input[:]  # old files list their weights here, which keeps them from folding
    graph.input.extend(inputs)
    if len(graph.input) != 1:
        names = ", ".join(repr(i.name) for i in graph.input) or "none"
        raise ModelError(where, f"needs one input, has {len(graph.input)}: {names}",
                         "export it with the image alone (onnx.utils.extract_model cuts the part "
                         "that reads it; make the others constants)")  # fmt: skip
    if any(o.name == graph.input[0].name for o in graph.output):
        raise ModelError(f"{where}: output {graph.input[0].name!r}", "is the image that came in",
                         "leave it out of the graph's outputs")  # fmt: skip
    source = graph.input[0]
    place, tensor = f"{where}: input {source.name!r}", source.type.tensor_type
    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE,
             onnx.TensorProto.UINT8}  # fmt: skip
    if tensor.elem_type not in kinds or len(tensor.shape.dim) != 4:
        raise ModelError(place, "must be one image of shape (1, C, H, W) or (1, H, W, C), floats "
                         "or uint8")  # fmt: skip
    if (batch := tensor.shape.dim[0].dim_value) != 1:
        raise ModelError(place, f"batch is fixed to {batch}", "export with batch 1")
    last = layout == "NHWC"
    entry = Entry(
        tensor.elem_type == onnx.TensorProto.UINT8,
        last,
        np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
    )
    if entry.bytes or last:
        _adapt(graph, source, entry)
    # Whatever the file says of later shapes may be for another batch.
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.shape.SetInParent()
        for dim in output.type.tensor_type.shape.dim:
            dim.ClearField("dim_value")
            dim.ClearField("dim_param")
    return entry


def _adapt(graph: Any, source: Any, entry: Entry) -> None:
    """The image as (1, C, H, W) floats, and in front of the old readers what they take."""
    import onnx

    name, dims = source.name, [d.dim_value for d in source.type.tensor_type.shape.dim]
    taken = {n for node in graph.node for n in (*node.input, *node.output)}
    inner = _free(f"{name}/as_it_was", taken)
    for node in graph.node:
        for i, read in enumerate(node.input):
            if read == name:
                node.input[i] = inner
    steps: list[tuple[str, dict[str, Any]]] = []
    if entry.last:
        steps.append(("Transpose", {"perm": [0, 2, 3, 1]}))
        dims = [dims[0], dims[3], dims[1], dims[2]]
    if entry.bytes and not _only_cast(graph, inner):
        steps += [("Round", {}), ("Cast", {"to": onnx.TensorProto.UINT8})]
    steps = steps or [("Identity", {})]
    x = name
    for i, (op, given) in enumerate(steps):
        out = inner if i == len(steps) - 1 else _free(f"{name}/{op.lower()}", taken)
        graph.node.insert(i, onnx.helper.make_node(op, [x], [out], out, **given))
        x = out
    made = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
    if not entry.bytes:
        made.type.tensor_type.elem_type = source.type.tensor_type.elem_type
    source.CopyFrom(made)


def _only_cast(graph: Any, name: str) -> bool:
    """Whether bytes are made floats before anything is computed of them."""
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    for node in graph.node:
        if name not in node.input:
            continue
        to = next((a.i for a in node.attribute if a.name == "to"), 0)
        if node.op_type == "Cast" and to in floats:
            continue
        if node.op_type not in MOVES or node.input[0] != name:
            return False
        if not all(_only_cast(graph, out) for out in node.output):
            return False
    return all(o.name != name for o in graph.output)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def depends(graph: Any, name: str) -> bool:
    """Whether a tensor is computed of the image."""
    reached = {i.name for i in graph.input}
    for node in graph.node:  # in the order they run
        if reached & ({*node.input} | body_reads(node)):
            reached |= {*node.output}
    return name in reached
