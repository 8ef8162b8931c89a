"""Resize and Pad for every axis, where a file of opset 18 or later names some alone; the axes of
a MeanVarianceNormalization, which onnx does not infer where they are left to their default.

Resize  axes = (2, 3), scales (a, b)   =  scales (1, 1, a, b); sizes and roi likewise
        keep_aspect_ratio_policy       =  sizes that have the ratio: round(n s) with one s,
                                          min or max of sizes / n; refused where n s is not whole,
                                          since the grid then follows s and not the sizes
Pad     axes = (-1,), pads (a, b)      =  pads (0, 0, 0, a, 0, 0, 0, b)

ONNX Runtime permutes the short form as if it were the long one when it moves a Transpose through
such a node. Source: onnx/docs/Operators.md, Resize, Pad.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes, write_attributes

WHOLE = 1e-5  # of a pixel


def axes(draft: Draft) -> None:
    for node in draft.nodes("Resize"):
        given = attributes(node)
        if given.get("axes") is not None or given.get("keep_aspect_ratio_policy"):
            _resize(draft, node, given)
    for node in draft.nodes("Pad"):
        if len(node.input) > 3 and node.input[3]:
            _pad(draft, node)
    for node in draft.nodes("MeanVarianceNormalization"):
        write_attributes(node, {"axes": attributes(node).get("axes", [0, 2, 3])})


def _resize(draft: Draft, node: Any, given: dict[str, Any]) -> None:
    values = {i: draft.constant(n) for i, n in enumerate(node.input) if i and n}
    if any(v is None for v in values.values()):
        return  # computed; what folds is read again
    shape = draft.shape(node, node.input[0])
    at = _positive(given.get("axes") or range(len(shape)), shape)
    for i, value in values.items():
        assert value is not None
        if not value.size:
            continue
        if i == 1:  # roi: beginnings, then ends
            full = np.array([0] * len(shape) + [1] * len(shape), value.dtype)
            full[[*at, *(len(shape) + a for a in at)]] = value
        else:
            full = np.array([1] * len(shape) if i == 2 else shape, value.dtype)
            full[at] = value if i == 2 else _kept_ratio(draft, node, given, value, shape, at)
        node.input[i] = draft.hold(f"{node.input[i]}/every_axis", full)
    write_attributes(node, {"axes": None, "keep_aspect_ratio_policy": None})


def _kept_ratio(
    draft: Draft,
    node: Any,
    given: dict[str, Any],
    sizes: np.ndarray,
    shape: tuple[int, ...],
    at: list[int],
) -> np.ndarray:
    policy = given.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return sizes
    now = np.array([shape[a] for a in at])
    scale = (min if policy == "not_larger" else max)(sizes / now)
    made = np.floor(now * scale + 0.5)
    if np.abs(made - now * scale).max() > WHOLE:
        why = f"keeps the ratio of {tuple(map(int, now))} at sizes that are not whole"
        draft.refuse(node, why, "export it with the scales, or with sizes of that ratio")
    return np.asarray(made, sizes.dtype)


def _pad(draft: Draft, node: Any) -> None:
    pads, named = draft.constant(node.input[1]), draft.constant(node.input[3])
    if pads is None or named is None:
        return
    shape = draft.shape(node, node.input[0])
    at = _positive(named.reshape(-1), shape)
    full = np.zeros(2 * len(shape), pads.dtype)
    full[[*at, *(len(shape) + a for a in at)]] = pads
    node.input[1] = draft.hold(f"{node.input[1]}/every_axis", full)
    del node.input[3:]
    if not node.input[2]:
        del node.input[2:]


def _positive(named: Any, shape: tuple[int, ...]) -> list[int]:
    return [int(a) % len(shape) for a in named]
