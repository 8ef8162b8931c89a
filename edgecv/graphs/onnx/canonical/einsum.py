"""Einsum of two tensors as a product of matrices.

Σ_k A[b, m, k] B[b, k, n] = MatMul(A', B'),   A' = A transposed to (b, m, k), B' to (b, k, n)

b: letters of both factors and the result, k: of both factors alone, m and n: of one factor and the
result; several letters m, n or k become one axis by a Reshape, and the result is transposed to the
order that is asked for. A constant is transposed here. Left as it is: other than two factors,
an ellipsis, a letter twice in a factor, a letter of one factor that the result does not have.
Source: onnx/docs/Operators.md, Einsum. Engines have int8 kernels for MatMul and none for Einsum.
"""

from __future__ import annotations

import math
from typing import Any

from edgecv.graphs.onnx.draft import Draft, attributes


def einsum(draft: Draft) -> None:
    for node in draft.nodes("Einsum"):
        if len(node.input) == 2:
            _product(draft, node, attributes(node)["equation"].replace(" ", ""))


def _product(draft: Draft, node: Any, equation: str) -> None:
    left, _, result = equation.partition("->")
    a, _, b = left.partition(",")
    shapes = [draft.known_shape(n) for n in node.input]
    if not result or any(s is None for s in shapes) or not equation.replace(",", "").replace(
        "->", "").isalpha():  # fmt: skip
        return
    if any(len(set(word)) < len(word) for word in (a, b, result)):
        return
    if (set(a) ^ set(b)) - set(result):
        return
    size = {c: n for word, shape in zip((a, b), shapes, strict=True)
            for c, n in zip(word, shape or (), strict=True)}  # fmt: skip
    names = list(node.input)
    if draft.constant(names[0]) is not None:  # the weight is the right factor
        a, b, names = b, a, names[::-1]
    batch = [c for c in result if c in a and c in b]
    over = [c for c in b if c in a and c not in result]
    rows = [c for c in result if c in a and c not in batch]
    columns = [c for c in result if c in b and c not in batch]
    flat = not batch and len(over) == 1 and len(columns) == 1  # rows of any number of axes
    parts = [rows] if not flat else [[c] for c in rows]
    x = _laid(draft, node, names[0], a, [[c] for c in batch] + [*parts, over], size)
    w = _laid(draft, node, names[1], b, [[c] for c in batch] + [over, columns], size)
    out = node.output[0]
    made = [*batch, *rows, *columns]
    steps: list[tuple[str, Any]] = []
    if not flat and (len(rows) != 1 or len(columns) != 1):
        steps.append(("Reshape", [size[c] for c in made]))
    if made != list(result):
        steps.append(("Transpose", [made.index(c) for c in result]))
    name = out
    for op, how in reversed(steps):
        before = draft.unique(f"{out}/{op.lower()}")
        draft.behind(node, _move(draft, op, before, name, how))
        name = before
    node.op_type, node.output[0] = "MatMul", name
    node.name = name if node.name == out else node.name  # no two nodes of one name
    del node.attribute[:], node.input[:]
    node.input.extend([x, w])


def _laid(draft: Draft, node: Any, name: str, word: str, parts: list[list[str]],
          size: dict[str, int]) -> str:  # fmt: skip
    """A factor with its letters in the order of `parts`, each of which becomes one axis."""
    order = [word.index(c) for part in parts for c in part]
    shape = [math.prod(size[c] for c in part) for part in parts]
    value = draft.constant(name)
    if value is not None:
        return draft.hold(f"{name}/matrix", value.transpose(order).reshape(shape))
    if order != sorted(order):
        turned = draft.unique(f"{name}/turned")
        draft.before(node, _move(draft, "Transpose", name, turned, order))
        name = turned
    if any(len(part) != 1 for part in parts):
        whole = draft.unique(f"{name}/matrix")
        draft.before(node, _move(draft, "Reshape", name, whole, shape))
        name = whole
    return name


def _move(draft: Draft, op: str, source: str, out: str, how: list[int]) -> Any:
    import numpy as np

    if op == "Transpose":
        return draft.make(op, [source], out, perm=how)
    return draft.make(op, [source, draft.hold(f"{out}/shape", np.array(how, np.int64))], out)
