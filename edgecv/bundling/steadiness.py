"""Whether what a float network answers is its own, or the rounding of float32.

    steadiness = SQNR(f(x), f((1 + 1e-6) x))

A mean right behind a normalisation over the same axes, say, is the same for every image; a layer
behind it that was fitted to what is left multiplies rounding. Such a network answers differently
on every engine, and none of them is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.bundling.inference import last_answers, plain_session, sample
from edgecv.errors import ParityError
from edgecv.fidelity import compare_all
from edgecv.runtime.fidelity import kinds

if TYPE_CHECKING:
    from edgecv.graph import Graph
    from edgecv.runtime.preprocess import Preprocess
    from edgecv.samples import Given

LEAST_DB = 60.0  # a sound float network: 110 to 140
IMAGES = 16


class Nudged:
    """A session that sees every float a millionth larger."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs, self.outputs, self.close = session.inputs, session.outputs, session.close

    def run(self, feeds: dict[str, np.ndarray]) -> Any:
        """As the session's own."""
        more = np.float32(1 + 1e-6)
        return self._session.run({k: v * more if v.dtype == "f4" else v for k, v in feeds.items()})


def steadiness(graph: Graph, pixels: Given, preprocess: Preprocess) -> float:
    """In decibel, of the least steady output; infinite where one holds NaN, which is another fault.

    graph: a float one. pixels: uint8 (N, H, W, C)
    """
    few = sample(pixels, IMAGES)
    first = last_answers(plain_session(graph), few, preprocess)
    again = last_answers(Nudged(plain_session(graph)), few, preprocess)
    if not all(np.isfinite(v).all() for v in (*first, *again)):
        return np.inf
    found = compare_all(list(first), list(again), kinds(graph.outputs), LEAST_DB)
    return min(one.sqnr_db for one in (found.outputs.values() or (found,)))


def explained(
    error: ParityError, graph: Graph, pixels: Given, preprocess: Preprocess
) -> ParityError:
    """The same error; of a network whose answers are rounding, one that says so."""
    if graph.precision != "fp32" or graph.inputs[0].dtype != "float32" or "one_bit" in graph.facts:
        return error  # a sign that turns is a step, not rounding
    found = steadiness(graph, pixels, preprocess)
    if found >= LEAST_DB:
        return error
    what = (
        f"{error.what}; its answers are rounding: {found:.1f} dB from its own where every pixel is "
        "a millionth larger"
    )
    hint = "look for a mean behind a normalisation over the same axes, which leaves nothing else"
    return ParityError(error.where, what, hint)
