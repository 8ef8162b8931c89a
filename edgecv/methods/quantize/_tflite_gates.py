"""SiLU as LiteRT computes it: LOGISTIC of x, then the product of both; x lies in 8 bits between.

    y^ = q(x) * round(256 sigmoid(q(x))) / 256        least E[(y^ - x sigmoid(x))^2]

What is far below 0 gives nothing, however wide it is: a range that is chosen by how well it holds x
spends most of its levels there. So x gets the range that holds y best. Where channels were evened
(`_tflite_even.py`) a product stands in front of LOGISTIC, which tells nothing apart beyond REACH.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.index import Index
from edgecv.methods.quantize.ranges import Range

REACH = 8.0
FAR = -80.0  # where a sigmoid is nothing and its exponential still a number
LEVELS, LOGISTIC_LEVELS = 255, 256
LOWS = np.arange(2.5, REACH + 0.25, 0.25)
SHARES = np.linspace(0.2, 1, 33)


def gate_of(model: Any, index: Index, product: Any) -> Any:
    """The LOGISTIC of x of a product x sigmoid(x) where nothing else reads x; else None."""
    ends = {int(t) for t in index.graph.outputs}
    a, b = (int(t) for t in product.inputs)
    for x, s in ((a, b), (b, a)):
        gate = index.makers.get(s)
        if gate is None or flatbuffer.op_name(model, gate) != "LOGISTIC":
            continue
        alone = len(index.readers[s]) == 1 and len(index.readers[x]) == 2
        if alone and int(gate.inputs[0]) == x and not {x, s} & ends:
            return gate
    return None


def gated(model: Any) -> Iterator[str]:
    """The names of every x that is only read to make x sigmoid(x)."""
    graph = flatbuffer.graph_of(model)
    index = Index(graph)
    for op in graph.operators:
        if flatbuffer.op_name(model, op) == "MUL" and (gate := gate_of(model, index, op)):
            yield graph.tensors[int(gate.inputs[0])].name.decode()


def reached(span: Range) -> Range:
    """As much of a range of x as SiLU tells apart from nothing."""
    return max(span[0], -REACH), span[1]


def told_apart(span: Range) -> Range:
    """As much of a range as a sigmoid in 8 bits tells apart."""
    return max(span[0], -REACH), min(span[1], REACH)


def through(counts: np.ndarray, span: Range) -> Range:
    """The range of x that gives the least error in x sigmoid(x). counts: x's histogram in span"""
    edges = np.linspace(*span, len(counts) + 1)
    held = counts > 0
    x, held = ((edges[1:] + edges[:-1]) / 2)[held], counts[held].astype(np.float64)
    y, top = x / (1 + np.exp(-np.maximum(x, FAR))), max(span[1], 0.1)
    lows = LOWS[-span[0] > LOWS]
    best, found = np.inf, reached(span)
    for low in -lows if len(lows) else np.array([min(span[0], 0.0)]):
        for high in top * SHARES:
            step = (high - low) / LEVELS
            zero = np.round(-low / step)
            q = np.clip(np.round(x / step), -zero, LEVELS - zero) * step
            gate = np.round(LOGISTIC_LEVELS / (1 + np.exp(-q))) / LOGISTIC_LEVELS
            loss = float(np.square(q * gate - y) @ held)
            if loss < best:
                best, found = loss, (float(low), float(high))
    return found
