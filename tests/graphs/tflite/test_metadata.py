"""What TFLite Metadata says of pixels and classes; damaged, it says nothing and nothing breaks."""

from __future__ import annotations

import io
import zipfile

import flatbuffers
import pytest

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.metadata import Said, said
from tests.backends.tflite_graphs import float_graph


def table(b: flatbuffers.Builder, fields: dict[int, tuple[str, int]]) -> int:
    """A table: field -> ("offset" or "byte", value)."""
    b.StartObject(max(fields) + 1)
    for number, (kind, value) in fields.items():
        if kind == "offset":
            b.PrependUOffsetTRelativeSlot(number, value, 0)
        else:
            b.PrependByteSlot(number, value, 0)
    return b.EndObject()


def vector(b: flatbuffers.Builder, items: list[int]) -> int:
    b.StartVector(4, len(items), 4)
    for item in reversed(items):
        b.PrependUOffsetTRelative(item)
    return b.EndVector()


def floats(b: flatbuffers.Builder, values: list[float]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependFloat32(value)
    return b.EndVector()


def metadata(mean: list[float], std: list[float], labels: str) -> bytes:
    b = flatbuffers.Builder(0)
    given = {0: ("offset", floats(b, mean)), 1: ("offset", floats(b, std))}
    options = table(b, given)
    unit = table(b, {0: ("byte", 1), 1: ("offset", options)})
    image = table(b, {4: ("offset", vector(b, [unit]))})
    file = table(b, {0: ("offset", b.CreateString(labels)), 2: ("byte", 2)})
    scores = table(b, {6: ("offset", vector(b, [file]))})
    both = {2: ("offset", vector(b, [image])), 3: ("offset", vector(b, [scores]))}
    subgraph = table(b, both)
    root = table(b, {3: ("offset", vector(b, [subgraph]))})
    b.Finish(root, file_identifier=b"M001")
    return bytes(b.Output())


def with_metadata(held: bytes, files: dict[str, str]) -> bytes:
    """The float network with that metadata, and files in an archive behind it."""
    model = flatbuffer.read(float_graph().path)
    buffer, entry = flatbuffer.new("BufferT"), flatbuffer.new("MetadataT")
    buffer.data = list(held)
    model.buffers.append(buffer)
    entry.name, entry.buffer = b"TFLITE_METADATA", len(model.buffers) - 1
    model.metadata = [entry]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        for name, text in files.items():
            z.writestr(name, text)
    return flatbuffer.written(model) + archive.getvalue()


def read(content: bytes) -> Said:
    return said(content, flatbuffer.parse(content, "net.tflite"))


def test_normalisation_and_labels_are_read():
    content = with_metadata(metadata([127.5], [127.5], "l.txt"), {"l.txt": "cat\ndog\n"})
    assert read(content) == Said((127.5,), (127.5,), ("cat", "dog"))


def test_a_file_without_metadata_says_nothing():
    assert read(float_graph().path.read_bytes()) == Said()


@pytest.mark.parametrize("cut", range(8, 200, 12))
def test_damaged_metadata_says_nothing_or_what_is_left(cut: int):
    held = metadata([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], "l.txt")
    found = read(with_metadata(held[:cut], {}))
    assert found.labels is None
    assert found.mean in (None, (1.0, 2.0, 3.0))


@pytest.mark.parametrize(("mean", "std"), [([1.0], []), ([1.0], [0.0])])
def test_a_normalisation_that_cannot_be_is_none(mean: list[float], std: list[float]):
    assert read(with_metadata(metadata(mean, std, "l.txt"), {})) == Said()
