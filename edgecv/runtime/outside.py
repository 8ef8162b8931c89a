"""Does a file of an engine point at another file? In a bundle nothing may: what it reads is what
was signed by the manifest's digests.

An .onnx file can keep a tensor elsewhere (TensorProto.external_data, whose key "location" is a
path), and an engine that is handed the bytes alone looks for it in the working folder. A .tflite
file can name groups of external buffers (Model.external_buffer_groups), files beside it.

Imported on devices: the standard library only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edgecv.backends import ENGINES, facts
from edgecv.graphs.onnx import wire

LOCATION = b"location"
EXTERNAL = 1  # TensorProto.DataLocation
# A message of onnx.proto -> field -> what lies there.
_MODEL = {7: "graph", 25: "function"}
_INSIDE = {
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 6: "graph", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
TENSOR_NAME, TENSOR_EXTERNAL, TENSOR_LOCATION = 8, 13, 14
DEPTH = 64
# Fields of the table Model in LiteRT's schema.fbs: groups of external buffers, and the buffers.
GROUPS, BUFFERS = 8, 9


def points_outside(engine: str, name: str, content: bytes) -> str:
    """Which tensor of the file lies elsewhere, in words; "" when all is inside.

    A file of OpenVINO's must be XML or weights: an .onnx file under its name would be read as one.
    """
    kind = facts(engine).format if engine in ENGINES else ""
    if kind == "openvino" and name.endswith(".xml"):
        return "" if content.lstrip()[:1] == b"<" else "is no OpenVINO .xml"
    if kind == "tflite":
        return _tflite(content)
    if not name.endswith(".onnx") and kind != "onnx":
        return ""
    if LOCATION not in content:
        return ""
    try:
        tensor = next(_external(memoryview(content), _MODEL, 0), None)
    except (ValueError, UnicodeDecodeError):
        return "is no .onnx file"
    return "" if tensor is None else f"keeps tensor {tensor!r:.80} in another file"


def _tflite(content: bytes) -> str:
    """A flatbuffer's first table has a vtable of 16-bit offsets, one for each field; 0 is none."""
    try:
        (table,) = struct.unpack_from("<I", content, 0)
        (back,) = struct.unpack_from("<i", content, table)
        (size,) = struct.unpack_from("<H", content, table - back)
        for field in (GROUPS, BUFFERS):
            place = 4 + 2 * field
            if place + 2 > size:
                continue
            (offset,) = struct.unpack_from("<H", content, table - back + place)
            if offset and _entries(content, table + offset):
                return "keeps weights in another file (external buffers)"
    except struct.error:
        return ""  # damaged: the engine says so
    return ""


def _entries(content: bytes, at: int) -> int:
    """How many entries the vector has that the field at that place points to."""
    (offset,) = struct.unpack_from("<I", content, at)
    (count,) = struct.unpack_from("<I", content, at + offset)
    return int(count)


def _external(message: memoryview, fields: dict[int, str], depth: int) -> Iterator[str]:
    """Names of tensors whose values are in another file."""
    if depth > DEPTH:
        raise ValueError("too deep")
    for number, value in wire.fields(message):
        kind = fields.get(number)
        if kind is None or isinstance(value, int):
            continue
        if kind != "tensor":
            yield from _external(value, _INSIDE[kind], depth + 1)
        elif (name := _elsewhere(value)) is not None:
            yield name


def _elsewhere(tensor: memoryview) -> str | None:
    name, away = "", False
    for number, value in wire.fields(tensor):
        if number == TENSOR_NAME and not isinstance(value, int):
            name = bytes(value).decode(errors="replace")
        elif number == TENSOR_EXTERNAL or (number == TENSOR_LOCATION and value == EXTERNAL):
            away = True
    return name if away else None
