"""A user's .onnx file off the disk: whether it is one, and the weights that lie beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecv.errors import EdgecvError, ModelError, one_line
from edgecv.graph_files import absent

MOST = (1 << 31) - 1  # bytes: protobuf writes no message of more, and every engine is handed one
GB = 1e9
# How files begin that are taken for networks: the byte, what stands there, what it is, the way out.
_OTHERS = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the file", "fetch it: git lfs pull"),
    (0, b"<", "is a web page or XML, not a network", "download the file itself"),
    (0, b"{", "is JSON, not a network", "export it to ONNX"),
    (0, b"PK\x03\x04", "is a zip archive, as PyTorch and Keras write them",
     "export the network to ONNX: torch.onnx.export"),
    (0, b"\x80\x02", "is a pickle, as PyTorch writes them, which is never loaded",
     "export the network to ONNX: torch.onnx.export"),
    (0, b"\x89HDF", "is an HDF5 file, as Keras writes them", "export the network to ONNX"),
    (0, b"\x1f\x8b", "is compressed (gzip)", "unpack it"),
    (4, b"TFL3", "is a TFLite file", "bring the .onnx file that it was made of"),
    (8, b'{"', "is safetensors: weights without their network", "export the network to ONNX"),
)  # fmt: skip


def read_file(path: Path) -> Any:
    """The onnx.ModelProto in a file, weights beside it not yet read.

    Raises ModelError: no such file, larger than 2 GB, another kind of file, damaged.
    """
    import onnx

    where = path.name
    if not path.is_file():
        raise absent(path)
    if (size := path.stat().st_size) > MOST:
        raise ModelError(where, f"is {size / GB:.1f} GB: a network of more than 2 GB has no form "
                         "that the engines can be handed", "take a smaller network")  # fmt: skip
    with path.open("rb") as file:
        begin = file.read(64)
    for at, word, what, hint in _OTHERS:
        if (begin.lstrip() if word == b"<" else begin)[at:].startswith(word):
            raise ModelError(where, what, hint)
    try:
        model = onnx.load_model(str(path), load_external_data=False)
        if not model.graph.node:
            raise ValueError("the graph has no nodes")
    except Exception:  # protobuf's words say nothing of the file
        what = "not a whole ONNX file"
        raise ModelError(where, what, "truncated? copy or export it again") from None
    return model


def inline_external(model: Any, folder: Path, where: str) -> None:
    """Read external weights in place; they may not lie outside the model's folder.

    Raises ModelError: a file that is not there or too short, more than 2 GB in all.
    """
    from onnx import external_data_helper as external

    root = folder.resolve()
    away = [t for t in tensors(model.graph) if external.uses_external_data(t)]
    total = sum(_bytes(tensor, root, where) for tensor in away)
    if total + model.ByteSize() > MOST:
        raise ModelError(where, f"holds {total / GB:.1f} GB of weights: a network of more than "
                         "2 GB has no form that the engines can be handed",
                         "take a smaller network, or export it in float16")  # fmt: skip
    for tensor in away:
        try:
            external.load_external_data_for_tensor(tensor, str(root))
        except Exception as e:
            name = external.ExternalDataInfo(tensor).location
            why = one_line(e)
            raise ModelError(
                f"{where}: {tensor.name}", f"cannot read its weights from {name!r}: {why}"
            ) from None
        tensor.data_location = type(tensor).DEFAULT
        del tensor.external_data[:]


def _bytes(tensor: Any, root: Path, where: str) -> int:
    """How many bytes a tensor holds in the file beside it. Raises ModelError."""
    given = {e.key: e.value for e in tensor.external_data}
    name, place = given.get("location", ""), f"{where}: {tensor.name}"
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise ModelError(place, f"its weights are outside the model's folder: {name!r}",
                         "put the data file beside the .onnx file")  # fmt: skip
    if not path.is_file():
        raise ModelError(place, f"its weights are in {name!r}, and there is no such file",
                         "put the data file beside the .onnx file")  # fmt: skip
    size = path.stat().st_size
    try:
        offset = int(given.get("offset") or 0)
        length = int(given.get("length") or size - offset)
    except ValueError:
        offset = length = -1
    if min(offset, length) < 0 or offset + length > size:
        raise ModelError(place, f"its weights are not in {name!r}, which has {size:,} bytes",
                         "truncated? copy or export both again")  # fmt: skip
    return length


def beside(path: Path) -> list[Path]:
    """The files that hold an .onnx file's weights; none where it cannot be read."""
    try:
        model = read_file(path)
    except EdgecvError:  # whatever is wrong with the file is said when the model is made
        return []
    kept = {
        e.value for t in tensors(model.graph) for e in t.external_data if e.key == "location"
    }  # fmt: skip
    return [path.parent / name for name in sorted(kept)]


def tensors(graph: Any) -> Iterator[Any]:
    """Every weight: initializers and Constant attributes, subgraphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                attribute.t.name = attribute.t.name or node.output[0]
                yield attribute.t
            yield from attribute.tensors
            for sub in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from tensors(sub)
