"""Control flow that hangs on constants alone, written out: what is left is a plain graph.

    Loop(M, true, v): body(0, v), body(1, ·) ... body(M - 1, ·) behind each other; what each turn
                      gives besides is joined, Concat(Unsqueeze(s₀), ..., Unsqueeze(s_M-1))
    NonZero(c):       the places where c is not 0
    If(c):            its branch, which folding constants does

Exporters write these for sizes that an open graph computes; pinned, they are numbers. A loop or a
branch that hangs on the image stays, and engines that have none say so. Source:
onnx/docs/Operators.md, If, Loop, NonZero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes, bodies
from edgecv.graphs.onnx.index import Index

CONTROL = ("If", "Loop", "NonZero")
MOST = 4096  # nodes that a loop may become: what is longer stays one


def settled(model: Any, where: str, fold: Callable[[Any, str], Any]) -> Any:
    """The onnx.ModelProto without control flow that hangs on constants; itself where it has none.

    fold: what folds the constants of a model
    """
    while any(node.op_type in CONTROL for node in model.graph.node):
        model = fold(model, where)
        draft = Draft(model, where)
        changed = [_places(draft, node) for node in draft.nodes("NonZero")]
        changed += [_unrolled(draft, node) for node in draft.nodes("Loop")]
        if not any(changed):
            break
    return model


def _places(draft: Draft, node: Any) -> bool:
    value = draft.constant(node.input[0])
    if value is None:
        return False
    held = draft.hold(f"{node.output[0]}/places", np.array(np.nonzero(value), np.int64))
    draft.before(node, draft.make("Identity", [held], node.output[0]))
    draft.remove(node)
    return True


def _unrolled(draft: Draft, node: Any) -> bool:
    """Whether the loop could be written out, and so was."""
    (body,) = bodies(node)
    count = draft.constant(node.input[0]) if node.input[0] else None
    if count is None or not _goes_on(draft, node, body):
        return False
    turns, carried = int(count.reshape(-1)[0]), len(node.input) - 2
    if turns < 1 or turns * len(body.node) > MOST:
        return False
    label = node.name or next(n for n in node.output if n)
    held = {t.name: _held(draft, t, label) for t in body.initializer}
    values, made = list(node.input[2:]), []
    gathered: list[list[str]] = [[] for _ in body.output[1 + carried :]]
    for turn in range(turns):
        names = held | dict(zip([i.name for i in body.input[2:]], values, strict=True))
        names[body.input[0].name] = draft.hold(f"{label}/{turn}/turn", np.array(turn, np.int64))
        names[body.input[1].name] = draft.hold(f"{label}/{turn}/on", np.array(True))
        for inner in body.node:
            for out in filter(None, inner.output):
                names[out] = draft.unique(f"{label}/{turn}/{out}")
            copy = _renamed(inner, names)
            copy.name = f"{label}/{turn}/{inner.name or next(filter(None, inner.output))}"
            made.append(copy)
        ends = [names.get(o.name, o.name) for o in body.output]
        values = ends[1 : 1 + carried]
        for those, name in zip(gathered, ends[1 + carried :], strict=True):
            those.append(name)
    for out, value in zip(node.output, values, strict=False):
        if out:
            made.append(draft.make("Identity", [value], out))
    for out, those in zip(node.output[carried:], gathered, strict=False):
        if out:
            made += _joined(draft, out, those)
    draft.before(node, *made)
    draft.remove(node)
    return True


def _goes_on(draft: Draft, node: Any, body: Any) -> bool:
    """Whether nothing but the count ends the loop."""
    if node.input[1]:
        first = draft.constant(node.input[1])
        if first is None or not first.all():
            return False
    from onnx import numpy_helper

    held = {t.name: t for t in body.initializer}
    makers = Index(body).makers
    name = body.output[0].name
    while name in makers and makers[name].op_type in ("Identity", "Cast"):
        name = makers[name].input[0]
    if name == body.input[1].name:
        return True
    if name in held:
        return bool(numpy_helper.to_array(held[name]).all())
    if name in makers and makers[name].op_type == "Constant":
        value = attributes(makers[name]).get("value")
        return value is not None and bool(numpy_helper.to_array(value).all())
    outer = draft.constant(name) if name not in makers else None
    return outer is not None and bool(outer.all())


def _held(draft: Draft, tensor: Any, label: str) -> str:
    from onnx import numpy_helper

    return draft.hold(f"{label}/{tensor.name}", np.asarray(numpy_helper.to_array(tensor)))


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """A copy that reads and makes tensors of other names, in its own bodies too."""
    made = type(node)()
    made.CopyFrom(node)
    _rename(made, names)
    return made


def _rename(node: Any, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(n, n) for n in node.input]
    node.output[:] = [names.get(n, n) for n in node.output]
    for body in bodies(node):
        for inner in body.node:
            _rename(inner, names)
        for output in body.output:
            output.name = names.get(output.name, output.name)


def _joined(draft: Draft, out: str, those: list[str]) -> list[Any]:
    """Tensors on top of each other, along a new first axis."""
    parts, made = [], []
    for turn, name in enumerate(those):
        parts.append(draft.unique(f"{out}/{turn}"))
        if draft.opset < 13:
            made.append(draft.make("Unsqueeze", [name], parts[-1], axes=[0]))
        else:
            axis = draft.hold(f"{parts[-1]}/axis", np.array([0], np.int64))
            made.append(draft.make("Unsqueeze", [name, axis], parts[-1]))
    return [*made, draft.make("Concat", parts, out, axis=0)]
