"""A network that comes as a file of a graph."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from edgecv.data.images import Images
from edgecv.errors import ModelError
from edgecv.graph import OWN, Graph
from edgecv.graph_files import SOURCE, loader
from edgecv.models.model_source import ModelSource
from edgecv.plan.makers.work import Work
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import image_of, plain


def from_graph(work: Work, source: ModelSource) -> None:
    """A clean copy and not the file: weights that lie beside it come along, and what is wrong
    with it is said under its own name."""
    preprocess, path = work.preprocess(), Path(source.name)
    pins = replace(source.pins, size=preprocess.size)
    graph = import_module(loader(source.kind)).load(path, work.out, pins)
    _check_input(path.name, graph, preprocess)
    _check_normalisation(path.name, graph, preprocess)
    images = Images.load(work.images["train"])
    recipe = work.expansion.recipe
    classifies = images.truth is None and recipe.task in (None, "classification")
    if tuple(graph.facts.get("input", {}).get("labels") or ()) == recipe.labels:
        # a file that names its classes may hold boxes: nobody has said that it classifies
        classifies &= kinds(graph.outputs)[graph.outputs[0].name] == "classes"
    classes = len(recipe.labels or images.classes) if classifies else 0
    shape = plain(graph.outputs[0]).shape or (1,)
    outputs = shape[1] if len(shape) == 4 else shape[-1]
    if classes and outputs != classes:
        raise ModelError(
            path.name,
            f"has {outputs} outputs and the data {classes} classes",
            "use the data it was made for; data: {images: FOLDER} asks for no classes",
        )
    kept = graph.copied(work.out, SOURCE)
    for old in graph.beside:
        old.unlink()
    kept.save_facts()
    (work.out / OWN).write_text(json.dumps(graph.facts["own"], sort_keys=True))


def from_torch(work: Work, source: ModelSource) -> None:
    """A file of torch.jit.save or torch.export.save as an .onnx file."""
    import torch

    from edgecv.methods.export.torch_program import to_onnx

    torch.set_num_threads(work.expansion.recipe.threads)
    preprocess = work.preprocess()
    image = (1, preprocess.channels, *preprocess.size)
    with tempfile.TemporaryDirectory(prefix="edgecv-torch-") as room:
        path = to_onnx(Path(source.name), Path(room), image, source.pins.inputs)
        from_graph(work, ModelSource("onnx", str(path), {}))


def _check_input(name: str, graph: Graph, preprocess: Preprocess) -> None:
    """Raises ModelError where the file takes images of another shape than the data's."""
    if (image := image_of(graph.inputs)) is None:
        return
    _, channels, *sides = plain(image).shape
    if (channels, *sides) != (preprocess.channels, *preprocess.size):
        made = f"{preprocess.size[0]}x{preprocess.size[1]} with {preprocess.channels}"
        what = f"takes images of {sides[0]}x{sides[1]} with {channels} channels, the data is {made}"
        raise ModelError(name, what, "data.size and data.channels as the file has them")


def _check_normalisation(name: str, graph: Any, preprocess: Any) -> None:
    """A file that takes bytes normalises them itself: mean 0, and a std that undoes 0..1."""
    plain = not any(preprocess.mean) and all(abs(s - 1) < 1e-6 for s in preprocess.std)
    if graph.facts.get("takes") == "bytes" and not plain:
        raise ModelError(
            name,
            "takes pixels as they are (uint8), and normalises them itself",
            "data.units: 0..255, data.mean: 0 and data.std: 1",
        )
