"""Networks that come as graph files: the formats, and the door of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SOURCE = "source"  # what a clean copy is called in the folder of a step's result


@dataclass(frozen=True)
class FileKind:
    """A format in which a network comes as a graph file.

    called:  as messages say it
    becomes: formats of graph that are made of it for engines that do not read it
    way_out: what to do for other engines
    """

    suffix: str
    called: str
    becomes: tuple[str, ...] = ()
    way_out: str = ""


FILES = {
    "onnx": FileKind(".onnx", "an .onnx file", ("tflite",)),
    "tflite": FileKind(".tflite", "a .tflite file", ("onnx",)),
    "openvino": FileKind(
        ".xml", "OpenVINO IR", (),
        "take a target of OpenVINO (openvino, nuc), or bring the network that it was converted "
        "from as .onnx or PyTorch",
    ),
}  # fmt: skip


def loader(kind: str) -> str:
    """The module whose `load` checks a graph file of that kind and writes a clean copy."""
    return f"edgecv.stages.export.{kind}_file"


def graph_file(folder: Path) -> Path | None:
    """The clean copy of a user's graph file in a result's folder; None where the network is
    another's."""
    tries = (folder / f"{SOURCE}{kind.suffix}" for kind in FILES.values())
    return next((path for path in tries if path.is_file()), None)


def kind_of(path: Path) -> str:
    """The format of a graph file, by its suffix."""
    return next(kind for kind, of in FILES.items() if of.suffix == path.suffix)
