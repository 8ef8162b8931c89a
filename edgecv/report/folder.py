"""A run's folder as the report reads it: results.json, and what the store still holds.

    DIR/results.json           needed
    DIR/store/done/<digest>/   predictions, graphs, images, layers: each may be missing

Nothing that is read here is trusted: a digest that is no digest names no folder.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import __version__
from edgecv.data.images import Images
from edgecv.errors import DataError
from edgecv.report import shape
from edgecv.runtime.shape import load as load_json

log = logging.getLogger(__name__)
SCHEMA = 2
RENAMED = {"told": "summary"}  # of models, since edgecv 0.2
Row = dict[str, Any]
Node = dict[str, Any]


def load(folder: Path) -> dict[str, Any]:
    """results.json of a run's folder. Raises DataError: absent, damaged, newer."""
    path = folder / "results.json"
    try:
        data = load_json(path)
    except (FileNotFoundError, NotADirectoryError):
        hint = "give the folder that `edgecv run` wrote into"
        raise DataError(str(folder), "holds no results.json", hint) from None
    except OSError as e:
        raise DataError(str(path), f"cannot be read: {e.strerror}") from None
    except ValueError as e:
        raise _damaged(path, str(e)) from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is not int or schema < 1:
        raise _damaged(path, f"schema {schema!r} is not a number from 1 up")
    if schema > SCHEMA:
        hint = f"take a newer edgecv: this is {__version__}"
        raise DataError(str(path), f"schema {schema} is newer than {SCHEMA}", hint)
    if problem := shape.wrong(data, shape.RESULTS):
        raise _damaged(path, problem)
    _rename(path, data.get("models") or [])
    return dict(data)


def _rename(path: Path, models: list[dict[str, Any]]) -> None:
    """Fields that edgecv 0.1 called otherwise, by their name of today."""
    for old, new in RENAMED.items():
        if any(old in model for model in models):
            log.warning("%s: %r of models is %r now; edgecv 0.3 reads the new name alone: run the "
                        "recipe again", path, old, new)  # fmt: skip
        for model in models:
            if old in model:
                model.setdefault(new, model.pop(old))


def _damaged(path: Path, what: str) -> DataError:
    return DataError(str(path), what, "run the recipe again: what it made is reused")


class Run:
    """Where the results of a run's nodes lie. Everything answers None for what is not there."""

    def __init__(self, folder: Path, data: dict[str, Any]) -> None:
        self.folder, self.data = folder, data
        self.nodes: dict[str, Node] = {n["id"]: n for n in data.get("nodes") or []}
        # As commands on a page name it: a page is shown to others, and holds no path of a machine.
        self.called = Path(folder.name) if folder.is_absolute() else folder

    def place(self, node: str | None) -> Path | None:
        """The folder of a node's result."""
        digest = self.nodes.get(node or "", {}).get("digest", "")
        if not re.fullmatch(r"[0-9a-f]{8,64}", digest):
            return None
        path = self.folder / "store" / "done" / digest
        return path if path.is_dir() else None

    def bundle(self, row: Row) -> Node | None:
        """The node that made a row's bundle."""
        return self._find("bundle", row["step"], row["target"])

    def measure(self, target: str) -> Node | None:
        return self._find("measure", "", target)

    def _find(self, kind: str, step: str, target: str) -> Node | None:
        wanted = (kind, step, target)
        for node in self.nodes.values():
            if (node["kind"], node.get("step", ""), node.get("target")) == wanted:
                return node
        return None

    def json(self, node: str | None, name: str) -> dict[str, Any]:
        """A JSON file of a node's result; {} when it is absent or damaged."""
        place = self.place(node)
        try:
            data = load_json(place / name) if place else {}
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def graph(self, node: str | None) -> Path | None:
        """The file of a graph node."""
        place, name = self.place(node), self.json(node, "graph.json").get("file")
        if place is None or not isinstance(name, str) or Path(name).name != name:
            return None
        return place / name if (place / name).is_file() else None

    def bundle_file(self, node: Node) -> Path | None:
        place, name = self.place(node["id"]), self.json(node["id"], "facts.json").get("bundle")
        if place is None or not isinstance(name, str) or Path(name).name != name:
            return None
        return place / name if (place / name).is_file() else None

    def predictions(self, node: Node | None) -> np.ndarray | None:
        """int (images,): the class that the bundle answered for every test image."""
        place = self.place(node["id"]) if node else None
        try:
            answers = np.load(place / "predictions.npy", allow_pickle=False) if place else None
        except (OSError, ValueError):
            return None
        if answers is None or answers.ndim != 1 or answers.dtype.kind != "i" or not len(answers):
            return None
        return answers if answers.min() >= 0 else None

    def images(self, node: Node) -> Images | None:
        """The test images that a bundle node was measured on."""
        place = self.place(node["inputs"].get("test"))
        try:
            return Images.load(place) if place else None
        except DataError:
            return None

    def float_graph(self, node: Node) -> str | None:
        """The float graph's node that a bundle's graph was made from, or is."""
        graph = node["inputs"].get("graph")
        quantized = self.nodes.get(graph or "")
        if quantized is not None and quantized["kind"] == "quantize":
            return str(quantized["inputs"].get("graph"))
        return graph
