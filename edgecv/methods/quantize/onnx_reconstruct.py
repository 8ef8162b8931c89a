"""A settled Q/DQ graph and its float graph, as `reconstruction.py` wants to see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.tensors import watcher
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import layers
from edgecv.methods.quantize.onnx_quantized import Quantized
from edgecv.methods.quantize.reconstruction import Subject
from edgecv.models.importing.operators import OPERATORS
from edgecv.models.importing.reader import Reader


def subject(model: Any, quantized: Any) -> Subject:
    """model: the float onnx.ModelProto, shapes inferred, that `quantized` was made of.

    Raises UnsupportedError: an operator that torch cannot simulate.
    """
    reader = Reader(model, "quantize.reconstruction")
    net: Any = reader.read(OPERATORS)
    graph, flow = Quantized(quantized), reader.nodes
    uses = Index(model.graph).uses
    found = []
    for node in layers(model):
        place, made = graph.layer(node), flow.get(node.output[0])
        single = uses[node.input[1]] == 1
        if place is not None and single and made is not None and made.op == "call_module":
            found.append((str(made.target), node.output[0], place))
    output = model.graph.output[0].name

    @cache
    def watched(*names: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        return watcher(model, names)

    def teach(images: np.ndarray, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        return map(watched(*names), images)

    return Subject(
        net=net,
        flow=flow,
        output=output,
        blocks=_blocks(model, set(flow) - {output}),
        layers=found,
        activations=graph.activations(),
        teach=teach,
        feed=lambda images: images,
    )


def _blocks(model: Any, known: set[str]) -> list[str]:
    """Sums of two branches, and layers that no activation follows; all layers where neither is."""
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    convolutions = [n.output[0] for n in model.graph.node if n.op_type == "Conv"]
    ends = [n for n in convolutions if not {"Relu", "Clip"} & readers.get(n, set())]
    sums = [n.output[0] for n in model.graph.node if n.op_type == "Add"]
    return [n for n in (*ends, *sums) if n in known] or [n for n in convolutions if n in known]
