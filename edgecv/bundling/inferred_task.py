"""Whether a network classifies, where nobody said so: what its outputs hold, and how they behave.

A network whose classes have names, or whose accuracy was measured, is a classifier; so is one that
answers one row of scores, unless the row looks like something else: of unit length for every image
(an embedding), of a width that embeddings have, or called by what is no class. Every other network
is tensors in, tensors out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from edgecv.bundling.inference import Answers, as_rows
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.spec import TensorSpec

CLASSIFICATION = "classification"
EMBEDDINGS = (64, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 1280, 1536, 2048)  # widths
UNIT = 1e-3  # how far from 1 the length of an embedding may be
_OTHER = re.compile(
    r"embed|feat|regress|b?box|landmark|key_?p(oin)?t|kpt|points|coord|depth|angle|pose|descriptor",
    re.IGNORECASE,
)


def inferred(outputs: Sequence[TensorSpec], answers: Answers | None, known: bool) -> str | None:
    """The task, or None.

    outputs: with their kinds. answers: on real or made-up images, as `session_answers` gives them
    known:   that the classes have names, or that accuracy was measured
    """
    first = outputs[0]
    if kinds([first])[first.name] != "classes":
        return None
    if known:
        return CLASSIFICATION
    width = int(np.prod(first.shape))
    if len(outputs) > 1 or width in EMBEDDINGS or _OTHER.search(first.name):
        return None
    if answers is None:
        return CLASSIFICATION
    lengths = np.linalg.norm(as_rows(answers[0]).astype(np.float64), axis=1)
    return None if np.abs(lengths - 1).max() < UNIT else CLASSIFICATION
