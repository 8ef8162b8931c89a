"""Functions that a file brings for operators of its own: each call becomes what it stands for.

Source: onnx/docs/IR.md, Functions; onnx.inliner.
"""

from __future__ import annotations

from typing import Any

from edgecv.errors import UnsupportedError
from edgecv.graphs.onnx.draft import Draft


def functions(draft: Draft) -> Any:
    """The model without functions; None where it has none. Raises UnsupportedError."""
    if not draft.model.functions:
        return None
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(draft.model, convert_version=True)
    except Exception:  # the inliner's words are those of a C++ assertion
        names = ", ".join(sorted(repr(f.name) for f in draft.model.functions)[:5])
        raise UnsupportedError(
            draft.where,
            f"its functions {names} cannot be written out in its graph",
            "export it without functions (torch.onnx.export(..., export_modules_as_functions="
            "False), or onnx.inliner)",
        ) from None
