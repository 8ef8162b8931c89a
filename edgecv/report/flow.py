"""Where the boxes of the stage graph stand: left to right, from the network to the measurements.

A bundle has a line of its own, under its target's heading; what it was made from stands in the
middle of what was made of it. Lines from the data are left out: everything reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Node = dict[str, Any]
Box = dict[str, Any]
Bends = dict[tuple[str, str, int], float]  # (from, to, column) -> y

WIDTH, HEIGHT = 128, 22  # of a box
ACROSS, DOWN, GAP = 166, 27, 20  # between columns, lines, targets
TOP, LEFT = 34, 6
TITLES = {"export": "export", "quantize": "quantize", "bundle": "compile", "measure": "measure"}


@dataclass
class Flow:
    """Boxes {"node", "label", "x", "y"}, lines as SVG paths, titles of columns and of targets."""

    boxes: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    columns: list[dict[str, Any]] = field(default_factory=list)
    lanes: list[dict[str, Any]] = field(default_factory=list)
    width: int = 0
    height: int = 0


def layout(nodes: list[Node]) -> Flow | None:
    """None when there are no bundles to lay out."""
    if not any(n["kind"] == "bundle" for n in nodes):
        return None
    columns = _columns(nodes)
    flow = Flow()
    y = _lines(nodes, flow)
    _between(nodes, y)
    bends = _bends(nodes, columns, y)
    _apart(columns, y, bends)
    for node in nodes:
        if node["id"] in y:
            x = LEFT + ACROSS * columns[node["id"]]
            flow.boxes.append(
                {"node": node, "label": _label(node), "x": x, "y": round(y[node["id"]])}
            )
    places = {b["node"]["id"]: b for b in flow.boxes}
    for box in flow.boxes:
        for source in sorted(set(_sources(box["node"]))):
            if source in places:
                way = [
                    (LEFT + ACROSS * column, round(at))
                    for (start, end, column), at in sorted(bends.items())
                    if (start, end) == (source, box["node"]["id"])
                ]
                flow.lines.append(_path(places[source], box, way))
    flow.columns = _titles(nodes, columns)
    flow.width = LEFT * 2 + ACROSS * max(columns.values()) + WIDTH
    flow.height = max(flow.height, round(max(y.values())) + HEIGHT + 8)
    return flow


def _sources(node: Node) -> list[str]:
    """What a node was made from, without the data and the network that a bundle is judged by."""
    made_from = {role: v for role, v in node["inputs"].items() if role != "network"}
    return [v for v in made_from.values() if not v.startswith("data:")]


def _columns(nodes: list[Node]) -> dict[str, int]:
    """Node -> column: models by how many stages lie before them, then one column for each kind."""
    found: dict[str, int] = {}
    for node in nodes:  # each comes after its inputs
        before = [found[s] for s in _sources(node) if s in found]
        found[node["id"]] = 1 + max(before, default=-1)
    models = [n["id"] for n in nodes if n["kind"] not in TITLES]
    first = 1 + max((found[i] for i in models), default=-1)
    kinds = [k for k in TITLES if any(n["kind"] == k for n in nodes)]
    for node in nodes:
        if node["kind"] in kinds:
            found[node["id"]] = first + kinds.index(node["kind"])
    return found


def _lines(nodes: list[Node], flow: Flow) -> dict[str, float]:
    """Node -> y of the bundles, target by target."""
    y: dict[str, float] = {}
    at = float(TOP)
    for target in dict.fromkeys(n["target"] for n in nodes if n["kind"] == "bundle"):
        flow.lanes.append({"label": target, "y": at - 4})
        at += 10
        for node in nodes:
            if node["kind"] == "bundle" and node["target"] == target:
                y[node["id"]] = at
                at += DOWN
        at += GAP
    flow.height = round(at)
    return y


def _between(nodes: list[Node], y: dict[str, float]) -> None:
    """Everything else: in the middle of its readers, a measurement of what it read."""
    readers: dict[str, list[str]] = {}
    for node in nodes:
        for source in _sources(node):
            readers.setdefault(source, []).append(node["id"])
    for node in nodes:
        if node["kind"] == "measure":
            at = [y[s] for s in _sources(node) if s in y]
            if at:
                y[node["id"]] = sum(at) / len(at)
    for node in reversed(nodes):
        at = [y[r] for r in readers.get(node["id"], []) if r in y]
        if node["id"] not in y and at:
            y[node["id"]] = sum(at) / len(at)
    low = max(y.values())
    for i, node in enumerate([n for n in nodes if n["id"] not in y]):  # the data
        y[node["id"]] = low / 2 + DOWN * (i + 2)


def _bends(nodes: list[Node], columns: dict[str, int], y: dict[str, float]) -> Bends:
    """Where a line that skips columns passes them: at the height of where it leads."""
    bends: Bends = {}
    for node in nodes:
        for source in _sources(node):
            for column in range(columns.get(source, 0) + 1, columns[node["id"]]):
                bends[source, node["id"], column] = y[node["id"]]
    return bends


def _apart(columns: dict[str, int], y: dict[str, float], bends: Bends) -> None:
    """Push boxes and passing lines of one column apart until none touches the next."""
    for column in set(columns.values()):
        boxes: list[Any] = [i for i, c in columns.items() if c == column and i in y]
        passing = [key for key in bends if key[2] == column]
        stack = sorted([*boxes, *passing], key=lambda i: bends[i] if i in bends else y[i])
        last, room = -1e9, 0.0
        for item in stack:
            place: dict[Any, float] = bends if item in bends else y
            need = DOWN if item in y else DOWN / 2
            place[item] = max(place[item], last + (need + room) / 2)
            last, room = place[item], need


def _label(node: Node) -> str:
    """A box says its step; its column says what was done, and its heading the target."""
    if node["kind"] == "measure":
        return str(node["target"])
    if node["kind"] in ("bundle", "quantize"):
        return str(node["step"])
    return str(node["id"])


def _path(a: Box, b: Box, bends: Sequence[tuple[float, float]]) -> str:
    """From a box's right side to another's left, straight through the columns between them."""
    middle = HEIGHT / 2
    x, y = a["x"] + WIDTH, a["y"] + middle
    path = f"M{x:g} {y:g}"
    for left, top in [*bends, (b["x"], b["y"])]:
        half = (left - x) / 2
        path += f"C{x + half:g} {y:g} {left - half:g} {top + middle:g} {left:g} {top + middle:g}"
        x, y = left, top + middle
        if (left, top) != (b["x"], b["y"]):
            x += WIDTH
            path += f"H{x:g}"
    return path


def _titles(nodes: list[Node], columns: dict[str, int]) -> list[dict[str, Any]]:
    found: dict[int, list[str]] = {}
    for node in nodes:
        kind = "network" if node["kind"] in ("data", "model") else node["kind"]
        kinds = found.setdefault(columns[node["id"]], [])
        title = TITLES.get(kind, kind)
        if title not in kinds:
            kinds.append(title)
    return [{"label": ", ".join(t), "x": LEFT + ACROSS * c} for c, t in sorted(found.items())]
