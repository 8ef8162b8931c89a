"""One canonical form: what a graph leaves to defaults or says in a second spelling, said once.

Every .onnx file that enters goes through here, and so does every network that is exported, so
that no reader behind it (engines, quantizer, C, PyTorch) meets a second spelling. One rewrite a
file, its algebra in the docstring; a rewrite changes no value, and whoever calls compares
(`stages.export`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecv.graphs.onnx.canonical.attention import attention
from edgecv.graphs.onnx.canonical.axes import axes
from edgecv.graphs.onnx.canonical.contrib import contrib
from edgecv.graphs.onnx.canonical.einsum import einsum
from edgecv.graphs.onnx.canonical.functions import functions
from edgecv.graphs.onnx.canonical.gemm import gemm, untied
from edgecv.graphs.onnx.canonical.leftovers import leftovers
from edgecv.graphs.onnx.canonical.masks import masks
from edgecv.graphs.onnx.canonical.opset import raised
from edgecv.graphs.onnx.canonical.picked import picked
from edgecv.graphs.onnx.canonical.pools import pools
from edgecv.graphs.onnx.canonical.precision import precision
from edgecv.graphs.onnx.canonical.scattered import scattered
from edgecv.graphs.onnx.canonical.sparse import sparse
from edgecv.graphs.onnx.canonical.stems import stems
from edgecv.graphs.onnx.canonical.stored import stored
from edgecv.graphs.onnx.canonical.windows import windows
from edgecv.graphs.onnx.canonical.wrap import wrap
from edgecv.graphs.onnx.draft import Draft, Learn

# In this order: each finds what those before it wrote. None edits the model that is given.
REWRITES: dict[str, Callable[[Draft], Any]] = {
    "functions": functions,
    "sparse": sparse,
    "precision": precision,
    "opset": raised,
    "contrib": contrib,
    "attention": attention,
    "stored": stored,
    "leftovers": leftovers,
    "axes": axes,
    "masks": masks,
    "wrap": wrap,
    "scattered": scattered,
    "picked": picked,
    "einsum": einsum,
    "gemm": gemm,
    "untied": untied,
    "windows": windows,
    "stems": stems,
    "pools": pools,
}


def canonical(model: Any, where: str, learn: Learn | None = None, until: str | None = None) -> Any:
    """A copy of an onnx.ModelProto in canonical form; its input is static.

    where: the user's file, as errors name it
    learn: as `Draft` takes it
    until: the last rewrite to do (to find the one at fault)
    Raises ModelError, UnsupportedError naming a node that no rewrite can say otherwise.
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.value_info[:]
    for name, rewrite in REWRITES.items():
        draft = Draft(made, where, learn)
        other = rewrite(draft)
        made = draft.model if other is None else other
        del made.graph.value_info[:]  # the opset's converter writes what it believes
        Draft(made, where).drop_unread()
        if name == until:
            break
    return made
