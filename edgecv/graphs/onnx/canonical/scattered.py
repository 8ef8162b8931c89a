"""GatherND, ScatterND and Trilu by constant indices as operators that every engine has.

GatherND(x, i)      = Reshape(Gather(Reshape(x; rows), j)),  j = i as the number of a row
ScatterND(x, i, u)  = Reshape(Gather(Concat(rows of x, rows of u), m)),  m = the row that each
                      row of the result comes from, of several updates of one row the last
Trilu(x)            = x · mask of 0 and 1 (for x without infinities)

Exporters write slices that are assigned to, decoders of boxes and causal masks so. Left as they
are: indices that are computed, a batch_dims, a reduction, values that are no floats.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes


def scattered(draft: Draft) -> None:
    for node in draft.nodes("GatherND", "ScatterND"):
        given, indices = attributes(node), draft.constant(node.input[1])
        shape = draft.known_shape(node.input[0])
        if indices is None or shape is None or draft.constant(node.input[0]) is not None:
            continue
        if given.get("batch_dims", 0) or given.get("reduction", "none") != "none":
            continue
        depth = indices.shape[-1]
        rows, row = math.prod(shape[:depth]), math.prod(shape[depth:])
        sizes = np.array(shape[:depth], np.int64)
        each = (indices + (indices < 0) * sizes).reshape(-1, depth)
        if (each < 0).any() or (each >= sizes).any():
            draft.refuse(node, f"its indices go beyond a value of shape {shape}")
        number = np.array(np.ravel_multi_index(tuple(each.T), tuple(shape[:depth])), np.int64)
        x = _reshaped(draft, node, node.input[0], [rows, row])
        if node.op_type == "GatherND":
            wanted = [*indices.shape[:-1], *shape[depth:]]
        else:
            updates = _reshaped(draft, node, node.input[2], [len(number), row])
            joined = draft.unique(f"{node.output[0]}/rows")
            draft.before(node, draft.make("Concat", [x, updates], joined, axis=0))
            x, wanted = joined, [*shape]
            last = {int(at): rows + k for k, at in enumerate(number)}
            number = np.array([last.get(at, at) for at in range(rows)], np.int64)
        _gathered(draft, node, x, number, wanted)
    for node in draft.nodes("Trilu"):
        _masked(draft, node)


def _reshaped(draft: Draft, node: Any, name: str, shape: list[int]) -> str:
    out = draft.unique(f"{name}/rows")
    held = draft.hold(f"{out}/shape", np.array(shape, np.int64))
    draft.before(node, draft.make("Reshape", [name, held], out))
    return out


def _gathered(draft: Draft, node: Any, x: str, number: np.ndarray, wanted: list[int]) -> None:
    out, rows = node.output[0], draft.unique(f"{node.output[0]}/taken")
    held = draft.hold(f"{rows}/shape", np.array(wanted, np.int64))
    draft.behind(node, draft.make("Reshape", [rows, held], out))
    node.op_type, node.output[0] = "Gather", rows
    node.name = rows if node.name == out else node.name  # no two nodes of one name
    del node.attribute[:], node.input[:]
    node.input.extend([x, draft.hold(f"{rows}/rows", number)])
    node.attribute.extend(draft.make("Gather", [], "", axis=0).attribute)


def _masked(draft: Draft, node: Any) -> None:
    shape = draft.known_shape(node.input[0])
    given = draft.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else np.zeros(())
    if shape is None or given is None or draft.constant(node.input[0]) is not None:
        return
    keep = np.triu if attributes(node).get("upper", 1) else np.tril
    mask = keep(np.ones(shape[-2:], np.float32), int(given.reshape(())))
    node.op_type = "Mul"
    del node.attribute[:], node.input[1:]
    node.input.append(draft.hold(f"{node.output[0]}/mask", mask))
