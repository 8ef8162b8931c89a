"""Every layer of a quantized file on its own, all in one file: each is fed from outside.

    in the file     x -> Q -> DQ -> layer -> y -> Q -> DQ -> next
    taken apart                x' -> layer -> y -> Q -> DQ = the layer's own answer
                                                      y' -> next

x' and y' are the float network's tensors, so that an answer holds the rounding of the layer's
weights and of its result, and nobody else's. TFLite's kernels take integers only: there x' is put
on its grid first. One run of one image measures all layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol

import numpy as np

from edgecv.diagnosis.parity.layers import Form, Sample
from edgecv.diagnosis.parity.matching import Pair


class Apart(Protocol):
    def values(self, x: Sample, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Each layer's own answer by its tensor's name, real numbers, channels first.

        given: the float network's tensors by the same names
        """

    def close(self) -> None: ...


def open_apart(form: Form, pairs: Mapping[str, Pair]) -> Apart | None:
    """The form's layers apart; None for a form that cannot be taken apart."""
    if not form.format or form.precision != "int8":
        return None
    made: Apart = import_module(f"edgecv.diagnosis.parity.for_{form.format}").Apart(form, pairs)
    return made
