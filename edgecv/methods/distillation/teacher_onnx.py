"""A teacher in an .onnx file, in canonical form (`edgecv.graphs.onnx.canonical`), in torch.

Where it holds an operator that cannot be read it is run by ONNX Runtime, and only its logits teach.
It says nothing of how its pixels were normalised: it is fed what the recipe says, or the pixels as
they are where it takes bytes.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgecv.backends.onnxruntime.run import Session
from edgecv.errors import UnsupportedError
from edgecv.graphs.onnx.pins import Pins
from edgecv.methods.export.onnx import load_onnx
from edgecv.runtime.preprocess import Preprocess


def load(path: Path, preprocess: Preprocess) -> tuple[nn.Module, Preprocess]:
    """The network in a file, and how the images that it takes are normalised.

    preprocess: of the images that come; their size is taken where the file leaves its own open.
    Raises ModelError where the file is damaged, UnsupportedError naming a node.
    """
    from edgecv.models.importing import onnx_to_torch

    with tempfile.TemporaryDirectory(prefix="edgecv-teacher-") as room:
        graph = load_onnx(path, Path(room), Pins(size=preprocess.size))
        taken = preprocess
        if graph.facts.get("takes") == "bytes":
            taken = replace(preprocess, mean=(0.0,), std=(1.0,))
        try:
            return onnx_to_torch(graph.path, path.name), taken
        except UnsupportedError:
            return OnnxTeacher(path.name, graph.path.read_bytes()), taken


class OnnxTeacher(nn.Module):
    """A network run by ONNX Runtime, image by image."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__()
        self.session = Session({name: content})

    def forward(self, x: Tensor) -> Tensor:
        source, result = self.session.inputs[0].name, self.session.outputs[0].name
        images = np.ascontiguousarray(x.numpy())
        parts = [self.session.run({source: image[None]})[result] for image in images]
        return torch.from_numpy(np.concatenate(parts))
