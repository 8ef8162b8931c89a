"""A float network in which some tensors are given instead of computed: what they do to its answers.

f(x; t) = what f answers to x where the values t stand in the place of its own
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

import numpy as np

from edgecv.bundling.inference import Answers
from edgecv.diagnosis.parity.layers import Form, Sample

GIVEN = "/given"  # behind the name of a tensor: what is read in its place


class Replaced:
    """form: float, of a graph file. tensors: of its layers. Raises EngineError."""

    def __init__(self, form: Form, tensors: Sequence[str]) -> None:
        self._tensors = tuple(tensors)
        files = import_module(f"edgecv.diagnosis.parity.for_{form.format}")
        self._network = files.Replaced(form, self._tensors)

    def answers(self, x: Sample, given: Mapping[str, np.ndarray]) -> Answers:
        """Each output, float32 (1, ...) channels first. x: float32 (1, C, H, W). given: float32,
        channels first, by the tensor's name"""
        found = self._network.answers(x, given)
        return tuple(
            np.asarray(given[t], np.float32).reshape(v.shape) if t in self._tensors else v
            for t, v in zip(self._network.ends, found, strict=True)
        )

    def close(self) -> None:
        self._network.close()
