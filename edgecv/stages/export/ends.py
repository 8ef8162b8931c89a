"""What a graph's outputs hold: scores for classes, scores for every pixel, or values.

A row of two numbers or more is taken for scores, unless it ends in a function that makes quantities
of them (ReLU, softplus, sigmoid, exp, ...) and nothing says what its classes are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgecv.graph import Graph
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.spec import ungrouped
from edgecv.stages.export.roads import road


def with_kinds(graph: Graph, labels: Sequence[str] | None) -> Graph:
    """The graph with the kind of each output. labels: the first output's classes, if known."""
    own = road(graph.format)
    ends = own.ends(graph)
    found = []
    for place, spec in enumerate(graph.outputs):
        kind = kinds([ungrouped(spec)])[spec.name]
        if kind != "map" and not (labels and place == 0) and ends[place] in own.VALUES:
            kind = "values"
        found.append(replace(spec, kind=kind))
    return replace(graph, outputs=tuple(found))
