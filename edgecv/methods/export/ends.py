"""What a graph's outputs hold: scores for classes, scores for every pixel, or values.

A row of two numbers or more is taken for scores, unless it ends in a function that makes quantities
of them (ReLU, softplus, sigmoid, exp, ...) and nothing says what its classes are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgecv import tasks
from edgecv.graph import Graph
from edgecv.methods.export.roads import road
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.spec import ungrouped

SIGMOIDS = {"Sigmoid", "HardSigmoid", "HSigmoid", "LOGISTIC"}  # in every format's words


def with_kinds(graph: Graph, labels: Sequence[str] | None, task: str | None = None) -> Graph:
    """The graph with the kind of each output. labels: the first output's classes, if known.

    task: what the network is for; its rows may be no classes, and whether a sigmoid makes an
    output ("sigmoid" in the facts) is what some tasks read it by
    """
    own = road(graph.format)
    ends = own.ends(graph)
    other = None if tasks.of_classes(task) else tasks.task(str(task))
    found = []
    for place, spec in enumerate(graph.outputs):
        kind = kinds([ungrouped(spec)])[spec.name]
        if kind != "map" and not (labels and place == 0) and ends[place] in own.VALUES:
            kind = "values"
        if other is not None and kind == "classes":
            kind = other.rows
        found.append(replace(spec, kind=kind))
    made = replace(graph, outputs=tuple(found))
    sigmoid = [s.name for s, end in zip(found, ends, strict=True) if end in SIGMOIDS]
    if other is None or not sigmoid:
        return made
    return replace(made, facts={**made.facts, "sigmoid": sigmoid})
