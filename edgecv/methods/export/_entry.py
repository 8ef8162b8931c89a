"""How a user's .onnx file begins: static inputs, the image as float32 (N, C, H, W) for all that
follows.

A file that takes its image channels-last, or as bytes, keeps doing so behind a Transpose; the image
goes in as (N, C, H, W) all the same, bytes as floats of 0 to 255. Inputs that are no image stay as
they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.errors import ModelError
from edgecv.graphs.onnx.draft import body_reads
from edgecv.runtime.spec import IMAGE_CHANNELS, TensorSpec

# What only arranges values, whatever their type.
MOVES = ("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Slice", "Flatten", "Split")
KINDS = ("float32", "float16", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
IMAGES = ("float32", "float16", "float64", "uint8")


@dataclass(frozen=True)
class Entry:
    """What the file itself takes, input by input. image: the one whose channels come last, or that
    is bytes, goes in otherwise; None where no input is an image."""

    inputs: tuple[TensorSpec, ...]
    image: str | None

    @property
    def source(self) -> TensorSpec | None:
        """The image, as the file has it."""
        return next((s for s in self.inputs if s.name == self.image), None)

    @property
    def bytes(self) -> bool:
        return self.source is not None and self.source.dtype == "uint8"

    @property
    def last(self) -> bool:
        return self.source is not None and self.source.layout == "NHWC"

    def taken(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A feed of the graph that was made, as the file takes it."""
        found = {}
        for spec in self.inputs:
            values = feed[spec.name]
            if self.last and spec.name == self.image:
                values = values.transpose(0, 2, 3, 1)
            found[spec.name] = np.asarray(values, spec.dtype, order="C")
        return found

    def facts(self) -> dict[str, Any]:
        takes = {"takes": "bytes"} if self.bytes else {}
        return {**takes, "own": {"inputs": [s.to_json() for s in self.inputs]}}


def enter(model: Any, where: str, layout: str | None = None) -> Entry:
    """Make the image of a model, whose inputs are static, float32 (N, C, H, W), in place.

    layout: of its first input of four axes, "NCHW" or "NHWC"
    Raises ModelError: no input, an output that is an input, a type that is no number.
    """
    graph = model.graph
    weights = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in weights]
    del graph.input[:]  # old files list their weights here, which keeps them from folding
    graph.input.extend(inputs)
    if not graph.input:
        raise ModelError(where, "has no input", "export it with its image as an input")
    names = {i.name for i in graph.input}
    for output in graph.output:
        if output.name in names:
            raise ModelError(f"{where}: output {output.name!r}", "is an input that came in",
                             "leave it out of the graph's outputs")  # fmt: skip
    image = _image(graph.input)
    first = next(iter(_maps(graph.input)), None)  # whose layout is known
    layout = layout if image is first else None
    found = tuple(_spec(i, where, i is image, layout) for i in graph.input)
    entry = Entry(found, image.name if image is not None else None)
    if image is not None and (entry.bytes or entry.last):
        _adapt(graph, image, entry)
    # Whatever the file says of later shapes may be for another batch.
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.shape.SetInParent()
        for dim in output.type.tensor_type.shape.dim:
            dim.ClearField("dim_value")
            dim.ClearField("dim_param")
    return entry


def _image(inputs: Any) -> Any:
    """The input that takes the image (`edgecv.runtime.spec.image_of`)."""
    maps = _maps(inputs)
    if len(maps) < 2:
        return maps[0] if maps else None
    for value in maps:
        dims = value.type.tensor_type.shape.dim
        channels = dims[3 if _last(dims) else 1].dim_value
        if 0 < channels <= IMAGE_CHANNELS:
            return value
    return None


def _kind(value: Any) -> str:
    """The numpy dtype of a graph's input; "" where it is no tensor of numbers."""
    import onnx

    if not value.type.HasField("tensor_type"):
        return ""
    try:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    except KeyError:
        return ""
    return str(np.dtype(kind).name)


def _last(dims: Any) -> bool:
    """Whether an image's channels come last."""
    channels = range(1, IMAGE_CHANNELS + 1)
    return dims[3].dim_value in channels and dims[1].dim_value not in channels


def _maps(inputs: Any) -> list[Any]:
    return [i for i in inputs if len(i.type.tensor_type.shape.dim) == 4 and _kind(i) in IMAGES]


def _spec(value: Any, where: str, image: bool, layout: str | None) -> TensorSpec:
    kind, dims = _kind(value), value.type.tensor_type.shape.dim
    if kind not in KINDS:
        what = f"is {kind or 'no tensor of numbers'}"
        raise ModelError(f"{where}: input {value.name!r}", what, "export it with numbers")
    found = "NC"
    if image:
        found = layout or ("NHWC" if _last(dims) else "NCHW")
    return TensorSpec(value.name, kind, tuple(d.dim_value for d in dims), found)


def _adapt(graph: Any, source: Any, entry: Entry) -> None:
    """The image as (N, C, H, W) floats, and in front of the old readers what they take."""
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
