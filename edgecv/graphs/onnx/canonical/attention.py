"""Attention of opset 23 and later becomes its products and its softmax.

    Y = softmax(scale Q Kᵀ + mask) V, head by head

Hardly an engine but ONNX Runtime has a kernel of it, and no integers reach its two products. Heads
that share their keys and values (q_num_heads > kv_num_heads) read them by Gather. What masks a row
whole, or keeps state from call to call, stays as it is.

Vaswani et al., "Attention Is All You Need" (2017); source: onnx/docs/Operators.md, Attention.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgecv.graphs.onnx.canonical.masks import LOW
from edgecv.graphs.onnx.draft import Draft, Formula, attributes

FLOAT = 1  # of TensorProto


def attention(draft: Draft) -> None:
    for node in draft.nodes("Attention"):
        given = attributes(node)
        state = [n for n in (*node.input[4:], *node.output[1:]) if n]
        if not state and not given.get("softcap") and given.get("softmax_precision", 1) == FLOAT:
            _written_out(draft, node, given)


def _written_out(draft: Draft, node: Any, given: dict[str, Any]) -> None:
    names = list(node.input[:3])
    shapes = [draft.shape(node, n) for n in names]
    heads = [given[f"{of}_num_heads"] if len(s) == 3 else s[1]
             for of, s in zip(("q", "kv", "kv"), shapes, strict=True)]  # fmt: skip
    rows, columns = shapes[0][-2], shapes[1][-2]
    mask = node.input[3] if len(node.input) > 3 else ""
    known = draft.constant(mask) if mask else np.zeros((1, 1), np.float32)
    if known is None and (draft.shape(node, mask)[-1] != columns or not _is_float(draft, mask)):
        return
    bias = np.zeros((1, 1), np.float32) if known is None else _added(known)
    if bias.shape[-1] not in (1, columns):
        return
    if given.get("is_causal"):
        if rows != columns:  # where the diagonal begins is read in two ways
            return
        bias = bias + np.where(np.tri(rows, columns, dtype=bool), 0, LOW).astype(np.float32)
    if (bias.max(-1) <= LOW).any():  # all of a row is masked
        return
    write = Formula(draft, node)
    q, k, v = (_parted(draft, write, n, s, h)
               for n, s, h in zip(names, shapes, heads, strict=True))  # fmt: skip
    if heads[0] > heads[1]:
        which = np.repeat(np.arange(heads[1]), heads[0] // heads[1])
        shared = draft.hold(f"{node.output[0]}/heads", which)
        k, v = (write("Gather", n, shared, axis=1) for n in (k, v))
    size = shapes[0][-1] // (heads[0] if len(shapes[0]) == 3 else 1)
    scaled = write("Mul", q, given.get("scale", 1 / math.sqrt(size)))
    scores = write("MatMul", scaled, write("Transpose", k, perm=[0, 1, 3, 2]))
    if mask and known is None:
        scores = write("Add", scores, mask)
    if bias.any():
        scores = write("Add", scores, draft.hold(f"{node.output[0]}/mask", bias))
    weights, out = write("Softmax", scores, axis=-1), node.output[0]
    if len(shapes[0]) == 4:
        write("MatMul", weights, v, out=out)
    else:
        turned = write("Transpose", write("MatMul", weights, v), perm=[0, 2, 1, 3])
        joined = np.array([*shapes[0][:2], -1], np.int64)
        write("Reshape", turned, draft.hold(f"{out}/shape", joined), out=out)
    write.end()


def _parted(draft: Draft, write: Formula, name: str, shape: tuple[int, ...], heads: int) -> str:
    """(B, H, T, D) of what may be (B, T, H D)."""
    if len(shape) == 4:
        return name
    parts = draft.hold(f"{name}/heads", np.array([*shape[:2], heads, -1], np.int64))
    return write("Transpose", write("Reshape", name, parts), perm=[0, 2, 1, 3])


def _added(mask: np.ndarray) -> np.ndarray:
    """A mask as what is added to the scores."""
    if mask.dtype == bool:
        return np.where(mask, 0, LOW).astype(np.float32)
    return np.maximum(mask, LOW).astype(np.float32)


def _is_float(draft: Draft, name: str) -> bool:
    """Whether a computed mask is certain to be added, and not to choose."""
    maker = draft.maker(name)
    if maker is not None:
        return maker.op_type in ("Add", "Sub", "Mul", "Div", "MatMul")
    given = next((i for i in draft.graph.input if i.name == name), None)
    return given is not None and given.type.tensor_type.elem_type == FLOAT
