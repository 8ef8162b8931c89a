"""A network as steps in C: what each computes, on which tensors, with which constants.

Tensors are (height, width, channels), images of a batch one below the other. `read.py` makes it
from ONNX, `arena.py` places it in memory, `codegen.py` writes it, `reference.py` computes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecv.errors import UnsupportedError

SIZE_OF = {"float": 4, "int8": 1, "bits": 4}
EACH_IMAGE = ("conv_f32", "conv_i8", "conv_real", "conv_bits", "pool_f32", "pool_i8", "gate_f32",
              "spread", "halve", "lstm", "gru", "rnn")  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """real = scale (q − zero)"""

    scale: float
    zero: int


@dataclass(frozen=True)
class Tensor:
    """shape: height of all images together, width, channels. order: the (h, w, c) that was
    flattened into channels.

    last: whether the channels are the last axis in ONNX as they are here (tokens), not the second
    images: how many lie one below the other; windows do not reach from one into the next
    """

    name: str
    shape: tuple[int, int, int]
    dtype: str = "float"
    order: tuple[int, int, int] | None = None
    last: bool = False
    images: int = 1

    @property
    def one(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return (self.shape[0] // self.images, *self.shape[1:])

    @property
    def values(self) -> int:
        high, wide, channels = self.shape
        return high * wide * (-(-channels // 32) if self.dtype == "bits" else channels)

    @property
    def size_bytes(self) -> int:
        return self.values * SIZE_OF[self.dtype]


@dataclass
class Step:
    """One call. kind: the function in kernels.c; layer: of the model; constants: by role."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    layer: str = ""


@dataclass
class Network:
    """Steps in an order that runs; tensors by name.

    source, others: the tensors of the first input and of those behind it
    result, more:   of the outputs
    shapes:         of the outputs in ONNX, where that is not an image's or a row's
    taken:          of the inputs in ONNX, by name, where that is not one image
    """

    steps: list[Step]
    tensors: dict[str, Tensor]
    source: str
    result: str
    more: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    taken: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        """The tensors of all inputs."""
        return [self.source, *self.others]

    def calls(self, step: Step) -> int:
        """How often its kernel is called: once for each image where it looks beyond a pixel."""
        return self.tensors[step.inputs[0]].images if step.kind in EACH_IMAGE else 1

    @property
    def results(self) -> list[str]:
        """The tensors of all outputs."""
        return [self.result, *self.more]


def multiplier(ratio: float) -> tuple[int, int]:
    """(m, k) with ratio ≈ m / 2^k, m of 31 bits."""
    fraction, power = math.frexp(ratio)
    m, shift = round(fraction * 2**31), 31 - power
    if m == 2**31:
        m, shift = m // 2, shift - 1
    if shift > 62:  # nothing of it is left in 8 bits
        return 0, 31
    if shift < 1 or m <= 0:
        raise UnsupportedError("c", f"two grids differ by {ratio:g}", "quantize it again")
    return m, shift


def words(ones: np.ndarray) -> np.ndarray:
    """Booleans (..., channels) as uint32 (..., ceil(channels / 32)), the first channel lowest."""
    channels = ones.shape[-1]
    whole = np.zeros((*ones.shape[:-1], -(-channels // 32) * 32), np.uint8)
    whole[..., :channels] = ones
    return np.packbits(whole, axis=-1, bitorder="little").view("<u4")
