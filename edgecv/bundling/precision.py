"""In what precision the layers of a bundle ran, read back from the engine and not assumed.

An engine has not every layer in integers: one that it has not runs in float between conversions,
and is told by name. Where what it has in integers runs in float all the same, the graph's Q/DQ
nodes do not fuse on that engine, which is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.backends import every
from edgecv.errors import EdgecvError, ParityError
from edgecv.graph import OWN_INTEGERS, Graph
from edgecv.runtime.spec import Layer

# At least this share of the compute layers must run in the precision that was asked for.
MIN_SHARE = 0.8
NAMED = 3


def check_precision(
    where: str,
    graph: Graph,
    executed: Mapping[str, int],
    floats: Callable[[], Sequence[Layer]] = tuple,
    floating: Collection[str] = (),
) -> list[str]:
    """What ran in float though int8 was asked for, a sentence each, beyond what was kept so.

    executed: compute layers by precision. floats: the layers that ran in float, asked for only
    where some did. floating: the engine's `Facts.floating`. Raises ParityError: too little ran as
    asked.
    """
    if graph.precision in ("fp16", "bf16"):  # what computes in it is the processor's choice
        return []
    asked, kept = graph.precision, meant_in_float(graph)
    binary = executed.get("binary", 0)
    allowed = len(kept) + graph.facts.get("one_bit", 0) - binary  # that may run as such
    beyond = executed.get("fp32", 0) - allowed
    ran = list(floats()) if asked == "int8" and beyond > 0 else []
    ran = [layer for layer in ran if layer.layer not in kept]
    without = [layer for layer in ran if layer.op.split()[0] in floating]
    total = sum(executed.values()) - binary - min(allowed + len(without), executed.get("fp32", 0))
    if total and executed.get(asked, 0) < MIN_SHARE * total:
        found = ", ".join(f"{n} in {p}" for p, n in sorted(executed.items()))
        raise ParityError(
            where,
            f"asked for {asked}, but of {sum(executed.values()) - binary} compute layers the "
            f"engine ran {found}{_names(': in float', [x for x in ran if x not in without])}",
            "their Q/DQ nodes do not fuse on this engine: "
            + ("bring the float file, which is quantized here so that they do"
               if graph.facts.get("quantizer") == OWN_INTEGERS else "keep them float by name "
               "(--keep-float; in a recipe: quantize: keep_float), or ship fp32"),
        )  # fmt: skip
    if without and not executed.get("int8"):
        what = f"asked for int8, which this engine has for none of its layers{_names(':', without)}"
        raise ParityError(where, what, "ship it in fp32")
    said = (
        "no int8 kernel on this engine for these, or none on the grid of what they read: they stay "
        "float with conversions around them"
    )
    return [f"{said}{_names(':', without)}"] if without else []


def meant_in_float(graph: Graph) -> list[str]:
    """Layers that are meant to compute in float: kept so, or the last one, whose answers are."""
    kept = graph.facts.get("options", {}).get("keep_float", ())
    return [*kept, *graph.facts.get("float_ends", ())]


def float_layers(session: Any) -> list[Layer]:
    """The layers of a session that multiply in float, by its profile of one image of zeros."""
    zeros = {t.name: np.zeros(t.shape, t.dtype) for t in session.inputs}
    try:
        found = session.profile(zeros, 1).layers
    except EdgecvError:
        return []  # then nothing is named
    products = {word for said in every().values() for word in said.products}
    return [x for x in found if x.precision == "fp32" and x.op.split()[0] in products]


def _names(before: str, layers: Sequence[Layer]) -> str:
    names = [f"{x.layer or x.name} ({x.op.split()[0]})" for x in layers]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{before} {', '.join(names[:NAMED])}{more}" if names else ""
