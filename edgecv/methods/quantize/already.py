"""A graph that came with its integers keeps them: q, s and z are those of whoever quantized it.

Nothing is calibrated and nothing rounded again: there is no float network to compare with, and a
second rounding of rounded weights would lose what the first one kept.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from edgecv.context import Context
from edgecv.errors import ModelError
from edgecv.graph import OWN_INTEGERS, Graph
from edgecv.methods.quantize.options import DEFAULT, Options
from edgecv.methods.quantize.roads import road

log = logging.getLogger(__name__)
TOLD = "comes with integers of its own and keeps them: calibration and its options change nothing"


def keep(source: Graph, context: Context, options: Options, limits: bool) -> Graph:
    """The graph as it is, in context.out.

    Raises ModelError where what was asked for needs the float network.
    """
    if limits or options != DEFAULT:
        raise ModelError(
            context.where,
            "the file is quantized already: no option of the quantizer, and no limit, is for it",
            "leave the options out, or bring the float file",
        )
    made = source.copied(context.out)
    more: dict[str, Any] = {"quantizer": OWN_INTEGERS, "warnings": [TOLD]}
    own = road(source.format)
    if hasattr(own, "float_products"):  # other doors know it already
        more["float_ends"] = own.float_products(made.path)
    made = replace(made, facts={"notes": [], **source.facts, **more})
    made.save_facts()
    log.warning("%s: %s", context.where, TOLD)
    return made
