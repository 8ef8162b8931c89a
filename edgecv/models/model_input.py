"""What a network says of its own input before anything runs: its file, its folder, its weights."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from edgecv.graph_files import loader
from edgecv.models.model_source import ModelSource
from edgecv.models.zoo import published
from edgecv.runtime.spec import TensorSpec, image_of, plain


def known(source: ModelSource, size: tuple[int, int] | None) -> dict[str, Any]:
    """As far as the model says it: size [height, width], channels, mean and std in units of 0..255,
    the other fields of Preprocess, labels, precision, inputs and outputs (TensorSpecs;
    "shown": as tasks read them); "bytes", its name, where
    it takes pixels as they are; "any_size" where its own is no must; "learned", whether training
    learned the ranges of its tensors.

    size: (height, width) where the file leaves its own open. Raises ModelError: a file that cannot
    be read.
    """
    if source.kind == "folder":
        from edgecv.models.model import Model

        model = Model.read(Path(source.name))
        learned = any(edit["op"] == "quantizers" for edit in model.edits)
        return {**model.input, "labels": model.labels, "learned": learned}
    if source.kind == "script":
        return {}
    if source.kind == "program":
        from edgecv.models.torchfiles.program import image as image_in

        return image_in(Path(source.name))
    if source.is_graph:
        pins = replace(source.pins, size=size)
        with tempfile.TemporaryDirectory(prefix="edgecv-file-") as room:
            graph = import_module(loader(source.kind)).load(Path(source.name), Path(room), pins)
        half = graph.facts.get("stored") == "fp16"
        found: dict[str, Any] = {"precision": "fp16" if half else graph.precision}
        found |= {"inputs": graph.inputs, "outputs": graph.outputs, "shown": graph.shown}
        image = image_of(graph.inputs)
        if image is None:  # of images that are made up for it nobody looks at the pixels
            found |= {"size": [8, 8], "channels": 3}
        else:
            _, channels, height, width = plain(image).shape
            found |= {"size": [height, width], "channels": channels}
        found |= graph.facts.get("input", {})  # mean, std and labels that the file itself names
        if graph.facts.get("takes") == "bytes":  # pixels go in as they are
            found |= {"mean": (0.0,), "std": (1.0,), "bytes": source.name}
        return found
    if source.pins.inputs:
        specs = [TensorSpec(name, "float32", shape, "NCHW" if len(shape) == 4 else "NC")
                 for name, shape in source.pins.inputs.items()]  # fmt: skip
        image = image_of(specs)
        if image is None:
            return {"inputs": specs, "size": [8, 8], "channels": 3}
        return {"inputs": specs, "size": image.shape[2:], "channels": image.shape[1]}
    if source.kind == "zoo":
        return {**published.known(source.name, source.args), "any_size": True}
    return {}


def others(inputs: Sequence[TensorSpec]) -> str:
    """The inputs that take no image, as a sentence names them; "" where there are none."""
    image = image_of(inputs)
    others = [f"{s.name!r} {s.shape}" for s in inputs if image is None or s.name != image.name]
    return ", ".join(others)
