"""Space to depth in front of a convolution, as one convolution of larger steps.

    z[c', y, x] = image[c, sy y + dy, sx x + dx]          c' stands for (c, dy, dx), each once
    conv(z; w) of kernel k, stride t, pads p  =  conv(image; v) of kernel s k, stride s t, pads s p
    v[o, c, sy i + dy, sx j + dx] = w[o, c', i, j]

As many products, and none of the copying: the Focus of YOLOv5 and YOLOX (four strided slices and a
concatenation), SpaceToDepth, pixel_unshuffle, patches by Reshape and Transpose. What the nodes in
between move where is asked of them (`carried`), however they are spelled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.onnx.canonical.carried import carried, places
from edgecv.graphs.onnx.draft import Draft, attributes, write_attributes

MOVES = ("Concat", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze",
         "Transpose", "Unsqueeze")  # fmt: skip
MOST_NODES = 64
Part = tuple[int, int, int]


def stems(draft: Draft) -> None:
    for node in draft.nodes("Conv"):
        weight = draft.constant(node.input[1])
        given = attributes(node)
        if weight is None or weight.ndim != 4 or given.get("group", 1) != 1:
            continue
        if set(given.get("dilations", [1])) != {1}:
            continue
        moves, source = _moves(draft, node.input[0])
        if not moves or source is None:
            continue
        at = carried(draft, moves, source, node.input[0])
        if at is None or at.ndim != 4:
            continue
        found = _parts(draft.shape(node, source), at)
        if found is not None:
            _fold(draft, node, weight, source, *found)
            _drop(draft, moves)


def _moves(draft: Draft, end: str) -> tuple[list[Any], str | None]:
    """The nodes that move values, in order, and the one tensor that they start from."""
    found: dict[int, Any] = {}
    sources: set[str] = set()
    todo = [end]
    while todo and len(found) <= MOST_NODES and len(sources) <= 1:
        name = todo.pop()
        maker = draft.maker(name)
        if maker is None or maker.op_type not in MOVES or maker.domain not in ("", "ai.onnx"):
            sources.add(name)
            continue
        if id(maker) in found:
            continue
        data = list(maker.input) if maker.op_type == "Concat" else list(maker.input[:1])
        if any(n and draft.constant(n) is None for n in maker.input[len(data) :]):
            sources.add(name)
            continue
        found[id(maker)] = maker
        todo += data
    if todo or len(sources) != 1:
        return [], None
    return [n for n in draft.graph.node if id(n) in found], sources.pop()


def _parts(shape: tuple[int, ...], at: np.ndarray) -> tuple[tuple[int, int], list[Part]] | None:
    """(steps, of each channel of `at` its (c, dy, dx)); None where it is no space to depth."""
    if len(shape) != 4 or at.shape[0] != shape[0]:
        return None
    _, channels, high, wide = shape
    sy, sx = high // at.shape[2], wide // at.shape[3]
    if sy * sx < 2 or (at.shape[2] * sy, at.shape[3] * sx) != (high, wide):
        return None
    if at.shape[1] != channels * sy * sx:
        return None
    image = places(shape)
    parts = []
    for i, first in enumerate(at[0, :, 0, 0].tolist()):
        c, rest = divmod(first, high * wide)
        dy, dx = divmod(rest, wide)
        if c >= channels or dy >= sy or dx >= sx:
            return None
        if not np.array_equal(image[:, c, dy::sy, dx::sx], at[:, i]):
            return None
        parts.append((c, dy, dx))
    return ((sy, sx), parts) if len(set(parts)) == len(parts) else None


def _fold(
    draft: Draft, node: Any, weight: np.ndarray, source: str, steps: tuple[int, int],
    parts: list[Part],
) -> None:  # fmt: skip
    (sy, sx), (out, _, high, wide) = steps, weight.shape
    channels = len(parts) // (sy * sx)
    made = np.zeros((out, channels, sy * high, sx * wide), weight.dtype)
    for i, (c, dy, dx) in enumerate(parts):
        made[:, c, dy::sy, dx::sx] = weight[:, i]
    given = attributes(node)
    node.input[0] = source
    node.input[1] = draft.hold(node.input[1], made)
    pads = given.get("pads") or [0] * 4
    write_attributes(node, {
        "kernel_shape": [sy * high, sx * wide],
        "strides": [s * t for s, t in zip(steps, given.get("strides") or [1, 1], strict=True)],
        "pads": [p * s for p, s in zip(pads, steps * 2, strict=True)],
    })  # fmt: skip


def _drop(draft: Draft, moves: list[Any]) -> None:
    for node in reversed(moves):
        if not any(draft.uses(name) for name in node.output):
            draft.remove(node)
