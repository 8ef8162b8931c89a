"""Opsets 7 to 17 become 18, by onnx.version_converter, with what it gets wrong put right.

- It drops that Upsample and Resize-10 are asymmetric: y[i] = x[i / scale], rounded down when
  growing and up when shrinking (onnx/docs/Changelog.md: Upsample-9, Resize-10; measured on ONNX
  Runtime).
- It asks every initializer of IR 3 to be an input; IR 8 does not.
- Before opset 13 a Hardmax, as a Softmax, is over all axes from its own on; it forgets the first:
  Hardmax(x; a) = Reshape(Hardmax(Flatten(x; a)), shape of x).
- A Pad that reflects or repeats edges may hold a value that means nothing; it keeps it where no
  attribute of that name is allowed.
- It has no adapter for an operator that is older in ONNX Runtime than in ONNX (LayerNormalization
  in a file of opset 11): such nodes are set aside.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.errors import ModelError
from edgecv.graphs.onnx.draft import Draft, attributes, write_attributes

OPSET, OLDEST, IR = 18, 7, 8
ASIDE = "edgecv.aside"


def raised(draft: Draft) -> Any:
    """The model at opset 18; itself if it is there, or if nobody can take it there and 13 is near.

    Raises ModelError: older than 7, an operator that has no adapter.
    """
    model, saved = draft.model, draft.opset
    if saved < OLDEST:
        raise ModelError(draft.where, f"opset {saved} is older than {OLDEST}",
                         f"export it again with opset {OPSET}")  # fmt: skip
    if saved >= OPSET:
        return model
    import onnx

    _refuse_training(draft)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(copy.ir_version, IR)
    grids = _old_grids(draft, copy, saved)
    _drop_values(copy)
    if saved < 13:
        _flatten_hardmax(copy)
    _set_aside(copy, saved)
    try:
        copy = onnx.version_converter.convert_version(copy, OPSET)
    except Exception:  # the converter's words are those of a C++ assertion
        if saved >= 13:  # what every reader here knows
            return model
        raise ModelError(
            draft.where,
            f"opset {saved} cannot be taken to {OPSET}",
            f"export it again with opset {OPSET}",
        ) from None
    for node in copy.graph.node:
        if node.domain == ASIDE:
            node.domain = ""
    resizes = [n for n in copy.graph.node if n.op_type == "Resize"]
    if grids:  # in their order: what is no output of the graph gets a new name
        for node, grid in zip(resizes, grids, strict=True):
            write_attributes(node, grid)
    return copy


def _old_grids(draft: Draft, model: Any, saved: int) -> list[dict[str, str]]:
    """How each Resize must round that comes from Upsample or Resize-10, in their order."""
    found = []
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or saved > 10:
            continue
        if node.op_type not in ("Upsample", "Resize"):
            continue
        scales = attributes(node).get("scales")
        if scales is None and len(node.input) > 1:
            scales = draft.constant(node.input[1])
        shrinks = scales is not None and bool((np.asarray(scales) < 1).any())
        found.append({
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "ceil" if shrinks else "floor",
        })  # fmt: skip
    return found


def _drop_values(model: Any) -> None:
    for node in model.graph.node:
        if node.op_type == "Pad" and attributes(node).get("mode", "constant") != "constant":
            write_attributes(node, {"value": None})


def _flatten_hardmax(model: Any) -> None:
    """Of a matrix both meanings are one."""
    draft = Draft(model, "")
    for node in draft.nodes("Hardmax"):
        x, out = node.input[0], node.output[0]
        names = [draft.unique(f"{out}/{part}") for part in ("shape", "flat", "best")]
        shape, flat, best = names
        axis = attributes(node).get("axis", 1)
        draft.before(
            node,
            draft.make("Shape", [x], shape),
            draft.make("Flatten", [x], flat, axis=axis),
            draft.make("Hardmax", [flat], best, axis=1),
            draft.make("Reshape", [best, shape], out),
        )
        draft.remove(node)


def _refuse_training(draft: Draft) -> None:
    """Before opset 14 a BatchNormalization of several outputs normalises by the image itself."""
    for node in draft.nodes("BatchNormalization"):
        if len([n for n in node.output if n]) > 1 and draft.opset < 14:
            why = "is in training mode: it also gives the statistics of the image"
            draft.refuse(node, why, "export it in evaluation mode")


def _set_aside(model: Any, saved: int) -> None:
    import onnx

    for node in model.graph.node:
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type, saved, ""):
            node.domain = ASIDE
    if any(n.domain == ASIDE for n in model.graph.node):
        model.opset_import.append(onnx.helper.make_opsetid(ASIDE, 1))
