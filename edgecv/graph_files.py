"""Formats of graph files: those that networks come in, the door of each, what is made of them.

An engine says which formats it reads (`edgecv.backends.Facts`). What is done otherwise for each
lies in for_<format>.py: of methods/export, and where such a graph is made int8, of
methods/quantize, diagnosis/parity and methods/qat. Folders on the Python path add to these too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgecv.backends import facts
from edgecv.errors import ModelError, UnsupportedError

if TYPE_CHECKING:
    from edgecv.target import Target

SOURCE = "source"  # what a clean copy is called in the folder of a step's result


@dataclass(frozen=True)
class FileKind:
    """A format in which a network comes as a graph file.

    called:  as messages say it
    becomes: formats of graph that are made of it for engines that do not read it
    torch:   whether it is read into PyTorch, of which every format is made
    way_out: what to do for other engines
    beside:  suffixes of files that belong to it
    pinned:  whether options pin its shapes and cut it
    """

    suffix: str
    called: str
    becomes: tuple[str, ...] = ()
    way_out: str = ""
    beside: tuple[str, ...] = ()
    pinned: bool = False
    torch: bool = False


FILES = {
    "onnx": FileKind(".onnx", "an .onnx file", pinned=True, torch=True),
    "tflite": FileKind(".tflite", "a .tflite file", ("onnx",)),
    "openvino": FileKind(
        ".xml", "OpenVINO IR", (),
        "take a target of OpenVINO (openvino, nuc), or bring the network that it was converted "
        "from as .onnx or PyTorch", (".bin",),
    ),
}  # fmt: skip


def read_into_pytorch(kind: str) -> bool:
    """Whether a network of that kind is a graph file that becomes a PyTorch network."""
    return kind in FILES and FILES[kind].torch


def is_pinned(kind: str) -> bool:
    """Whether options pin the shapes of a network of that kind, and cut it."""
    return kind in FILES and FILES[kind].pinned


def reaches(target: Target, kind: str) -> str:
    """The format in which a network reaches a target's engine: its profile's, or that of the file
    that comes, where the engine reads it too."""
    return kind if kind in facts(target.backend).also else target.graph


def reader(kind: str) -> str:
    """The module that makes graphs of other formats of a file; "" where PyTorch lies between."""
    room = find_spec(
        ".models.importing", __package__
    )  # the module's own name would import its room,
    assert room is not None  # and PyTorch with it
    folders = room.submodule_search_locations
    found = PathFinder.find_spec(f"edgecv.models.importing.from_{kind}", folders)
    return found.name if found else ""


@contextmanager
def brought(graph_format: str, what: str) -> Iterator[None]:
    """Meanwhile a for_<format>.py is imported. what: what it does with such graphs

    Raises UnsupportedError: who brought the format has none.
    """
    try:
        yield
    except ModuleNotFoundError as e:
        if not (e.name or "").endswith(f".for_{graph_format}"):
            raise
        name, hint = f"{graph_format} graphs", f"a for_{graph_format}.py does: docs/extending.md"
        raise UnsupportedError(name, f"nothing here {what} them", hint) from None


def loader(kind: str) -> str:
    """The module whose `load` checks a graph file of that kind and writes a clean copy."""
    return f"edgecv.methods.export.{kind}_file"


def graph_file(folder: Path) -> Path | None:
    """The clean copy of a user's graph file in a result's folder; None where the network is
    another's."""
    tries = (folder / f"{SOURCE}{kind.suffix}" for kind in FILES.values())
    return next((path for path in tries if path.is_file()), None)


def kind_of(path: Path) -> str:
    """The format of a graph file, by its suffix."""
    return next(kind for kind, of in FILES.items() if of.suffix == path.suffix)


def hint_to(path: Path) -> str:
    """Where a file that is not there may be: one beside it with nearly its name."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    try:
        beside = sorted(one.name for one in path.parent.iterdir())
    except OSError:  # it may not be listed
        beside = []
    near = difflib.get_close_matches(path.name, beside, 1, 0.8)
    if near:
        return f"did you mean {str(path.parent / near[0])!r}?"
    return "" if path.is_absolute() else "looked up in the working folder"


def absent(path: Path) -> ModelError:
    """What is raised for a network's file that is not there."""
    return ModelError(str(path), "no such file", hint_to(path))
