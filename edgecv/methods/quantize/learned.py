"""Ranges and scales that `qat` learned, in place of those that calibration measures.

    activation: s = (high − low) / 255 over the learned range;  weight: the learned s, q = w / s

`export` puts them into the graph's facts under the graph's own tensor names. The float weights lie
on their grid already, so nothing is rounded by other means, and biases need no correction.
"""

from __future__ import annotations

from edgecv.errors import UnsupportedError
from edgecv.graph import Graph
from edgecv.methods.quantize.ranges import Range
from edgecv.target import Grid


def is_learned(graph: Graph) -> bool:
    """Whether the graph is of a network that `qat` trained."""
    return "learned" in graph.facts


def ranges(graph: Graph) -> dict[str, Range]:
    """Learned ranges by tensor name; none for a graph that was not trained so."""
    table = graph.facts.get("learned", {}).get("activations", {})
    return {name: (low, high) for name, (low, high, _) in table.items()}


def notes(graph: Graph) -> list[str]:
    """What to know of a bundle made from the graph: activations of fewer than 8 bits run with 256
    levels over their learned range.
    """
    table = graph.facts.get("learned", {}).get("activations", {})
    fewer = sorted({int(bits) for _, _, bits in table.values() if bits < 8})
    if not fewer:
        return []
    bits = "/".join(map(str, fewer))
    note = f"activations were trained with {bits} bits and run with 8: this accuracy is the"
    return [f"{note} engine's own, not the fake-quantized network's"]


def scales_of(graph: Graph, grid: Grid) -> dict[str, list[float]]:
    """Learned steps of weights by name. Raises UnsupportedError: the grid cannot hold them."""
    table = graph.facts.get("learned", {}).get("weights", {})
    if not grid.per_channel and any(len(w["scale"]) > 1 for w in table.values()):
        what = "weights were trained with a step per channel, the target takes one per tensor"
        raise UnsupportedError("quantize", what, "set per_channel: true in the target's grid")
    return {name: w["scale"] for name, w in table.items()}
