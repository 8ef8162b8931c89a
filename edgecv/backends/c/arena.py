"""Where every tensor lies in one arena: those that live at one time never overlap.

Largest first, each at the lowest place that is free while it lives: Pisarchyk & Lee, "Efficient
Memory Management for Deep Neural Net Inference" (2020), greedy by size.
"""

from __future__ import annotations

from edgecv.backends.c.network import Network

ALIGNMENT = 8


def same(network: Network) -> dict[str, str]:
    """Tensors that lie where another does: the same values under another shape."""
    found: dict[str, str] = {}
    for step in network.steps:
        if step.kind == "same":
            found[step.outputs[0]] = found.get(step.inputs[0], step.inputs[0])
    return found


def lives(network: Network) -> dict[str, tuple[int, int]]:
    """First and last step of each tensor that needs a place; not of the input and the output."""
    home = same(network)
    found: dict[str, tuple[int, int]] = {}
    for i, step in enumerate(network.steps):
        for name in (*step.inputs, *step.outputs):
            own = home.get(name, name)
            first, _ = found.get(own, (i, i))
            found[own] = (first, i)
    for name in (*network.sources, *network.results):
        found.pop(home.get(name, name), None)
    return found


def plan(network: Network) -> tuple[dict[str, int], int]:
    """({tensor: offset}, bytes of the arena)."""
    alive = lives(network)
    sizes = {n: -(-network.tensors[n].size_bytes // ALIGNMENT) * ALIGNMENT for n in alive}
    places: dict[str, int] = {}
    for name in sorted(alive, key=lambda n: (-sizes[n], alive[n])):
        begin, end = alive[name]
        taken = sorted(
            (places[n], places[n] + sizes[n]) for n in places
            if alive[n][0] <= end and begin <= alive[n][1]
        )  # fmt: skip
        at = 0
        for low, high in taken:
            if at + sizes[name] <= low:
                break
            at = max(at, high)
        places[name] = at
    return places, max((places[n] + sizes[n] for n in places), default=0)
