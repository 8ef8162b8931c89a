"""What an .onnx file says of itself beside the network, as Ultralytics' exporter writes it.

metadata_props holds strings, Python's literals among them: `names` "{0: 'person', ...}", `imgsz`
"[640, 640]", `stride`, `task` "detect" (ultralytics/engine/exporter.py). Files of others may
hold the same keys; what is not of these forms says nothing.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgecv.graph import Graph
from edgecv.runtime.spec import image_of

log = logging.getLogger(__name__)
LARGEST = 1 << 20  # characters of a value
# How pictures become the input of Ultralytics' detectors: LetterBox, of OpenCV's bilinear resize
LETTERBOXED = {"resize": "letterbox", "pad_at": "centre", "pad_value": 114,
               "interpolation": "bilinear"}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """labels: of the classes, or None; size: (height, width) of the input in pixels, or None;
    letterboxed: whether it is a detector whose pictures are letterboxed"""

    labels: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    letterboxed: bool = False

    def input(self) -> dict[str, Any]:
        """What a graph's facts hold of it: fields of Preprocess, and the labels."""
        found: dict[str, Any] = dict(LETTERBOXED) if self.letterboxed else {}
        return found | ({"labels": list(self.labels)} if self.labels else {})


def said(model: Any) -> Said:
    """Of an onnx.ModelProto. Nothing is run, and nothing raised."""
    texts = {p.key: p.value for p in model.metadata_props}
    letterboxed = texts.get("task") == "detect" and {"imgsz", "stride", "names"} <= texts.keys()
    return Said(_labels(_literal(texts, "names")), _size(_literal(texts, "imgsz")), letterboxed)


def noted(graph: Graph, said: Said, where: str) -> Graph:
    """The graph with what its file says in its facts, saved: "input". Warns where the size that is
    said is not the input's."""
    if known := said.input():
        graph.facts["input"] = known
        graph.save_facts()
    image = image_of(graph.inputs)
    if said.size and image is not None and image.shape[2:] != said.size:
        told, taken = ("x".join(map(str, size)) for size in (said.size, image.shape[2:]))
        log.warning(
            "%s: metadata says imgsz %s, the input is %s: that is taken", where, told, taken
        )
    return graph


def _literal(texts: Mapping[str, str], key: str) -> Any:
    text = texts.get(key, "")
    try:
        return ast.literal_eval(text) if 0 < len(text) <= LARGEST else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _labels(names: Any) -> tuple[str, ...] | None:
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[k] for k in range(len(names))]
    if not isinstance(names, list) or not names:
        return None
    return tuple(names) if all(isinstance(n, str) and n.strip() for n in names) else None


def _size(sides: Any) -> tuple[int, int] | None:
    sides = [sides, sides] if type(sides) is int else sides
    whole = isinstance(sides, list | tuple) and all(type(v) is int and v > 0 for v in sides)
    return (sides[0], sides[1]) if whole and len(sides) == 2 else None
