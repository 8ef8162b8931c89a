"""w ≈ fp16(w): half the bytes, 11 bits of every weight, and no image needed.

    storage  weights are kept in fp16 and unpacked to fp32 when the engine loads them (ONNX Runtime,
             OpenVINO, LiteRT): half the file, the same time, the same memory
    compute  the network computes in fp16 (TensorRT, which does what the file says)

bf16 (8 bits of every number, float32's range) is no matter of the file: the graph stays as it is
and carries the wish, which OpenVINO follows on processors with AVX-512-BF16 or AMX.

CPUs without fp16 arithmetic compute it slower than fp32, so nothing but a GPU is given fp16
activations here. A weight beyond 65,504 has no fp16 and is refused; what is below 6e-8 becomes 0.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecv.errors import ModelError
from edgecv.graph import Graph
from edgecv.methods.quantize.roads import road

LARGEST = float(np.finfo(np.float16).max)
SMALL = 64  # values; a shorter tensor (a bias) is not worth an operator of its own


def halve(graph: Graph, out: Path, compute: bool = False) -> Graph:
    """Write out/ with the graph's weights in fp16.

    graph: a float graph. compute: ONNX only, activations in fp16 too; inputs and outputs stay
    float32. Same graph, same bytes.
    Raises ModelError: not a float graph, a weight that fp16 does not hold.
    """
    if graph.precision != "fp32":
        raise ModelError(graph.path.name, f"is {graph.precision}, not fp32")
    out.mkdir(parents=True, exist_ok=True)
    path = out / graph.path.name
    ops = road(graph.format).halve(graph, path, compute)
    facts = {**graph.facts, "ops": ops, "half": "compute" if compute else "storage", "warnings": []}
    made = Graph(path, graph.format, "fp16", graph.inputs, graph.outputs, facts)
    made.save_facts()
    return made


def brain(graph: Graph, out: Path) -> Graph:
    """Write out/ with the float graph as it is, to be computed in bf16.

    Raises ModelError: not a float graph.
    """
    if graph.precision != "fp32":
        raise ModelError(graph.path.name, f"is {graph.precision}, not fp32")
    made = replace(graph.copied(out), precision="bf16", facts={**graph.facts, "warnings": []})
    made.save_facts()
    return made


def as_half(name: str, values: np.ndarray) -> np.ndarray:
    """A weight in fp16. Raises ModelError: fp16 does not hold it."""
    most = float(np.abs(values).max(initial=0.0))
    if most > LARGEST:
        what = f"weight {name!r} holds {most:.3g}, fp16 ends at {LARGEST:g}"
        raise ModelError("quantize", what, "fold or clip what scales it, or leave it fp32")
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.float16)
