"""What a .tflite file says of its image and its classes: TFLite Metadata.

Two parts, both optional: a flatbuffer in the buffer that Model.metadata calls TFLITE_METADATA
(`metadata_schema.fbs`, identifier "M001"), and a zip archive behind the model that holds the files
that the flatbuffer names, such as a list of labels. Fields are read by their number in the schema:

    ModelMetadata.subgraph_metadata 3 → SubGraphMetadata.input_tensor_metadata 2, output... 3
    → TensorMetadata.process_units 4, associated_files 6 → ProcessUnit.options_type 0, options 1
    → NormalizationOptions.mean 0, std 1;   AssociatedFile.name 0, type 2

A file without them says nothing, and damaged ones say nothing either: the network is not in them.
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

NAME, IDENTIFIER = b"TFLITE_METADATA", b"M001"
NORMALIZATION, LABELS = 1, 2  # ProcessUnitOptions; AssociatedFileType.TENSOR_AXIS_LABELS
LARGEST = 1 << 20  # bytes of a list of labels


@dataclass(frozen=True)
class Said:
    """mean, std: what pixels of 0..255 are normalised by, one value or one per channel; None where
    the file does not say. labels: of the first output's classes, or None."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None


def said(content: bytes, model: Any) -> Said:
    """What a file says. content: its bytes; model: the same as a ModelT"""
    entry = next((m for m in model.metadata or () if bytes(m.name or b"") == NAME), None)
    if entry is None:
        return Said()
    try:
        data = model.buffers[entry.buffer].data
        held = bytes(data) if data is not None else b""
        return _read(held, content) if held[4:8] == IDENTIFIER else Said()
    except (struct.error, IndexError, ValueError, OSError, zipfile.BadZipFile, NotImplementedError):
        return Said()


def _read(held: bytes, content: bytes) -> Said:
    subgraphs = _Table(held, struct.unpack_from("<I", held, 0)[0]).tables(3)
    if not subgraphs:
        return Said()
    inputs, outputs = subgraphs[0].tables(2), subgraphs[0].tables(3)
    mean = std = labels = None
    for unit in inputs[0].tables(4) if inputs else ():
        options = unit.table(1)
        if unit.byte(0) == NORMALIZATION and options is not None:
            mean, std = options.floats(0) or None, options.floats(1) or None
    for file in outputs[0].tables(6) if outputs else ():
        if file.byte(2) == LABELS and labels is None:
            labels = _labels(file.text(0), content)
    usable = mean is not None and std is not None and all(s > 0 for s in std)
    return Said(mean if usable else None, std if usable else None, labels)


def _labels(name: str, content: bytes) -> tuple[str, ...] | None:
    """The lines of a file in the archive behind the model."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if name not in archive.namelist() or archive.getinfo(name).file_size > LARGEST:
            return None
        lines = archive.read(name).decode("utf-8").splitlines()
    found = tuple(line.strip() for line in lines)
    return found if found and all(found) else None


class _Table:
    """A table of a flatbuffer, read by the numbers of its fields; absent fields are empty."""

    def __init__(self, held: bytes, at: int) -> None:
        self._held, self._at = held, at
        self._vtable = at - struct.unpack_from("<i", held, at)[0]
        if self._vtable < 0:
            raise ValueError("damaged")

    def _place(self, field: int) -> int:
        """Where a field lies; 0 where the table has none."""
        (size,) = struct.unpack_from("<H", self._held, self._vtable)
        if 4 + 2 * field + 2 > size:
            return 0
        (offset,) = struct.unpack_from("<H", self._held, self._vtable + 4 + 2 * field)
        return self._at + int(offset) if offset else 0

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        """(where a vector begins, how many elements of that size); checked against the bytes."""
        place = self._place(field)
        if not place:
            return 0, 0
        start = place + struct.unpack_from("<I", self._held, place)[0]
        (count,) = struct.unpack_from("<I", self._held, start)
        if start + 4 + count * size > len(self._held):
            raise ValueError("damaged")
        return start + 4, int(count)

    def byte(self, field: int) -> int:
        place = self._place(field)
        return self._held[place] if place else 0

    def text(self, field: int) -> str:
        start, count = self._vector(field, 1)
        return self._held[start : start + count].decode("utf-8")

    def floats(self, field: int) -> tuple[float, ...]:
        start, count = self._vector(field, 4)
        return struct.unpack_from(f"<{count}f", self._held, start)

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return self._follow(place) if place else None

    def tables(self, field: int) -> list[_Table]:
        start, count = self._vector(field, 4)
        return [self._follow(start + 4 * i) for i in range(count)]

    def _follow(self, place: int) -> _Table:
        return _Table(self._held, place + struct.unpack_from("<I", self._held, place)[0])
