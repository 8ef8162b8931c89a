"""An .onnx file as a torch network: `onnx_to_torch(path)`.

The graph of a convolutional network (opset 11 or later, float32, static size) becomes a
torch.fx.GraphModule: Conv, Gemm and BatchNormalization are nn.Conv2d, nn.Linear and
nn.BatchNorm2d with real Parameters, everything else is a function call, so later stages and
converters (torch.export, TFLite) see an ordinary network. One table (`operators.py`) says which
ONNX operator is read by which function (semantics: onnx/docs/Operators.md); an operator that is
not in it is refused by name. What depends on constants only (Shape, Gather, Concat of sizes) is
computed while reading.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from edgecv.errors import ModelError, UnsupportedError
from edgecv.models.importing.operators import OPERATORS
from edgecv.models.importing.reader import Reader

__all__ = ["onnx_to_torch"]

MIN_OPSET = 11


def onnx_to_torch(path: Path, where: str = "") -> nn.Module:
    """The network in `path`, in evaluation mode; float (N, ...) in and out, any batch N.

    Its inputs, in the order of its arguments, are `edgecv.examples.inputs_of(module)`.
    where: what errors call the file; its own path if left out
    Raises ModelError where the file is damaged, too old or has dynamic sizes, UnsupportedError
    naming the node and the operator that cannot be read.
    """
    where = where or str(path)
    return Reader(_load(Path(path), where), where).read(OPERATORS)


def _load(path: Path, where: str) -> onnx.ModelProto:
    """A checked model with a batch of one."""
    if not path.is_file():
        raise ModelError(where, "no such file")
    model = _checked(where, lambda: onnx.load(path))
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < MIN_OPSET:
        hint = "export it again with a later opset"
        raise ModelError(where, f"opset {opset} is older than {MIN_OPSET}", hint)
    constant = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in constant:
            _check_input(where, value)
    for value in model.graph.output:  # exporters leave it out, and the checker asks for one
        value.type.tensor_type.shape.SetInParent()
    _checked(where, lambda: onnx.checker.check_model(model))
    return model


def _checked(where: str, step: Callable[[], Any]) -> Any:
    try:
        return step()
    except Exception as error:  # protobuf's DecodeError and onnx's own share no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(where, f"not a valid ONNX file: {lines[0]}") from error


def _check_input(where: str, value: onnx.ValueInfoProto) -> None:
    """Float32 and static but for the batch, which becomes 1."""
    tensor = value.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise UnsupportedError(where, f"input {value.name!r} is {kind}", "it must be float32")
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.dim_value > 0:
            continue
        if axis > 0 or len(tensor.shape.dim) < 2:
            hint = "export it again with a fixed height and width"
            raise ModelError(where, f"input {value.name!r} has a dynamic axis {axis}", hint)
        dim.dim_value = 1
    if not tensor.shape.dim:
        raise ModelError(where, f"input {value.name!r} has no shape", "export it with a fixed size")
