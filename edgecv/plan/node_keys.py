"""What keys of nodes hold: a stage, a network, a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from edgecv import data as datasets
from edgecv.backends import reference
from edgecv.graph_files import loader
from edgecv.keys.closure import code
from edgecv.methods.export._onnx_file import beside
from edgecv.models import zoo
from edgecv.models.edits import kinds
from edgecv.models.model_source import TORCH, ModelSource, locate
from edgecv.plan.store import Key
from edgecv.stages.base import Stage
from edgecv.target import Target


def stage_key(
    stage: Stage, measured: Sequence[Target] = (), graph: str = "", also: Sequence[str] = ()
) -> Key:
    """The stage's own part of a key. measured: targets on whose engines it measures; graph: the
    format that it writes, which has a reference engine; also: modules that run besides"""
    graphs = {target.graph for target in measured} | ({graph} if graph else set())
    engines = {target.backend for target in measured} | {reference(g) for g in graphs}
    own = [type(stage).__module__, *stage.modules()]
    roots = [*also, *own, *(["edgecv.measuring.run"] if measured else [])]
    key: Key = {"kind": stage.word, stage.word: stage.parameters()}
    return key | code(roots, engines, graphs=graphs)


def made_by(model: ModelSource) -> tuple[str, ...]:
    """Modules of ours that make the network a recipe names."""
    if model.is_graph:
        made = ("edgecv.methods.export.torch_program",) if model.kind in TORCH else ()
        return (loader(model.format), *made)
    if model.kind == "folder":
        return edit_modules(Path(model.name))
    return (zoo.module_of(model.name),) if model.kind == "zoo" else ()


def edit_modules(folder: Path) -> tuple[str, ...]:
    """Modules of the kinds of edit that a Model folder holds; none where it cannot be read."""
    try:
        edits = json.loads((folder / "model.json").read_text())["edits"]
        ops = sorted({str(edit["op"]) for edit in edits})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
    return tuple(kinds()[op] for op in ops if op in kinds())


def found_source(text: str, folder: Path) -> str:
    """A data source with its path looked up as recipes do."""
    kind, colon, argument = text.partition(":")
    if colon and kind in datasets.PATHS:
        return f"{kind}:{locate(argument, folder)}"
    return text


def file_digest(path: Path) -> str:
    """SHA-256 of a file, or of a Model folder's two files. "" when it is not there.

    Weights that an .onnx file keeps in files beside it count too.
    """
    files = [path / "model.json", path / "weights.safetensors"]
    if not path.is_dir():
        files = [path, *(beside(path) if path.suffix == ".onnx" else ())]
    sha = hashlib.sha256()
    for file in files:
        if not file.is_file():
            return ""
        with file.open("rb") as f:
            while block := f.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()
