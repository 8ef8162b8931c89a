"""A quantized network whose roundings can be put in and taken out one by one, whatever its format.

A tensor is rounded where the file puts it on a grid; the tensors that only repeat its numbers on
the same grid (behind a reshape) are rounded with it. With nothing rounded and float weights it is
the float network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Tensor:
    """One activation that the file rounds.

    low, high: the least and the largest real number of its grid, of all channels together
    step:      one level, the coarsest channel's
    several:   each channel has a scale of its own
    inside:    of which activation function (`graphs.onnx.epilogues`) it is an input or a part, and
               nothing else reads it; "" for none
    depthwise: the layers that read each of its channels by itself
    parts:     the tensors that it joins, (name, whether a sigmoid or softmax makes it) each
    also:      tensors that repeat its numbers on its grid
    end:       the network's output that it is, rounded
    """

    name: str
    low: float
    high: float
    step: float
    several: bool = False
    inside: str = ""
    depthwise: tuple[str, ...] = ()
    parts: tuple[tuple[str, bool], ...] = ()
    also: tuple[str, ...] = ()
    end: str = ""

    @property
    def shown(self) -> str:
        """What a user knows it as."""
        return self.end or self.name


class Network(Protocol):
    """tensors: what is rounded, in the file's order. layers: that have integer weights;
    unknown: those of them whose float weights were not found, which keep their integers."""

    tensors: tuple[Tensor, ...]
    layers: int
    unknown: tuple[str, ...]

    def session(self, rounded: Collection[str], weights: bool) -> Any:
        """A `backends.Session` with those tensors rounded, and weights in integers or float."""

    def values(self, feed: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, Any]:
        """Tensors of one call by name, as the float network has them."""
